"""Yolov3DetectionOutput and YoloDetectionOutput: boxes of YOLO v3 and v2, from maps (eric612/MobileNet-YOLO).

Boxes suppress each other whatever their classes, so that of all classes of one box only the best can be left.  The
fork's layers take all images of a batch for the first; here each has boxes of its own, which is the same for a batch of
one.  Of equal scores the box that comes first stands first: by map, image row and column, anchor, class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError

Array = npt.NDArray[Any]
YOLO_V2, YOLO_V3 = "YoloDetectionOutput", "Yolov3DetectionOutput"
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
    threshold = layer.yolov3_detection_output_param.nms_threshold
    items = (
        [_candidates(layer, number, bottom[item]) for number, bottom in enumerate(bottoms)]
        for item in range(len(bottoms[0]))
    )
    return _rows(items, threshold)


def yolo_v2_output(layer: LayerParameter, bottoms: Sequence[Array]) -> Array:
    """The same of one or two square maps (N, A·(5 + C), S, S), for all of which the A pairs of biases are in places.

    A score is sigmoid(object)·softmax(classes), at least confidence_threshold.  (yolo_detection_output_layer.cpp)
    """
    check_yolo_v2_output(layer)
    check_v2_maps(layer, *(bottom.shape for bottom in bottoms))
    threshold = layer.yolo_detection_output_param.nms_threshold
    items = ([_v2_candidates(layer, bottom[item]) for bottom in bottoms] for item in range(len(bottoms[0])))
    return _rows(items, threshold)


def check_yolo_v2_output(layer: LayerParameter) -> None:
    """UnsupportedError for what yolo_v2_output cannot do, whatever the bottoms are."""
    p, where = layer.yolo_detection_output_param, f"layer '{layer.name}' ({layer.type})"
    if len(layer.bottom) > 2:
        raise UnsupportedError(f"{where}: {len(layer.bottom)} maps are given; one or two are read")
    if p.coords != 4 or not p.num_classes or not p.num_box:
        raise UnsupportedError(
            f"{where}: coords={p.coords}, num_classes={p.num_classes}, num_box={p.num_box}; coords must be 4, the "
            "others above zero"
        )
    if len(p.biases) < 2 * p.num_box:
        raise UnsupportedError(f"{where}: {len(p.biases)} biases for {p.num_box} boxes; give a pair for each")


def check_v2_maps(layer: LayerParameter, *shapes: tuple[int, ...]) -> None:
    """UnsupportedError for maps of shapes that do not fit the parameters or each other."""
    p = layer.yolo_detection_output_param
    _check_maps(layer, p.num_box, p.num_classes, shapes)
    if any(shape[2] != shape[3] for shape in shapes):
        raise UnsupportedError(f"layer '{layer.name}' ({layer.type}): a map has shape {shapes[0]}; it must be square")


def _rows(items: Iterable[Sequence[tuple[Array, Array, Array]]], threshold: float) -> Array:
    """The tops of layers, from boxes, scores and classes of the maps of each image."""
    rows, n_items = [], 0
    for item, maps in enumerate(items):
        boxes, scores, labels = (np.concatenate(columns) for columns in zip(*maps, strict=True))
        order = np.argsort(-scores, kind="stable")
        left = order[_left(boxes[order], threshold)]
        half = boxes[left, 2:] / 2
        columns = (np.full(len(left), item), labels[left] + 1, scores[left])
        corners = np.concatenate([boxes[left, :2] - half, boxes[left, :2] + half], axis=1)
        rows.append(np.column_stack([*columns, corners]).astype(np.float32))
        n_items += 1
    made = np.concatenate(rows)
    if not len(made):
        made = np.full((n_items, 7), -1.0, np.float32)
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
    _check_maps(layer, p.num_box, p.num_classes, shapes)


def _check_maps(layer: LayerParameter, n_boxes: int, n_classes: int, shapes: Sequence[tuple[int, ...]]) -> None:
    channels = n_boxes * (_OWN + n_classes)
    wrong = [shape for shape in shapes if len(shape) != 4 or shape[:2] != (shapes[0][0], channels)]
    if wrong:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): a map has shape {wrong[0]}; {channels} channels, {_OWN} and one a "
            f"class for each of {n_boxes} boxes, are needed"
        )


def _candidates(layer: LayerParameter, number: int, maps: Array) -> tuple[Array, Array, Array]:
    """Of one image and map: boxes (n, 4) as center and size, their best scores (n,) and classes (n,), from 0."""
    p = layer.yolov3_detection_output_param
    height, width = maps.shape[1:]
    scale = int(p.anchors_scale[number])
    values = _by_place(maps, p.num_box)
    scores = _sigmoid(values[..., _OWN:]) * _sigmoid(values[..., 4:_OWN])
    anchors = np.array([[p.biases[2 * m], p.biases[2 * m + 1]] for m in p.mask[number * p.num_box :][: p.num_box]])
    boxes = _boxes(values, anchors, (width * scale, height * scale))
    scores = scores.reshape(-1, p.num_classes)
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), labels]
    chosen = best > p.confidence_threshold
    return boxes[chosen], best[chosen], labels[chosen]


def _v2_candidates(layer: LayerParameter, maps: Array) -> tuple[Array, Array, Array]:
    """The same of a map of YOLO v2."""
    p = layer.yolo_detection_output_param
    values = _by_place(maps, p.num_box)
    anchors = np.array(p.biases[: 2 * p.num_box]).reshape(-1, 2)
    boxes = _boxes(values, anchors, (maps.shape[2], maps.shape[1]))
    classes = values[..., _OWN:]
    powers = np.exp(classes - classes.max(axis=-1, keepdims=True))
    scores = _sigmoid(values[..., 4:_OWN]) * powers / powers.sum(axis=-1, keepdims=True)
    scores = scores.reshape(-1, p.num_classes)
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), labels]
    chosen = best >= p.confidence_threshold
    return boxes[chosen], best[chosen], labels[chosen]


def _by_place(maps: Array, n_boxes: int) -> Array:
    """A map as (H, W, A, 5 + C): the order in which the forks go through it."""
    height, width = maps.shape[1:]
    return np.transpose(maps.astype(np.float64).reshape(n_boxes, -1, height, width), (2, 3, 0, 1))


def _boxes(values: Array, anchors: Array, unit: tuple[int, int]) -> Array:
    """Boxes (H·W·A, 4) as center and size, from values by place; an anchor is in parts of the image of 1/unit."""
    height, width = values.shape[:2]
    rows, columns = np.indices((height, width))
    places = np.stack([columns, rows], axis=-1)[:, :, None]
    with np.errstate(over="ignore"):  # a net that overflows has boxes without an end
        sizes = np.exp(values[..., 2:4]) * anchors / np.array(unit)
    centers = (places + _sigmoid(values[..., :2])) / np.array([width, height])
    return np.concatenate([centers, sizes], axis=-1).reshape(-1, 4)


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
