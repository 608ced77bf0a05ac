"""InfogainLoss: a cross entropy in which a matrix says what each class is worth where another is labelled.

The matrix is the third bottom or comes from the file that infogain_loss_param.source names; who opens a net puts the
contents of that file into the layer's blobs, since the actors may not have it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter, LossParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.classes import where
from distcalib.metrics.labelled import check_labels, normalized, rows_of, without_ignored
from distcalib.metrics.partial import Partial

Array = npt.NDArray[Any]
INFOGAIN = "InfogainLoss"
_LOG_THRESHOLD = float(np.float32(1e-20))
"""Caffe's least probability here."""


def infogain_loss(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """-Σ_i Σ_c H[label_i, c] · log(max(softmax(x)_ic, 1e-20)) / normalizer:  x (N, C, ...), labels (N, ...), H (C·C).

    The softmax is along infogain_loss_param.axis; the normalizer is that of SoftmaxWithLoss, the labels that are not
    ignored by default (infogain_loss_layer.cpp).
    """
    check_infogain(layer)
    scores, labels = bottoms[0], bottoms[1]
    axis = layer.infogain_loss_param.axis
    rows, whole = rows_of(layer, scores, labels, axis)
    n_all, n_classes = len(whole), rows.shape[1]
    matrix = bottoms[2] if len(bottoms) == 3 else _stored(layer)
    _check_matrix(layer, matrix.size, n_classes)
    rows, whole = without_ignored(layer, rows, whole, layer.loss_param)
    with np.errstate(invalid="ignore"):  # a net that overflows gives a loss of NaN, as in Caffe
        exponentials = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    logarithms = np.log(np.maximum(exponentials / exponentials.sum(axis=1, keepdims=True), _LOG_THRESHOLD))
    worth = matrix.astype(np.float64).reshape(n_classes, n_classes)[whole]
    n_outer = prod(scores.shape[: axis % scores.ndim])
    return normalized(
        layer.loss_param, -float((worth * logarithms).sum()), n_all, len(whole), n_outer, LossParameter.VALID
    )


def check_infogain(layer: LayerParameter) -> None:
    """UnsupportedError for what Caffe refuses, too."""
    p = layer.loss_param
    if p.HasField("normalize"):
        raise UnsupportedError(f"{where(layer)}: normalize is not for this layer; write normalization in its place")
    if p.normalization == LossParameter.PRE_FIXED:
        raise UnsupportedError(f"{where(layer)}: normalization: PRE_FIXED is not for this layer; VALID is")


def check_infogain_shapes(layer: LayerParameter, scores: tuple[int, ...], *others: tuple[int, ...]) -> None:
    """UnsupportedError for other than a label each row, and a matrix of the classes, be it a bottom or stored."""
    axis = layer.infogain_loss_param.axis
    check_labels(layer, scores, others[0], axis)
    if others[1:] or layer.blobs:
        _check_matrix(layer, prod(others[1]) if others[1:] else _stored(layer).size, scores[axis])


def _check_matrix(layer: LayerParameter, n_values: int, n_classes: int) -> None:
    if n_values != n_classes**2:
        raise UnsupportedError(
            f"{where(layer)}: its matrix has {n_values} values for {n_classes} classes; {n_classes**2} are needed"
        )


def _stored(layer: LayerParameter) -> Array:
    """The matrix of a layer without a third bottom."""
    if not layer.blobs:
        raise UnsupportedError(f"{where(layer)}: has no matrix; give a third bottom, or infogain_loss_param.source")
    blob = layer.blobs[0]
    return np.array(blob.double_data if blob.double_data else blob.data, np.float32)
