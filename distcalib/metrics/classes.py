"""Labels as classes: whole numbers from 0 on, below the number of classes; others are an error of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import DataError

Array = npt.NDArray[Any]
_LARGEST = 2**53
"""From here on a float64 has gaps between whole numbers."""


def whole_labels(layer: LayerParameter, labels: Array, n_classes: int) -> npt.NDArray[np.int64]:
    """Labels in one row, truncated as in C; DataError for what is no whole number at all, such as NaN and 1e30."""
    flat = labels.ravel()
    beyond = flat[~(np.abs(flat) < _LARGEST)]
    if beyond.size:
        raise _outside(layer, beyond.size, flat.size, n_classes, [f"{label:g}" for label in np.unique(beyond)[:5]])
    return flat.astype(np.int64)


def require_classes(layer: LayerParameter, rows: Array, labels: npt.NDArray[np.int64]) -> None:
    """DataError for labels that are not a class."""
    n_classes = rows.shape[1]
    outside = labels[(labels < 0) | (labels >= n_classes)]
    if outside.size:
        raise _outside(layer, outside.size, labels.size, n_classes, [str(label) for label in np.unique(outside)[:5]])


def _outside(layer: LayerParameter, n_outside: int, n_all: int, n_classes: int, shown: list[str]) -> DataError:
    return DataError(
        f"{where(layer)}: {n_outside} of {n_all} labels lie outside the classes 0 to {n_classes - 1} "
        f"(such as {', '.join(shown)}); correct the data set, or set ignore_label"
    )


def where(layer: LayerParameter) -> str:
    """How messages name a layer."""
    return f"layer '{layer.name}' ({layer.type})"
