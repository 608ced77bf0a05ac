"""FrcnnOutput: the boxes that a Faster R-CNN finds in one image (zhaoweicai/cascade-rcnn, frcnn_output_layer.cpp).

Rois that are zeros alone are none: a compiled net has as many rows as there may be.  Of equal scores the one stands
first that comes first, by class and roi; in the fork any may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError

Array = npt.NDArray[Any]
FRCNN = "FrcnnOutput"


def frcnn_output(layer: LayerParameter, bottoms: Sequence[Array]) -> Array:
    """Rows (1, 1, R, 7) of (item, label, score, xmin, ymin, xmax, ymax), in pixels of the image that the net reads.

    bottoms: probabilities (P, K), moves (P, 4·K), or (P, 8) with `cls_aware: false`, rois (P, 5 or 6), and height and
    width of the image (1, 2).  Of each class but the first, the boxes of at least conf_thr suppress each other by
    iou_thr; max_det_num of all classes are left.
    """
    check_frcnn_output(layer)
    check_frcnn_shapes(layer, *(bottom.shape for bottom in bottoms))
    p, aware = layer.frcnn_output_param, layer.bbox_reg_param.cls_aware
    n_rois = len(bottoms[0])
    rois = bottoms[2].reshape(n_rois, -1)[:, :5]
    there = rois.any(axis=1)
    probabilities = bottoms[0].reshape(n_rois, -1)[there]
    moves = bottoms[1].reshape(n_rois, -1, 4)[there]
    height, width = bottoms[3].ravel()[:2]
    boxes = _moved(layer, moves, rois[there, 1:])
    boxes[..., :2] = np.maximum(boxes[..., :2], 0.0)
    boxes[..., 2:] = np.minimum(boxes[..., 2:], [width, height])
    by_class = []
    for label in range(1, probabilities.shape[1]):
        scores = probabilities[:, label]
        chosen = np.flatnonzero(scores >= np.float32(p.conf_thr))
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        own = boxes[chosen, label if aware else 1]
        left = _left(own, p.iou_thr)
        columns = (np.zeros(len(left)), np.full(len(left), label), scores[chosen][left], own[left])
        by_class.append(np.column_stack(columns))
    made = np.concatenate(by_class)
    if p.max_det_num and len(made) > p.max_det_num:
        best = np.argsort(-made[:, 2], kind="stable")[: p.max_det_num]
        made = made[best[np.argsort(made[best, 1], kind="stable")]]
    if not len(made):
        made = np.full((1, 7), -1.0)
        made[0, 0] = 0
    return made.astype(np.float32)[None, None]


def check_frcnn_output(layer: LayerParameter) -> None:
    """UnsupportedError for what frcnn_output cannot do, whatever the bottoms are."""
    p, reg = layer.frcnn_output_param, layer.bbox_reg_param
    where = f"layer '{layer.name}' ({layer.type})"
    if len(layer.bottom) not in (0, 4):
        raise UnsupportedError(
            f"{where}: {len(layer.bottom)} bottoms are given; it takes probabilities, moves, rois and image sizes"
        )
    if p.nms_type != "IOU":
        raise UnsupportedError(f'{where}: nms_type="{p.nms_type}" is not converted; only "IOU" is')
    if len(reg.bbox_mean) not in (0, 4) or len(reg.bbox_std) not in (0, 4):
        raise UnsupportedError(f"{where}: {len(reg.bbox_mean)} bbox_mean and {len(reg.bbox_std)} bbox_std; give 4")


def check_frcnn_shapes(layer: LayerParameter, *shapes: tuple[int, ...]) -> None:
    """UnsupportedError for bottoms of shapes that do not fit each other."""
    n_rois = shapes[0][0] if shapes[0] else 0
    widths = [int(np.prod(shape[1:])) for shape in shapes]
    wanted = 4 * widths[0] if layer.bbox_reg_param.cls_aware else 8
    fits = n_rois > 0 and all(shape[:1] == (n_rois,) for shape in shapes[:3])
    if not (fits and widths[1] == wanted and widths[2] in (5, 6) and int(np.prod(shapes[3])) == 2):
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have shapes {', '.join(map(str, shapes))}; (P, K), "
            f"(P, {wanted}), (P, 5) and (1, 2), of one image, are needed"
        )


def _moved(layer: LayerParameter, moves: Array, rois: Array) -> Array:
    """Boxes (P, classes, 4): moves are parts of a roi's size, and logarithms of what it grows by."""
    reg = layer.bbox_reg_param
    moves = moves.astype(np.float64)
    if reg.bbox_mean and reg.bbox_std:
        moves = moves * np.array(reg.bbox_std) + np.array(reg.bbox_mean)
    rois = rois.astype(np.float64)[:, None]
    size, middle = rois[..., 2:] - rois[..., :2] + 1.0, (rois[..., :2] + rois[..., 2:]) / 2
    with np.errstate(over="ignore"):  # a net that overflows has boxes without an end
        grown = size * np.exp(moves[..., 2:])
    low = moves[..., :2] * size + middle - (grown - 1.0) / 2
    return np.concatenate([low, low + grown - 1.0], axis=-1)


def _left(boxes: Array, threshold: float) -> npt.NDArray[np.int64]:
    """The rows of `boxes`, best first, that no better one left overlaps by more than `threshold`; ends are pixels."""
    low, high = boxes[:, :2], boxes[:, 2:]
    valid: Array = np.all(high >= low, axis=1)
    areas = np.where(valid, (high - low + 1.0).prod(axis=1), 0.0)
    waiting, left = np.arange(len(boxes)), []
    while len(waiting):
        first, waiting = waiting[0], waiting[1:]
        left.append(first)
        sides = np.minimum(high[first], high[waiting]) - np.maximum(low[first], low[waiting])
        apart = (sides[:, 0] < 0.0) | (sides[:, 1] <= 0.0) | ~valid[waiting] | ~valid[first]
        shared = np.where(apart, 0.0, (sides + 1.0).prod(axis=1))
        total = areas[first] + areas[waiting] - shared
        waiting = waiting[~(shared > threshold * np.where(total > 0.0, total, np.inf))]
    return np.array(left, np.int64)
