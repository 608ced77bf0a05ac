"""mAP: what iterations say of detections, and how they merge to the score that `caffe test -detection` prints.

Caffe sorts all detections of a class by falling score; equal ones stay in the order of iteration, image and rank in it.
So they do here: the score does not depend on who measured which iteration.  Precision and recall are float32, as in
Caffe: 7 of 10 objects found are a recall of less than 0.7 there.  The mean is over all classes but the background, and
a class of which the data has no object counts as 0, of SSD and of YOLO v2: a real Intel Caffe gives the recorded
tiny_ssd 0.0608579 with num_classes: 5 where the classes that have objects alone would give 0.121716.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DEFAULT_AP = "11point"
"""How `caffe test` takes the area under the curve, whatever a solver says."""


@dataclass(frozen=True, eq=False)
class Detections:
    """One iteration's detections, in the order of image and rank, without those that do not count.

    labels (n,) int32, scores (n,) f32, hits (n,) bool: whether an object was found, else the detection is false.
    `positives`: the number of objects of each class, of all classes but the background; of those without one 0.
    """

    labels: npt.NDArray[np.int32] = field(repr=False)
    scores: npt.NDArray[np.float32] = field(repr=False)
    hits: npt.NDArray[np.bool_] = field(repr=False)
    positives: Mapping[int, int]

    @property
    def denominator(self) -> int:
        """It is one number, and no mean."""
        return 1

    @property
    def value(self) -> float:
        """The mAP of the iteration by itself."""
        return self.merged([self])

    @staticmethod
    def merged(parts: Sequence[Detections], ap_version: str = DEFAULT_AP) -> float:
        """The mAP of iterations, given in their order."""
        return _mean(list(average_precisions(parts, ap_version).values()), _positives(parts))

    @staticmethod
    def bounds(
        measured: Sequence[Detections], left: Sequence[Detections], ap_version: str = DEFAULT_AP
    ) -> tuple[float, float]:
        """Between what the mAP of `measured` lies, whatever a net detects in the iterations of `left`.

        Of `left` only the numbers of objects are used, which are those of the data.  The lower end is 0: false
        detections without end.  The upper end is reached if each of the u objects left of a class is found with a
        score above all.  Proof: an AP grows with the precision at each of its hits, and with their number.  Of the
        first j hits of any order in which `measured` stand as they do, at least j - u are theirs; so before hit j
        stand at least the f(j - u) false detections that stand before their hit j - u, and its precision is at most
        j / (j + f(j - u)), where f is 0 up to u.  With all u on top that is its precision.
        """
        labels, hits = _by_class(measured)
        unknown, positives = _positives(left), _positives([*measured, *left])
        best = [
            _average_precision(np.concatenate([np.ones(unknown[c], np.bool_), hits[labels == c]]), n, ap_version)
            for c, n in positives.items()
            if n
        ]
        return 0.0, _mean(best, positives)


def average_precisions(parts: Iterable[Detections], ap_version: str = DEFAULT_AP) -> dict[int, float]:
    """The AP of each class that has objects, of iterations in their order."""
    parts = list(parts)
    labels, hits = _by_class(parts)
    positives = _positives(parts)
    return {c: _average_precision(hits[labels == c], n, ap_version) for c, n in sorted(positives.items()) if n}


def absent_classes(parts: Iterable[Detections]) -> tuple[int, ...]:
    """The classes of which no iteration has an object that counts: their AP is 0."""
    return tuple(sorted(c for c, n in _positives(parts).items() if not n))


def first_hits(nearest: Array, candidates: Array) -> Array:
    """Of boxes, the best first, those `candidates` (n,) bool that are the first at their object, `nearest` (n,)."""
    at = np.flatnonzero(candidates)
    is_hit = np.zeros(len(nearest), np.bool_)
    is_hit[at[np.unique(nearest[at], return_index=True)[1]]] = True
    return is_hit


def _mean(precisions: Sequence[float], classes: Sized) -> float:
    """The mean of the APs `precisions` over all `classes`: one that is not found counts as 0."""
    return math.fsum(precisions) / len(classes) if precisions else 0.0


def _by_class(parts: Sequence[Detections]) -> tuple[Array, Array]:
    """Labels and hits of all detections, by falling score."""
    if not parts:
        return np.zeros(0, np.int32), np.zeros(0, np.bool_)
    order = np.argsort(-np.concatenate([part.scores for part in parts]), kind="stable")
    return np.concatenate([part.labels for part in parts])[order], np.concatenate([part.hits for part in parts])[order]


def _positives(parts: Iterable[Detections]) -> Counter[int]:
    """The number of objects of each class, of those without one 0."""
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part.positives)
    return total


def _average_precision(hits: Array, n_positives: int, ap_version: str) -> float:
    """The AP of detections sorted by falling score, of `n_positives` objects, at least one."""
    if not len(hits):
        return 0.0
    n_hits = np.cumsum(hits, dtype=np.int64)
    precision = n_hits.astype(np.float32) / np.arange(1, len(hits) + 1, dtype=np.float32)
    recall = n_hits.astype(np.float32) / np.float32(n_positives)
    return AP_VERSIONS[ap_version](precision.astype(np.float64), recall.astype(np.float64))


def _eleven_point(precision: Array, recall: Array) -> float:
    """The mean, over recalls of 0, 0.1 ... 1, of the best precision at that recall or above (VOC 2007)."""
    from_here = np.maximum.accumulate(precision[::-1])[::-1]
    at = [int(np.searchsorted(recall, tenth / 10.0)) for tenth in range(11)]
    return math.fsum(float(from_here[i]) for i in at if i < len(recall)) / 11


def _max_integral(precision: Array, recall: Array) -> float:
    """The area under the best precision at a recall or above (VOC 2012, ILSVRC)."""
    from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return math.fsum(np.diff(recall, prepend=0.0) * from_here)


def _integral(precision: Array, recall: Array) -> float:
    """The area under precision over recall as it is."""
    return math.fsum(np.diff(recall, prepend=0.0) * precision)


AP_VERSIONS: dict[str, Callable[[Array, Array], float]] = {
    "11point": _eleven_point,
    "MaxIntegral": _max_integral,
    "Integral": _integral,
}
"""The ways to take the area under a curve of precision over recall, as ComputeAP of bbox_util.cpp has them."""
