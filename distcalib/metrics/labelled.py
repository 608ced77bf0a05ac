"""What scores that read labels have in common: rows of classes with a label each, and what a loss is divided by."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter, LossParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.classes import require_classes, where, whole_labels
from distcalib.metrics.partial import Partial

Array = npt.NDArray[Any]


def normalized(
    param: LossParameter,
    loss: float,
    n_all: int,
    n_valid: int,
    n_records: int,
    default: int,
) -> Partial:
    """A sum of losses over what the layer divides it by: `default` where the prototxt does not say; over nothing where
    no label counts, which is 0 as in Caffe."""
    if not n_valid:
        return Partial(0.0, 0)
    mode: int = param.normalization if param.HasField("normalization") else default
    if not param.HasField("normalization") and param.HasField("normalize"):
        mode = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
    if mode == LossParameter.PRE_FIXED:
        return Partial(loss / max(1.0, param.pre_fixed_normalizer), 1)
    normalizers: dict[int, int] = {
        LossParameter.FULL: n_all,
        LossParameter.VALID: n_valid,
        LossParameter.BATCH_SIZE: n_records,
        LossParameter.NONE: 1,
    }
    return Partial(loss, max(1, normalizers[mode]))


def records_of(layer: LayerParameter, scores: Array, labels: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """All values of a record as its classes, with one label each, checked."""
    check_records(layer, scores.shape, labels.shape)
    rows, whole = rows_of(layer, scores.reshape(scores.shape[0], -1), labels, 1)
    require_classes(layer, rows, whole)
    return rows, whole


def rows_of(layer: LayerParameter, scores: Array, labels: Array, axis: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """One row of class scores and one label each, `axis` moved to the end; labels are truncated to integers as in C."""
    check_labels(layer, scores.shape, labels.shape, axis)
    n_classes = scores.shape[axis]
    return np.moveaxis(scores, axis, -1).reshape(-1, n_classes), whole_labels(layer, labels, n_classes)


def check_labels(layer: LayerParameter, scores: tuple[int, ...], labels: tuple[int, ...], axis: int) -> None:
    """UnsupportedError where there is not one label for each row of class scores along `axis`."""
    if not -len(scores) <= axis < len(scores):
        raise UnsupportedError(f"{where(layer)}: axis={axis} of predictions with {len(scores)} axes; it must be one")
    n_rows = prod(scores) // max(1, scores[axis])
    if prod(labels) != n_rows:
        raise UnsupportedError(
            f"{where(layer)}: {prod(labels)} labels for predictions of shape {scores} along axis {axis}; "
            f"{n_rows} are needed"
        )


def check_records(layer: LayerParameter, scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """UnsupportedError where there is not one label for each record."""
    if not scores or prod(labels) != scores[0]:
        raise UnsupportedError(
            f"{where(layer)}: {prod(labels)} labels for predictions of shape {scores}; one a record is needed"
        )


def without_ignored(
    layer: LayerParameter, rows: Array, labels: npt.NDArray[np.int64], param: Any
) -> tuple[Array, npt.NDArray[np.int64]]:
    """The rows that count; DataError if one of their labels is no class."""
    if param.HasField("ignore_label"):
        counts = labels != param.ignore_label
        rows, labels = rows[counts], labels[counts]
    require_classes(layer, rows, labels)
    return rows, labels
