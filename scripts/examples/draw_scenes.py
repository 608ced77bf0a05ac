r"""Draw what nets of examples/digit_scenes detect in its first test scenes: docs/img/digit_scenes.png.

    make demo-detection
    distcalib calibrate -q -m examples/digit_scenes/digit_scenes.prototxt \
      -w examples/digit_scenes/digit_scenes.caffemodel --out build/all-int8
    python -m scripts.examples.draw_scenes FP32=examples/digit_scenes/digit_scenes.prototxt \
      "all INT8=build/all-int8/digit_scenes_quantized.prototxt" \
      "calibrated=build/demo-detection/digit_scenes_quantized.prototxt"

A row a net; its mAP is over all test scenes. Of the detections with a score of MIN_SCORE or more, those that hit a
digit are green, the others red; digits that none hits are yellow. Computed in this process, without actors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from distcalib.caffe import read_weights, write_atomically
from distcalib.caffe.graph import Node
from distcalib.data import open_source
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Outputs
from distcalib.metrics import make_layer, merged
from scripts.examples.digit_scenes import Array, overlaps

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "digit_scenes" / "digit_scenes.caffemodel"
PICTURE = ROOT / "docs" / "img" / "digit_scenes.png"
N_ITERATIONS = 25  # all test scenes
MIN_SCORE, MIN_OVERLAP = 0.5, 0.5
ZOOM, GAP, TITLE = 3, 6, 22  # a scene's pixel; between scenes; height of a row's title
TAG, FONT = (10, 13), cv2.FONT_HERSHEY_SIMPLEX
HIT, WRONG, MISSED = (80, 220, 60), (60, 60, 255), (0, 220, 255)  # blue, green, red
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Judged:
    """Boxes (N, 5) of label, xmin, ymin, xmax, ymax by what they are."""

    hits: Array
    wrong: Array
    missed: Array


def judged(found: Array, truth: Array) -> Judged:
    """found (N, 6): label, score, box; truth (M, 5): label, box. A digit is hit once, by the best that overlaps it."""
    found = found[found[:, 1] >= MIN_SCORE]
    found = found[np.argsort(-found[:, 1], kind="stable")]
    shared = overlaps(found[:, 2:], truth[:, 1:]) * (found[:, :1] == truth[None, :, 0])
    is_hit, is_seen = np.zeros(len(found), bool), np.zeros(len(truth), bool)
    for i, row in enumerate(shared):
        best = int(row.argmax())
        if row[best] >= MIN_OVERLAP and not is_seen[best]:
            is_hit[i] = is_seen[best] = True
    boxes = found[:, [0, 2, 3, 4, 5]]
    return Judged(boxes[is_hit], boxes[~is_hit], truth[~is_seen])


def draw_scene(pixels: Array, found: Judged, names: dict[int, str]) -> Picture:
    """A scene of pixels (H, W) 0..255, enlarged ZOOM times, with its boxes and what they are said to be."""
    side = (pixels.shape[1] * ZOOM, pixels.shape[0] * ZOOM)
    grey = pixels.round().clip(0, 255).astype(np.uint8)
    picture = cv2.cvtColor(cv2.resize(grey, side, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2BGR)
    for boxes, color in ((found.missed, MISSED), (found.hits, HIT), (found.wrong, WRONG)):
        for label, *box in boxes.tolist():
            x0, y0, x1, y1 = (round(at * side[i % 2]) for i, at in enumerate(box))
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, 1)
            top = max(y0 - TAG[1], 0)  # the tag stands on the box, where there is room
            cv2.rectangle(picture, (x0, top), (x0 + TAG[0], top + TAG[1]), color, cv2.FILLED)
            cv2.putText(picture, names[int(label)], (x0 + 1, top + TAG[1] - 2), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


def detect(net: Net, weights: Path) -> tuple[float, Array, list[Judged]]:
    """mAP over all scenes; pixels (N, H, W) and what is found in the scenes of the first iteration."""
    here = InProcess(net, read_weights(weights))
    [top] = [node.tops[0].name for node in net.graph if node.type == "DetectionEvaluate"]
    score = merged([row.scores[top] for row in here.rows(net.spec(), range(N_ITERATIONS))])
    [output] = [node for node in net.graph if node.type == "DetectionOutput"]
    [row] = here.rows(net.spec(outputs=Outputs(output.bottoms)), range(1))
    found = make_layer(output.layer, [row.values[blob] for blob in output.bottoms])[0, 0]
    [data] = [node for node in net.graph if node.type == "AnnotatedData"]
    pixels, truth = read_scenes(data, net.path)
    of_scene = [
        judged(found[found[:, 0] == i, 1:], truth[truth[:, 0] == i][:, [1, 3, 4, 5, 6]]) for i in range(len(pixels))
    ]
    return score, pixels, of_scene


def read_scenes(data: Node, path: Path) -> tuple[Array, Array]:
    """pixels (N, H, W) 0..255 and objects (M, 8) of the first batch: what transform_param did is undone."""
    source = open_source(data.layer, path)
    batch = source.batch(0)
    source.close()
    transform = data.layer.transform_param
    pixels = batch[data.tops[0].name][:, 0] / transform.scale + sum(transform.mean_value)
    return pixels, batch[data.tops[1].name][0, 0]


def draw_row(title: str, scenes: Sequence[Picture]) -> Picture:
    """`scenes` beside each other on white, `title` above them."""
    height, width = scenes[0].shape[:2]
    row = np.full((TITLE + height + GAP, len(scenes) * (width + GAP) + GAP, 3), 255, np.uint8)
    cv2.putText(row, title, (GAP, TITLE - 7), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for i, scene in enumerate(scenes):
        left = GAP + i * (width + GAP)
        row[TITLE : TITLE + height, left : left + width] = scene
    return row


def main() -> None:
    """Detect, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="+", metavar="TITLE=PROTOTXT")
    parser.add_argument("-w", "--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scenes", type=int, default=5, help="how many of the first batch are drawn (5)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the PNG (docs/img/digit_scenes.png)")
    options = parser.parse_args()
    rows = []
    for named in options.nets:
        title, _, path = named.partition("=")
        net = open_net(Path(path))
        score, pixels, found = detect(net, options.weights)
        drawn = [draw_scene(a, b, net.class_names) for a, b in zip(pixels, found, strict=True)][: options.scenes]
        rows.append(draw_row(f"{title}: mAP {score:.4f}", drawn))
        print(f"{title}: mAP {score:.6f}")
    _, encoded = cv2.imencode(".png", np.concatenate(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_atomically(options.out, encoded.tobytes())


if __name__ == "__main__":
    main()
