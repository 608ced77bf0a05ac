"""Caffe's DetectionOutput on arrays: predictions of many priors -> the boxes that are left.

On the host, not through OpenVINO's operator of that name: that has neither `eta` nor CORNER_SIZE, and gives a fixed
number of rows in an order of equal scores that is not stated (docs/decisions/013-detections-on-the-host.md).  Here
equal scores are ordered by class, then by prior, so that a score is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import DetectionOutputParameter, LayerParameter, PriorBoxParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.boxes import TWO, column_overlaps, overlaps

Array = npt.NDArray[Any]

_BLOCK = 64  # candidates whose overlaps are reckoned at once: few calls, and little for those that fall to others
_TILE = 16  # of candidates of many groups: the pairs of so many with so many
_TILES = 256  # at once: an array of 256 kB, which stays in the cache of a core
_LARGE = 512  # a group of more is for `suppressed`, which leaves out the pairs of those that fell


def detection_output(layer: LayerParameter, bottoms: list[Array]) -> Array:
    """Rows (1, 1, R, 7) of (item, label, score, xmin, ymin, xmax, ymax), by item, label, and falling score.

    bottoms: loc (N, P·L·4), conf (N, P·C), priors (1, 2, P·4) with corners and variances; L is 1 if share_location,
    else C.  Without any box it is a row (item, -1, ...) for each item.  (detection_output_layer.cpp.)
    """
    p = layer.detection_output_param
    loc, conf, priors = bottoms[:3]
    check_sizes(layer, loc.shape, conf.shape, priors.shape)
    corners, variances = priors.reshape(2, -1, 4)
    n_items, n_priors, n_classes = len(loc), len(corners), int(p.num_classes)
    n_loc = 1 if p.share_location else n_classes
    predicted, scores = loc.reshape(n_items, n_priors, n_loc, 4), conf.reshape(n_items, n_priors, n_classes)
    # All images and classes at once: a class has few candidates, and each call of NumPy has its price.
    groups, prior = _candidates(p, scores)
    item, label = np.divmod(groups, n_classes)
    boxes = decoded(p, predicted[item, prior, 0 if p.share_location else label], corners[prior], variances[prior])
    rows = np.empty((len(groups), 7), np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:] = item, label, scores[item, prior, label], boxes
    n_of_group = np.bincount(groups, minlength=n_items * n_classes)
    rows = rows[left_of_groups(boxes, n_of_group, p.nms_param.nms_threshold, p.nms_param.eta)]
    if p.keep_top_k > -1:
        rows = rows[_best_of_items(rows, n_items, p.keep_top_k)]
    if not len(rows):
        rows = np.full((n_items, 7), -1.0, np.float32)
        rows[:, 0] = np.arange(n_items)
    return rows[None, None]


def check_detection_output(layer: LayerParameter) -> None:
    """UnsupportedError for what detection_output cannot do, whatever the bottoms are."""
    p = layer.detection_output_param
    where = f"layer '{layer.name}' ({layer.type})"
    if len(layer.bottom) < 3 or len(layer.top) != 1:
        raise UnsupportedError(f"{where}: it takes loc, conf and priors, and makes one top")
    if not p.num_classes:
        raise UnsupportedError(f"{where}: has no num_classes; give the number of classes, background included")
    if math.isnan(p.confidence_threshold):
        raise UnsupportedError(f"{where}: confidence_threshold=nan; it must be a number")
    if not p.nms_param.nms_threshold >= 0.0:
        raise UnsupportedError(f"{where}: nms_threshold={p.nms_param.nms_threshold:g}; it must not be negative")
    if not 0.0 < p.nms_param.eta <= 1.0:
        raise UnsupportedError(f"{where}: eta={p.nms_param.eta:g}; it must be above 0 and at most 1")
    if p.share_location and p.background_label_id == -1:  # its name for the boxes of all classes, which it then skips
        raise UnsupportedError(
            f"{where}: background_label_id=-1 with share_location: true, for which Caffe aborts (could not find "
            "location predictions for label -1); give the number of the background, usually 0"
        )


def check_sizes(layer: LayerParameter, loc: tuple[int, ...], conf: tuple[int, ...], priors: tuple[int, ...]) -> None:
    """UnsupportedError for shapes of bottoms that do not fit each other or the parameters."""
    p = layer.detection_output_param
    n_priors, n_classes = math.prod(priors) // 8, int(p.num_classes)
    if math.prod(priors) % 8:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its priors have shape {priors}, not (1, 2, 4n) as PriorBox makes it"
        )
    n_loc = 1 if p.share_location else n_classes
    sizes = tuple(math.prod(shape[1:]) for shape in (loc, conf))
    wanted = n_priors * n_loc * 4, n_priors * n_classes
    if sizes != wanted:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have {sizes[0]} and {sizes[1]} values an image for "
            f"{n_priors} priors, {n_classes} classes and {n_loc} box{'es' if n_loc > 1 else ''} a prior; "
            f"{wanted[0]} and {wanted[1]} would fit" + _classes_that_fit(sizes, n_priors, n_classes)
        )


def _classes_that_fit(sizes: tuple[int, ...], n_priors: int, n_classes: int) -> str:
    """The num_classes that the second bottom is for, where it is for another."""
    fitting, rest = divmod(sizes[1], n_priors) if n_priors else (0, 1)
    return f"; num_classes: {fitting} fits the second" if not rest and fitting not in (0, n_classes) else ""


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


def left_of_groups(boxes: Array, counts: Array, threshold: float, eta: float = 1.0) -> Array:
    """Which (n,) bool of boxes (n, 4) are left, `counts` of each group, the best first, as `suppressed` has it."""
    left = np.ones(len(boxes), np.bool_)
    one_by_one = counts > (_LARGE if eta == 1.0 else 1)
    for group in np.flatnonzero(one_by_one).tolist():
        begin = int(counts[:group].sum())
        own = left[begin : begin + counts[group]]
        own[:] = False
        own[suppressed(boxes[begin : begin + counts[group]], threshold, eta)] = True
    together = np.repeat(~one_by_one, counts)
    left[together] &= _left_of_small(boxes[together], counts[~one_by_one], np.float32(threshold))
    return left


def ranks(counts: Array) -> Array:
    """0, 1, ... for each of counts (n,), one after another."""
    return np.asarray(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))


def _left_of_small(boxes: Array, counts: Array, limit: np.float32) -> Array:
    """As left_of_groups has it, by the overlaps of all pairs of each group: tiles of blocks with those behind them."""
    n_blocks = -(-counts // _TILE)
    blocks = np.arange(n_blocks.sum())
    ends = np.cumsum(n_blocks)
    place = np.repeat((ends - n_blocks) * _TILE, counts) + ranks(counts)
    padded = np.full((4, len(blocks) * _TILE), np.nan, np.float32)  # a NaN overlaps nothing
    padded[:, place] = boxes.T
    columns = np.ascontiguousarray(padded.reshape(4, -1, _TILE).swapaxes(1, 2))
    n_tiles = np.repeat(ends, n_blocks) - blocks
    first = np.repeat(blocks, n_tiles)
    second = first + ranks(n_tiles)
    better, worse = [], []
    for low in range(0, len(first), _TILES):
        a, b = first[low : low + _TILES], second[low : low + _TILES]
        shared = column_overlaps(columns.take(a, axis=2)[:, :, None], columns.take(b, axis=2)[:, None])
        rows, tiles = np.divmod(np.flatnonzero(shared > limit), len(a))
        better.append(a[tiles] * _TILE + rows // _TILE)
        worse.append(b[tiles] * _TILE + rows % _TILE)
    return _greedy(np.concatenate(better), np.concatenate(worse), padded.shape[1])[place] if better else place > 0


def _greedy(better: Array, worse: Array, n: int) -> Array:
    """Which of n are left, when each that is left takes away, of the pairs that it is the better of, the worse.

    Each round is right for one place more from the best on, at least, and what a round does not change is right.
    """
    pairs = better < worse
    better, worse = better[pairs], worse[pairs]
    before, left = np.zeros(n, np.bool_), np.ones(n, np.bool_)
    while not np.array_equal(before, left):
        before, left = left, np.ones(n, np.bool_)
        left[worse[before[better]]] = False
    return left


def _candidates(p: DetectionOutputParameter, scores: Array) -> tuple[Array, Array]:
    """Groups, which are item·C + label, and priors of the scores (N, P, C) that are above the threshold, at most top_k
    of a group, by group and falling score; never a NaN.
    """
    n_items, n_priors, n_classes = scores.shape
    passing = scores > np.float32(p.confidence_threshold if p.HasField("confidence_threshold") else -np.inf)
    if 0 <= p.background_label_id < n_classes:
        passing[:, :, p.background_label_id] = False
    at = np.flatnonzero(passing)
    place, label = np.divmod(at, n_classes)
    item, prior = np.divmod(place, n_priors)
    groups, confidences = item * n_classes + label, scores.reshape(-1)[at]
    top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") and p.nms_param.top_k > -1 else n_priors
    many = np.flatnonzero(np.bincount(groups) > 2 * top_k) if top_k else groups[:0]
    if len(many):  # to find the least of the best is faster than to sort all
        least = np.full(n_items * n_classes, -np.inf, np.float32)
        for group in many.tolist():
            of_group = -scores[group // n_classes, :, group % n_classes]  # NaNs are last
            least[group] = -np.partition(of_group, top_k - 1)[top_k - 1]
        best = confidences >= least[groups]
        groups, prior, confidences = groups[best], prior[best], confidences[best]
    order = np.lexsort((-confidences, groups))
    order = order[ranks(np.bincount(groups)) < top_k]
    return groups[order], prior[order]


def _best_of_items(rows: Array, n_items: int, n: int) -> Array:
    """The numbers of at most n rows of each item, those of the highest scores, in their order."""
    counts = np.bincount(rows[:, 0].astype(np.int64), minlength=n_items)
    order = np.lexsort((-rows[:, 2], rows[:, 0]))
    return np.sort(order[ranks(counts) < n])
