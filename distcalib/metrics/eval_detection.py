"""Intel Caffe's EvalDetection on arrays: what YOLO v2 detects in an iteration, and which of it finds an object.

The facts are those of eval_detection_layer.cpp of Intel Caffe (and Calc_iou of its region_loss_layer.cpp); how hits
become an mAP is in tools/test_detection.cpp, which takes the mean over all classes, with and without objects.
Surprising in them, and kept:

- a class is the data's label less 1, and whether an object is difficult is not looked at;
- boxes suppress each other whatever their classes are, and at an overlap of just `nms`, too;
- of a class that the image has, a box that is near no object of it counts neither as hit nor as false;
- the loop over anchors ends at 5, whatever num_object says, and without `nms` nothing is detected: both refused;
- `sqrt` and `constriant` are read by nobody.

Two things differ, on purpose: equal scores stand in the order of row, column and anchor, where std::sort leaves them in
any, and a score that is NaN detects nothing.  Exponentials are rounded once, from float64; all else is float32, in the
order of the loops (docs/decisions/019-the-map-of-yolo-v2.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import EvalDetectionParameter, LayerParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics.boxes import ONE, centred, centred_overlaps
from distcalib.metrics.detection_output import suppressed
from distcalib.metrics.detections import Detections, first_hits

Array = npt.NDArray[Any]

N_ANCHORS = 5
LEAST_SCORE = np.float64(0.005)
"""Below it nothing is a detection ("from darknet", says the source); a float64 there, above its float32."""

_N_BOX = 5  # x, y, width, height and objectness stand before the classes


def eval_detection(layer: LayerParameter, maps: Array, labels: Array) -> Detections:
    """Maps (N, 5·(5 + classes), side, side) of the last convolution against labels (.., n, 8) of AnnotatedData.

    labels are (item, label, instance, xmin, ymin, xmax, ymax, difficult); item is -1 in a row for nothing.  Those of
    the detections are labels of the data, 1 to num_class.  Raises DataError for labels that are not a class,
    UnsupportedError for shapes that do not fit.
    """
    p = layer.eval_detection_param
    check_map(layer, maps.shape)
    if labels.shape[-1:] != (8,):
        raise UnsupportedError(
            f"{_where(layer)}: its labels have the shape {labels.shape}; rows of 8 as AnnotatedData makes are needed"
        )
    objects = _objects(layer, labels.reshape(-1, 8))
    items, classes = objects[:, 0], objects[:, 1].astype(np.int64)
    truth = centred(objects[:, 3:7])
    boxes, found_classes, scores = decoded(p, maps)
    by_image = [
        _of_image(p, boxes[item], found_classes[item], scores[item], truth[items == item], classes[items == item])
        for item in range(len(maps))
    ]
    counts = np.bincount(classes, minlength=p.num_class + 1)[1:].tolist()
    columns = [np.concatenate(column) for column in zip(*by_image, strict=True)]
    return Detections(columns[0].astype(np.int32), columns[1], columns[2], dict(enumerate(counts, 1)))


def check_eval_detection(layer: LayerParameter) -> None:
    """UnsupportedError for what eval_detection cannot do, whatever the bottoms are."""
    p, where = layer.eval_detection_param, _where(layer)
    if len(layer.bottom) not in (2, 3) or len(layer.top) != 1:
        raise UnsupportedError(f"{where}: it takes a map, labels and, unread, the data, and makes one top")
    if not p.side or not p.num_class:
        raise UnsupportedError(f"{where}: side={p.side} and num_class={p.num_class}; both must be at least 1")
    if p.num_object != N_ANCHORS:
        raise UnsupportedError(
            f"{where}: num_object={p.num_object}; Intel Caffe looks at {N_ANCHORS} boxes a cell, whatever it is"
        )
    if len(p.biases) != 2 * N_ANCHORS:
        raise UnsupportedError(
            f"{where}: has {len(p.biases)} biases; {2 * N_ANCHORS} are needed, width and height of each box of a cell"
        )
    if not p.nms >= 0.0:
        raise UnsupportedError(f"{where}: nms={p.nms:g}, with which Intel Caffe detects nothing; give it, such as 0.45")
    if not p.threshold > 0.0:
        raise UnsupportedError(f"{where}: threshold={p.threshold:g}; it must be above 0")


def check_map(layer: LayerParameter, shape: tuple[int, ...]) -> None:
    """UnsupportedError if a first bottom of `shape` does not fit the parameters."""
    p = layer.eval_detection_param
    wanted = (p.num_object * (_N_BOX + p.num_class), p.side, p.side)
    if tuple(shape[1:]) != wanted:
        raise UnsupportedError(
            f"{_where(layer)}: its map has {'×'.join(map(str, shape[1:]))} values an image; num_object={p.num_object}, "
            f"num_class={p.num_class} and side={p.side} need {'×'.join(map(str, wanted))}"
        )


def decoded(p: EvalDetectionParameter, maps: Array) -> tuple[Array, Array, Array]:
    """Of all K = side·side·5 boxes, in the order of row, column and anchor: (x, y, width, height) (N, K, 4) in parts of
    the image, labels (N, K) int64, and scores (N, K).
    """
    side = np.float32(p.side)
    cells = maps.reshape(len(maps), N_ANCHORS, _N_BOX + p.num_class, p.side * p.side)
    rows, columns = np.divmod(np.arange(p.side * p.side), p.side)
    biases = np.array(p.biases, np.float32).reshape(N_ANCHORS, 2, 1)
    with np.errstate(invalid="ignore", over="ignore"):  # a net that overflows gives boxes without end
        x = (columns.astype(np.float32) + _sigmoid(cells[:, :, 0])) / side
        y = (rows.astype(np.float32) + _sigmoid(cells[:, :, 1])) / side
        extent = _exp(cells[:, :, 2:4]) * biases / side
        objectness = _sigmoid(cells[:, :, 4])
        classes, probability = _likeliest(cells[:, :, _N_BOX:])
        if p.score_type == EvalDetectionParameter.OBJ:
            scores = objectness
        elif p.score_type == EvalDetectionParameter.PROB:
            scores = probability
        else:
            scores = objectness * probability
    boxes = np.stack([x, y, extent[:, :, 0], extent[:, :, 1]], axis=-1)
    return (
        boxes.transpose(0, 2, 1, 3).reshape(len(maps), -1, 4),
        classes.transpose(0, 2, 1).reshape(len(maps), -1) + 1,
        scores.transpose(0, 2, 1).reshape(len(maps), -1),
    )


def _likeliest(logits: Array) -> tuple[Array, Array]:
    """Of logits (N, 5, C, S) the class (N, 5, S) that is likeliest, the first of equals, and its probability."""
    powers = _exp(logits - logits.max(axis=2, keepdims=True))
    total = powers[:, :, 0].copy()
    for one in range(1, powers.shape[2]):  # in this order, as a float32 grows in Caffe
        total += powers[:, :, one]
    shares = powers / total[:, :, None]
    classes = shares.argmax(axis=2)
    return classes, np.take_along_axis(shares, classes[:, :, None], axis=2)[:, :, 0]


def _of_image(
    p: EvalDetectionParameter, boxes: Array, labels: Array, scores: Array, truth: Array, classes: Array
) -> tuple[Array, Array, Array]:
    """Labels, scores and hits of what counts of an image's boxes, the best first; objects are `truth` of `classes`."""
    best = np.flatnonzero(scores >= LEAST_SCORE)  # never a NaN
    best = best[np.argsort(-scores[best], kind="stable")]
    above = np.nextafter(np.float32(p.nms), np.float32(-np.inf))  # an overlap of just nms is too much
    best = best[suppressed(boxes[best], float(above), overlap=centred_overlaps)]
    is_own = labels[best, None] == classes[None]
    shared = np.where(is_own, centred_overlaps(boxes[best], truth), -ONE)
    shared = np.column_stack([shared, np.full(len(best), -ONE)])  # of no object
    close = shared.max(axis=1) >= np.float32(p.threshold)
    hits = first_hits(shared.argmax(axis=1), close)
    counts = close | ~is_own.any(axis=1)
    return labels[best[counts]], scores[best[counts]], hits[counts]


def _objects(layer: LayerParameter, labels: Array) -> Array:
    """The rows of `labels` that are objects.  Raises DataError for labels that are not a class."""
    p = layer.eval_detection_param
    objects: Array = labels[labels[:, 0] != -1]
    wrong = objects[~((objects[:, 1] >= 1) & (objects[:, 1] <= p.num_class)), 1]
    if len(wrong):
        shown = ", ".join(f"{label:g}" for label in np.unique(wrong)[:5])
        raise DataError(
            f"{_where(layer)}: {len(wrong)} of {len(objects)} objects have a label outside 1 to {p.num_class} "
            f"(such as {shown}); correct num_class or the data set"
        )
    return objects


def _exp(x: Array) -> Array:
    """The float32 next to e^x: those of libraries differ in its last bit."""
    return np.asarray(np.exp(x.astype(np.float64)), np.float32)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), in float64 and rounded once."""
    return np.asarray(1.0 / (1.0 + np.exp(-x.astype(np.float64))), np.float32)


def _where(layer: LayerParameter) -> str:
    return f"layer '{layer.name}' ({layer.type})"
