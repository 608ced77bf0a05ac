"""What detections cost on the host: DetectionOutput and DetectionEvaluate at the size of SSD300 on VOC (8,732 priors,
21 classes), EvalDetection at that of YOLO v2, for images of 416 and 544 pixels (845 and 1,445 boxes).

    python scripts/bench/bench_detections.py

Two kinds of confidences: of random weights, so that every prior of every class passes and each class has its 400 boxes;
and of a net that is sure of its background, where some 1 % of them pass.  For YOLO v2
maps like those of random weights, where nearly all boxes pass, and with little objectness, where few do.
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
YOLO_BIASES = [1.32, 1.73, 3.19, 4.01, 5.06, 8.1, 9.47, 4.84, 11.24, 10.01]


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


def yolo() -> None:
    """Print milliseconds an image, of maps like a random net's, and of one that sees few objects."""
    random = np.random.default_rng(0)
    for side in (13, 17):
        for n_classes in (20, 80):
            fields = f"side: {side} num_class: {n_classes} num_object: 5 nms: 0.45 biases: {YOLO_BIASES}"
            layer = LayerParameter(name="map", type="EvalDetection", bottom=["y", "label"], top=["map"])
            text_format.Parse(fields, layer.eval_detection_param)
            labels = np.zeros((1, 1, 3 * N_IMAGES, 8), np.float32)
            labels[0, 0, :, 0] = np.repeat(np.arange(N_IMAGES), 3)
            labels[0, 0, :, 1] = random.integers(1, n_classes + 1, 3 * N_IMAGES)
            labels[0, 0, :, 3:5], labels[0, 0, :, 5:7] = 0.2, 0.7
            for kind, spread, objectness in (("random weights", 1.0, 0.0), ("few objects", 1.5, -8.0)):
                maps = spread * random.standard_normal((N_IMAGES, 5, 5 + n_classes, side, side))
                maps[:, :, 4] += objectness
                maps[:, :, 5] += 4 * (objectness < 0)
                bottoms = [maps.reshape(N_IMAGES, -1, side, side).astype(np.float32), labels]
                n_found = len(score_layer(layer, bottoms, ()).scores) / N_IMAGES  # type: ignore[union-attr]
                took = best_ms(lambda layer=layer, bottoms=bottoms: score_layer(layer, bottoms, ()))  # type: ignore[misc]
                print(f"YOLO v2, side {side}, {n_classes} classes, {kind}: {n_found:.0f} found, {took:.1f} ms an image")


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
    yolo()
