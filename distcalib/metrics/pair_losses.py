"""Losses that compare two blobs element by element or record by record: SmoothL1Loss and ContrastiveLoss."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.partial import Partial

Array = npt.NDArray[Any]


def smooth_l1_loss(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """Σ outside·f(inside·(x - y)) / N; f(d) = sigma²·d²/2 where |d| < 1/sigma², |d| - 1/(2·sigma²) elsewhere.

    The bottoms are x, y and, where there are four, the weights inside and outside; all of one shape, N its first axis
    (fast-rcnn's smooth_L1_loss_layer.cpp; that of SSD has no sigma, which is 1 by default).
    """
    x, y, *weights = (bottom.astype(np.float64) for bottom in bottoms)
    check_one_shape(layer, *(bottom.shape for bottom in bottoms))
    squared = float(layer.smooth_l1_loss_param.sigma) ** 2
    difference = x.ravel() - y.ravel()
    if weights:
        difference = difference * weights[0].ravel()
    size = np.abs(difference)
    losses = np.where(size < 1.0 / squared, 0.5 * squared * size**2, size - 0.5 / squared)
    if len(weights) > 1:
        losses = losses * weights[1].ravel()
    return Partial(float(losses.sum()), x.shape[0])


def contrastive_loss(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """Σ of d² where the pair is similar, max(margin - d, 0)² elsewhere, / 2N; d is the distance of a record's vectors.

    The bottoms are a (N, C), b (N, C) and whether they are similar (N).  With legacy_version the second term is
    max(margin - d², 0) (contrastive_loss_layer.cpp).
    """
    a, b, similar = bottoms
    check_pairs(layer, a.shape, b.shape, similar.shape)
    n = a.shape[0]
    p = layer.contrastive_loss_param
    distances = ((a.astype(np.float64) - b.astype(np.float64)).reshape(n, -1) ** 2).sum(axis=1)
    if p.legacy_version:
        apart = np.maximum(p.margin - distances, 0.0)
    else:
        apart = np.maximum(p.margin - np.sqrt(distances), 0.0) ** 2
    losses = np.where(np.trunc(similar.ravel()) != 0, distances, apart)
    return Partial(float(losses.sum()), 2 * n)


def check_one_shape(layer: LayerParameter, *shapes: tuple[int, ...]) -> None:
    """UnsupportedError where bottoms that are compared element by element have not as many records and elements."""
    if not shapes[0] or len({(shape[:1], prod(shape)) for shape in shapes}) != 1:
        said = f"{', '.join(map(str, shapes[:-1]))} and {shapes[-1]}"
        raise UnsupportedError(f"{_where(layer)}: its bottoms have shapes {said}; they must be one")


def check_as_many(layer: LayerParameter, x: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """UnsupportedError where there is not a target for each value."""
    if not x or prod(x) != prod(targets):
        raise UnsupportedError(
            f"{_where(layer)}: its bottoms have shapes {x} and {targets}; they must have as many elements"
        )


def check_pairs(layer: LayerParameter, a: tuple[int, ...], b: tuple[int, ...], similar: tuple[int, ...]) -> None:
    """UnsupportedError for anything but two vectors a record, and whether they are similar."""
    if len(a) < 2 or a != b or prod(similar) != a[0] or prod(a) != a[0] * a[1]:
        raise UnsupportedError(
            f"{_where(layer)}: its bottoms have shapes {a}, {b} and {similar}; (N, C) twice and (N) are needed"
        )


def _where(layer: LayerParameter) -> str:
    return f"layer '{layer.name}' ({layer.type})"
