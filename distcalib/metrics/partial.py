"""Partial scores: what one iteration says, and how iterations become the score that `caffe test` prints.

Caffe prints the mean over iterations of each iteration's value. Where records were left out of some, each iteration
weighs as much as it has records: of an accuracy that is the part of all records read, and with none left out it is
Caffe's mean. Counts stay integers and their mean a fraction; losses
are summed by fsum. So the score does not depend on who measured which iteration, nor on the order, to the last bit.
Detections and confusions merge otherwise, see distcalib.metrics.detections and .segmentation; `merged` takes the
partials of any kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from distcalib.metrics.detections import DEFAULT_AP, Detections
from distcalib.metrics.segmentation import Confusion, confusions_of


@dataclass(frozen=True)
class Partial:
    """One iteration's value as numerator / denominator; a numerator of type int is a count, and exact."""

    numerator: float | int
    denominator: int
    n_records: int = 1
    """What it weighs among other iterations: the records that it is of."""
    by_class: tuple[tuple[int, int], ...] = field(default=(), kw_only=True)
    """Of an Accuracy with a second top: of each class its labels that count, and those of them that are found."""

    @property
    def value(self) -> float:
        """What Caffe prints for the iteration; 0 if every label was ignored, as newer versions of Caffe have it."""
        return self.numerator / self.denominator if self.denominator else 0.0


PartialScore: TypeAlias = Partial | Detections | Confusion
"""What one iteration says of a score; all iterations of a score are of one kind."""


def merged(parts: Iterable[PartialScore], ap_version: str = DEFAULT_AP) -> float:
    """The score of all iterations, given in their order; ValueError if there are none.

    `ap_version`: how detections become an AP.
    """
    scores = list(parts)
    detections = detections_of(scores)
    if confusions := confusions_of(scores):
        return Confusion.summed(confusions).mean_iou
    return Detections.merged(detections, ap_version) if detections else mean(means_of(scores))


def class_counts(parts: Iterable[PartialScore]) -> tuple[tuple[int, int], ...]:
    """Of each class its labels and those found, of all iterations; empty where no class was counted."""
    counted = [part.by_class for part in means_of(parts) if part.by_class]
    return tuple(
        (sum(n for n, _ in of_class), sum(hits for _, hits in of_class)) for of_class in zip(*counted, strict=True)
    )


def class_accuracies(counts: Iterable[tuple[int, int]]) -> dict[int, float]:
    """By class, of those that have labels, the part of them that is found; `counts` are those of class_counts."""
    return {label: hits / n for label, (n, hits) in enumerate(counts) if n}


def without_labels(counts: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """The classes of which no label counts: they have no accuracy."""
    return tuple(label for label, (n, _) in enumerate(counts) if not n)


def detections_of(parts: Iterable[PartialScore]) -> list[Detections]:
    """Those of them that are detections."""
    return [part for part in parts if isinstance(part, Detections)]


def means_of(parts: Iterable[PartialScore]) -> list[Partial]:
    """Those of them that are averaged."""
    return [part for part in parts if isinstance(part, Partial)]


def mean(partials: Iterable[Partial]) -> float:
    """The mean of the iterations' values, each weighed by its records; ValueError if there are none.

    Counts are averaged as fractions, anything else by fsum, which is exact too before its one rounding: the order of
    the partials has no influence. A NaN or an infinity in a loss comes out as such.
    """
    parts: Sequence[Partial] = list(partials)
    if not parts:
        raise ValueError("the mean of no iterations")
    shares = shares_of(parts)
    if all(isinstance(p.numerator, int) for p in parts):
        counted = [(p, share) for p, share in zip(parts, shares, strict=True) if p.denominator]
        total = sum((Fraction(int(p.numerator), p.denominator) * share for p, share in counted), Fraction())
        return float(total / len(parts))
    values = [p.value * float(share) for p, share in zip(parts, shares, strict=True)]
    if not all(map(math.isfinite, values)):
        return sum(values)
    return math.fsum(values) / len(values)


def shares_of(partials: Sequence[Partial]) -> list[Fraction]:
    """What each iteration weighs among all, 1 on average; exactly 1 where all are of as many records."""
    total = sum(p.n_records for p in partials)
    return [Fraction(p.n_records * len(partials), total) for p in partials]
