"""Yolov3DetectionOutput: boxes of YOLO v3, from the maps of several sizes (eric612/MobileNet-YOLO).

Boxes suppress each other whatever their classes, so that of all classes of one box only the best can be left.  The
fork's layer takes all images of a batch for the first; here each has boxes of its own, which is the same for a batch of
one.  Of equal scores the box that comes first stands first: by map, image row and column, anchor, class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError

Array = npt.NDArray[Any]
YOLO_V3 = "Yolov3DetectionOutput"
_OWN = 5
"""Channels of an anchor before those of the classes: x, y, width, height, and whether there is an object."""


def yolo_v3_output(layer: LayerParameter, bottoms: Sequence[Array]) -> Array:
    """Rows (1, 1, R, 7) of (item, label, score, xmin, ymin, xmax, ymax), by item and falling score; labels from 1.

    bottoms: one map (N, A·(5 + C), H, W) a group of A anchors, which `mask` names.  A box of anchor (w, h) in column j
    and row i is at ((j + sigmoid(x))/W, (i + sigmoid(y))/H) and exp(tw)·w/(W·s) by exp(th)·h/(H·s) large, s being
    anchors_scale of the map; a score is sigmoid(object)·sigmoid(class), and must be above confidence_threshold.  A box
    falls if its intersection over union with a better one is nms_threshold or more.
    """
    check_yolo_v3_output(layer)
    check_maps(layer, *(bottom.shape for bottom in bottoms))
    p = layer.yolov3_detection_output_param
    rows = []
    for item in range(len(bottoms[0])):
        found = [_candidates(layer, number, bottom[item]) for number, bottom in enumerate(bottoms)]
        boxes, scores, labels = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.argsort(-scores, kind="stable")
        left = order[_left(boxes[order], p.nms_threshold)]
        half = boxes[left, 2:] / 2
        columns = (np.full(len(left), item), labels[left] + 1, scores[left])
        corners = np.concatenate([boxes[left, :2] - half, boxes[left, :2] + half], axis=1)
        rows.append(np.column_stack([*columns, corners]).astype(np.float32))
    made = np.concatenate(rows)
    if not len(made):
        made = np.full((len(bottoms[0]), 7), -1.0, np.float32)
        made[:, 0] = np.arange(len(made))
    return made[None, None]


def check_yolo_v3_output(layer: LayerParameter) -> None:
    """UnsupportedError for what yolo_v3_output cannot do, whatever the bottoms are."""
    p = layer.yolov3_detection_output_param
    where = f"layer '{layer.name}' ({layer.type})"
    n = len(layer.bottom) or p.mask_group_num
    if p.gaussian_box:
        raise UnsupportedError(f"{where}: gaussian_box is not converted; only false is")
    if not (n == p.mask_group_num == len(p.anchors_scale) and len(p.mask) == n * p.num_box):
        raise UnsupportedError(
            f"{where}: {n} maps with mask_group_num {p.mask_group_num}, {len(p.anchors_scale)} anchors_scale, "
            f"{len(p.mask)} mask and num_box {p.num_box}; give a scale and num_box of mask for each map"
        )
    if any(2 * mask + 1 >= len(p.biases) for mask in p.mask):
        raise UnsupportedError(f"{where}: mask {list(p.mask)} of {len(p.biases)} biases; give a pair for each mask")
    if not p.num_classes:
        raise UnsupportedError(f"{where}: num_classes is 0; give the number of classes")


def check_maps(layer: LayerParameter, *shapes: tuple[int, ...]) -> None:
    """UnsupportedError for maps of shapes that do not fit the parameters or each other."""
    p = layer.yolov3_detection_output_param
    channels = p.num_box * (_OWN + p.num_classes)
    wrong = [shape for shape in shapes if len(shape) != 4 or shape[:2] != (shapes[0][0], channels)]
    if wrong:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): a map has shape {wrong[0]}; {channels} channels, {_OWN} and one a "
            f"class for each of {p.num_box} boxes, are needed"
        )


def _candidates(layer: LayerParameter, number: int, maps: Array) -> tuple[Array, Array, Array]:
    """Of one image and map: boxes (n, 4) as center and size, their best scores (n,) and classes (n,), from 0."""
    p = layer.yolov3_detection_output_param
    height, width = maps.shape[1:]
    scale = int(p.anchors_scale[number])
    values = maps.astype(np.float64).reshape(p.num_box, _OWN + p.num_classes, height, width)
    # (H, W, A, 5 + C): the order in which the fork goes through them
    values = values.transpose(2, 3, 0, 1)
    scores = _sigmoid(values[..., _OWN:]) * _sigmoid(values[..., 4:_OWN])
    anchors = np.array([[p.biases[2 * m], p.biases[2 * m + 1]] for m in p.mask[number * p.num_box :][: p.num_box]])
    rows, columns = np.indices((height, width))
    places = np.stack([columns, rows], axis=-1)[:, :, None]
    with np.errstate(over="ignore"):  # a net that overflows has boxes without an end
        sizes = np.exp(values[..., 2:4]) * anchors / (np.array([width, height]) * scale)
    centers = (places + _sigmoid(values[..., :2])) / np.array([width, height])
    boxes = np.concatenate([centers, sizes], axis=-1).reshape(-1, 4)
    scores = scores.reshape(-1, p.num_classes)
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), labels]
    chosen = best > p.confidence_threshold
    return boxes[chosen], best[chosen], labels[chosen]


def _left(boxes: Array, threshold: float) -> npt.NDArray[np.int64]:
    """The rows of `boxes`, the best first, that no better one left suppresses."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    areas = boxes[:, 2] * boxes[:, 3]
    waiting, left = np.arange(len(boxes)), []
    while len(waiting):
        first, waiting = waiting[0], waiting[1:]
        left.append(first)
        sides = np.minimum(high[first], high[waiting]) - np.maximum(low[first], low[waiting])
        shared = np.where((sides < 0).any(axis=1), 0.0, sides.prod(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes of no area suppress none
            ratio = shared / (areas[first] + areas[waiting] - shared)
        waiting = waiting[~(ratio >= threshold)]
    return np.array(left, np.int64)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-x)))
