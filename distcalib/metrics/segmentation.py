"""SegAccuracy: how well classes of pixels are found, by the confusion of all iterations together.

The layer of DeepLab and PSPNet prints pixel accuracy, mean recall and mean IoU of each iteration, and `caffe test`
their means.  The mean of the IoU of single batches is not the mean IoU: a class that a batch lacks counts as found.  So
what an iteration gives here are counts by class, which add up exactly, and the score is the mean IoU of all pixels; the
other two are reported beside it (src/caffe/util/confusion_matrix.cpp of hszhao/PSPNet)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.classes import require_classes, whole_labels

Array = npt.NDArray[Any]
SEGMENTATION = "SegAccuracy"


@dataclass(frozen=True)
class Confusion:
    """Pixels by class, of those whose label counts: how many are labelled so, predicted so, and both."""

    labelled: tuple[int, ...]
    predicted: tuple[int, ...]
    hits: tuple[int, ...]

    @property
    def denominator(self) -> int:
        """The pixels that count."""
        return sum(self.labelled)

    @property
    def numerator(self) -> int:
        """Those of them that are right."""
        return sum(self.hits)

    @property
    def value(self) -> float:
        """The mean IoU of these pixels alone."""
        return self.mean_iou

    @staticmethod
    def summed(parts: Iterable[Confusion]) -> Confusion:
        """The counts of all iterations; ValueError if there are none."""
        confusions = list(parts)
        if not confusions:
            raise ValueError("the counts of no iterations")
        columns = ([getattr(part, name) for part in confusions] for name in ("labelled", "predicted", "hits"))
        labelled, predicted, hits = (tuple(map(sum, zip(*column, strict=True))) for column in columns)
        return Confusion(labelled, predicted, hits)

    @property
    def pixel_accuracy(self) -> float:
        """The part of the pixels that is right; 0 of none."""
        return self.numerator / self.denominator if self.denominator else 0.0

    @property
    def mean_recall(self) -> float:
        """The mean, over the classes that are labelled, of the part that is found; 0 of none."""
        parts = [Fraction(hit, n) for hit, n in zip(self.hits, self.labelled, strict=True) if n]
        return float(sum(parts, Fraction()) / len(parts)) if parts else 0.0

    @property
    def mean_iou(self) -> float:
        """The mean over all classes of intersection over union; a class that is neither labelled nor predicted is 1."""
        ious = [
            Fraction(hit, union) if (union := n + m - hit) else Fraction(1)
            for n, m, hit in zip(self.labelled, self.predicted, self.hits, strict=True)
        ]
        return float(sum(ious, Fraction()) / len(ious)) if ious else 0.0

    def at_best(self, left: Iterable[Confusion]) -> Confusion:
        """These counts with the pixels `left`, of any net, all predicted right: no mean IoU can be higher."""
        labels = [part.labelled for part in left]
        more = tuple(map(sum, zip(*labels, strict=True))) if labels else (0,) * len(self.labelled)
        rights = Confusion(more, more, more)
        return Confusion.summed([self, rights])


def seg_accuracy(layer: LayerParameter, scores: Array, labels: Array) -> Confusion:
    """The counts of one iteration:  scores (N, C, H, W), labels (N, 1, H, W) or (N, H, W).

    Of equal scores the larger class is predicted; a NaN is never right.  DataError for a label that is not a class and
    none of ignore_label.
    """
    check_maps_of_classes(layer, scores.shape, labels.shape)
    n_classes = scores.shape[1]
    rows = np.moveaxis(scores, 1, -1).reshape(-1, n_classes)
    whole = whole_labels(layer, labels, n_classes)
    counts = ~np.isin(whole, list(layer.seg_accuracy_param.ignore_label))
    rows, whole = rows[counts], whole[counts]
    require_classes(layer, rows, whole)
    predicted = n_classes - 1 - np.argmax(rows[:, ::-1], axis=1)
    broken = np.isnan(rows).any(axis=1)
    predicted[broken] = (whole[broken] + 1) % n_classes
    hits = whole[(predicted == whole) & ~broken]
    return Confusion(*(_by_class(values, n_classes) for values in (whole, predicted, hits)))


def check_maps_of_classes(layer: LayerParameter, scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """UnsupportedError where there is not one label for each pixel."""
    if len(scores) != 4 or prod(labels) != prod(scores) // max(1, scores[1]):
        raise UnsupportedError(
            f"{_where(layer)}: its bottoms have shapes {scores} and {labels}; (N, C, H, W) and (N, 1, H, W) are needed"
        )


def _by_class(values: npt.NDArray[np.int64], n_classes: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.bincount(values, minlength=n_classes))


def confusions_of(parts: Sequence[object]) -> list[Confusion]:
    """Those of the partial scores that are confusions."""
    return [part for part in parts if isinstance(part, Confusion)]


def _where(layer: LayerParameter) -> str:
    return f"layer '{layer.name}' ({layer.type})"
