"""What DetectionOutput and DetectionEvaluate cost on the host, at the size of SSD300 on VOC: 8,732 priors, 21 classes.

    python scripts/bench_detections.py

Two kinds of confidences: of random weights, so that every prior of every class passes and each class has its 400 boxes;
and of a net that is sure of its background, where some 1 % of them pass.
"""

import time
from collections.abc import Callable

import numpy as np
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.metrics import make_layer, score_layer

N_IMAGES, N_PRIORS, N_CLASSES, N_RUNS = 8, 8732, 21, 5
OUTPUT = """name: "out" type: "DetectionOutput" top: "out" detection_output_param { num_classes: 21 keep_top_k: 200
  code_type: CENTER_SIZE confidence_threshold: 0.01 nms_param { nms_threshold: 0.45 top_k: 400 } }"""
EVALUATE = """name: "map" type: "DetectionEvaluate" bottom: "out" bottom: "label" top: "map"
  detection_evaluate_param { num_classes: 21 }"""


def main() -> None:
    """Print milliseconds an image."""
    output, evaluate = (text_format.Parse(text, LayerParameter()) for text in (OUTPUT, EVALUATE))
    random = np.random.default_rng(0)
    center, extent = random.uniform(0, 1, (N_PRIORS, 2)), random.uniform(0.05, 0.5, (N_PRIORS, 2))
    corners = np.hstack([center - extent / 2, center + extent / 2])
    priors = np.stack([corners, np.tile([0.1, 0.1, 0.2, 0.2], (N_PRIORS, 1))]).reshape(1, 2, -1).astype(np.float32)
    loc = random.standard_normal((N_IMAGES, 4 * N_PRIORS)).astype(np.float32)
    labels = np.zeros((1, 1, 3 * N_IMAGES, 8), np.float32)
    labels[0, 0, :, 0] = np.repeat(np.arange(N_IMAGES), 3)
    labels[0, 0, :, 1] = random.integers(1, N_CLASSES, 3 * N_IMAGES)
    labels[0, 0, :, 3:7] = corners[: 3 * N_IMAGES]
    for kind, spread, background in (("random weights", 0.3, 0.0), ("a sure background", 1.0, 6.0)):
        logits = spread * random.standard_normal((N_IMAGES, N_PRIORS, N_CLASSES))
        logits[..., 0] += background
        conf = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        passing = np.mean(conf[..., 1:] > 0.01)
        blobs = [loc, conf.reshape(N_IMAGES, -1).astype(np.float32), priors]
        rows = make_layer(output, blobs)
        made = best_ms(lambda blobs=blobs: make_layer(output, blobs))  # type: ignore[misc]
        scored = best_ms(lambda rows=rows: score_layer(evaluate, [rows, labels], ()))  # type: ignore[misc]
        print(f"{kind}: {passing:.1%} pass; DetectionOutput {made:.1f}, DetectionEvaluate {scored:.1f} ms an image")


def best_ms(call: Callable[[], object]) -> float:
    """Milliseconds an image, of the fastest run."""
    times = []
    for _ in range(N_RUNS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times) / N_IMAGES


if __name__ == "__main__":
    main()
