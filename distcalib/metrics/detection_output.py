"""Caffe's DetectionOutput on arrays: predictions of many priors -> the boxes that are left.

On the host, not through OpenVINO's operator of that name: that has neither `eta` nor CORNER_SIZE, and gives a fixed
number of rows in an order of equal scores that is not stated (docs/decisions/013-detections-on-the-host.md).  Here
equal scores are ordered by class, then by prior, so that a score is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import DetectionOutputParameter, LayerParameter, PriorBoxParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.boxes import TWO, overlaps

Array = npt.NDArray[Any]

_BLOCK = 64  # candidates whose overlaps are reckoned at once: few calls, and little for those that fall to others


def detection_output(layer: LayerParameter, bottoms: list[Array]) -> Array:
    """Rows (1, 1, R, 7) of (item, label, score, xmin, ymin, xmax, ymax), by item, label, and falling score.

    bottoms: loc (N, P·L·4), conf (N, P·C), priors (1, 2, P·4) with corners and variances; L is 1 if share_location,
    else C.  Without any box it is a row (item, -1, ...) for each item.  (detection_output_layer.cpp.)
    """
    p = layer.detection_output_param
    loc, conf, priors = bottoms[:3]
    corners, variances = priors.reshape(2, -1, 4)
    n_priors, n_classes = len(corners), int(p.num_classes)
    n_loc = 1 if p.share_location else n_classes
    n_items = len(loc)
    if loc.size != n_items * n_priors * n_loc * 4 or conf.size != n_items * n_priors * n_classes:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have {loc.size // n_items} and {conf.size // n_items} "
            f"values an image for {n_priors} priors, {n_classes} classes and {n_loc} boxes a prior; "
            f"{n_priors * n_loc * 4} and {n_priors * n_classes} would fit"
        )
    boxes = loc.reshape(n_items, n_priors, n_loc, 4)
    scores = conf.reshape(n_items, n_priors, n_classes)
    found = [_of_image(p, boxes[item], scores[item], corners, variances) for item in range(n_items)]
    items = np.repeat(np.arange(n_items, dtype=np.float32), [len(rows) for rows in found])
    if not len(items):
        nothing = np.full((1, 1, n_items, 7), -1.0, np.float32)
        nothing[..., 0] = np.arange(n_items)
        return nothing
    return np.column_stack([items, np.concatenate(found)]).astype(np.float32)[None, None]


def check_detection_output(layer: LayerParameter) -> None:
    """UnsupportedError for what detection_output cannot do, whatever the bottoms are."""
    p = layer.detection_output_param
    where = f"layer '{layer.name}' ({layer.type})"
    if len(layer.bottom) < 3 or len(layer.top) != 1:
        raise UnsupportedError(f"{where}: it takes loc, conf and priors, and makes one top")
    if not p.num_classes:
        raise UnsupportedError(f"{where}: has no num_classes; give the number of classes, background included")
    if p.nms_param.nms_threshold < 0.0:
        raise UnsupportedError(f"{where}: nms_threshold={p.nms_param.nms_threshold:g}; it must not be negative")
    if not 0.0 < p.nms_param.eta <= 1.0:
        raise UnsupportedError(f"{where}: eta={p.nms_param.eta:g}; it must be above 0 and at most 1")
    if not p.share_location and not 0 <= p.background_label_id < p.num_classes:
        raise UnsupportedError(
            f"{where}: share_location: false with background_label_id={p.background_label_id}, which is no class"
        )


def decoded(p: DetectionOutputParameter, loc: Array, corners: Array, variances: Array) -> Array:
    """Predictions loc (n, 4) as boxes (n, 4), relative to priors with corners and variances (n, 4) (DecodeBBox)."""
    if not p.variance_encoded_in_target:
        loc = variances * loc
    if p.code_type == PriorBoxParameter.CORNER:
        return np.asarray(corners + loc)
    extent = corners[:, 2:] - corners[:, :2]
    if p.code_type == PriorBoxParameter.CORNER_SIZE:
        return np.asarray(corners + loc * np.tile(extent, 2))
    center = loc[:, :2] * extent + (corners[:, :2] + corners[:, 2:]) / TWO
    with np.errstate(over="ignore"):  # a net that overflows gives boxes without end
        half = (np.exp(loc[:, 2:].astype(np.float64)) * extent).astype(np.float32) / TWO
    return np.hstack([center - half, center + half])


def suppressed(
    boxes: Array, threshold: float, eta: float = 1.0, overlap: Callable[[Array, Array], Array] = overlaps
) -> Array:
    """Which of boxes (n, 4), the best first, are left when each takes away those that overlap it by more.

    With eta < 1 the threshold falls with each box that is left, as long as it is above 0.5 (ApplyNMSFast).
    """
    limit, kept = np.float32(threshold), list[int]()
    left = np.arange(len(boxes))
    highest = np.full(len(left), -np.inf, np.float32)  # of each that is left the largest overlap with one that was kept
    while len(left):
        block = left[:_BLOCK].tolist()
        shared = overlap(boxes[block], boxes[left])
        for row, index in enumerate(block):
            if highest[row] <= limit:
                kept.append(index)
                np.maximum(highest, shared[row], out=highest)
                if eta < 1.0 and limit > 0.5:
                    limit = np.float32(limit * np.float32(eta))
        still = np.flatnonzero(highest[_BLOCK:] <= limit) + _BLOCK
        left, highest = left[still], highest[still]
    return np.array(kept, np.int64)


def _of_image(p: DetectionOutputParameter, loc: Array, conf: Array, corners: Array, variances: Array) -> Array:
    """Rows (R, 6) of (label, score, corners):  loc (P, L, 4), conf (P, C), priors (P, 4) each."""
    nms = p.nms_param
    top_k = nms.top_k if nms.HasField("top_k") and nms.top_k > -1 else len(corners)
    least = p.confidence_threshold if p.HasField("confidence_threshold") else -np.inf
    best = [_best(scores, np.float32(least), top_k) for scores in np.ascontiguousarray(conf.T)]
    if 0 <= p.background_label_id < len(best):
        best[p.background_label_id] = np.zeros(0, np.int64)
    # Boxes are decoded for all classes at once: a class has few, and each call of NumPy has its price.
    sizes, priors = [len(of_class) for of_class in best], np.concatenate(best)
    labels = np.repeat(np.arange(len(best)), sizes)
    boxes = decoded(p, loc[priors, 0 if p.share_location else labels], corners[priors], variances[priors])
    bounds = pairwise(accumulate(sizes, initial=0))
    kept = [low + suppressed(boxes[low:high], nms.nms_threshold, nms.eta) for low, high in bounds if high > low]
    rows = np.column_stack([labels.astype(np.float32), conf[priors, labels], boxes])
    rows = rows[np.concatenate(kept)] if kept else rows
    if -1 < p.keep_top_k < len(rows):
        rows = rows[np.argsort(-rows[:, 1], kind="stable")[: p.keep_top_k]]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return rows


def _best(scores: Array, least: np.float32, top_k: int) -> Array:
    """The priors whose scores (P,) are above `least`, at most top_k, by falling score; never a NaN."""
    passing = np.flatnonzero(scores > least)
    if len(passing) > 2 * top_k > 0:  # to find the least of the best is faster than to sort all
        passing = passing[scores[passing] >= np.partition(scores[passing], -top_k)[-top_k]]
    return passing[np.argsort(-scores[passing], kind="stable")[:top_k]]
