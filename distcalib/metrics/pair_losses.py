"""Losses that compare two blobs element by element or record by record: SmoothL1Loss and ContrastiveLoss."""

from __future__ import annotations

from collections.abc import Sequence
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
    shapes = [bottom.shape for bottom in bottoms]
    if len({(shape[:1], int(np.prod(shape))) for shape in shapes}) != 1:
        raise UnsupportedError(
            f"{_where(layer)}: its bottoms have shapes {', '.join(map(str, shapes))}; they must be one"
        )
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
    n = a.shape[0]
    if a.shape != b.shape or similar.size != n or a.size != n * a.shape[1]:
        raise UnsupportedError(
            f"{_where(layer)}: its bottoms have shapes {a.shape}, {b.shape} and {similar.shape}; (N, C) twice and (N) "
            "are needed"
        )
    p = layer.contrastive_loss_param
    distances = ((a.astype(np.float64) - b.astype(np.float64)).reshape(n, -1) ** 2).sum(axis=1)
    if p.legacy_version:
        apart = np.maximum(p.margin - distances, 0.0)
    else:
        apart = np.maximum(p.margin - np.sqrt(distances), 0.0) ** 2
    losses = np.where(np.trunc(similar.ravel()) != 0, distances, apart)
    return Partial(float(losses.sum()), 2 * n)


def _where(layer: LayerParameter) -> str:
    return f"layer '{layer.name}' ({layer.type})"
