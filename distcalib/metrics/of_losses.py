"""Layers that read what losses say: Eltwise and Power of losses, such as the sum of a net's losses.

Losses are worked out on the host, an iteration at a time, so these are, too.  In the TEST net they have types of their
own, which no file has; with Intel Caffe they get their own back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import EltwiseParameter, LayerParameter, NetParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.partial import Partial

Array = npt.NDArray[Any]
OF_LOSSES: Mapping[str, str] = {"Eltwise": "EltwiseOfLosses", "Power": "PowerOfLosses"}
"""The types that may read losses, and what they are called then."""


def name_of_losses(net: NetParameter, losses: Collection[str]) -> None:
    """Give the layers of a TEST net that read nothing but values of `losses`, or of such layers, their other types."""
    values: set[str] = set()
    for layer in net.layer:
        if layer.type in OF_LOSSES and layer.bottom and values.issuperset(layer.bottom):
            layer.type = OF_LOSSES[layer.type]
            values.update(layer.top)
        elif layer.type in losses:
            values.update(layer.top[:1])
        else:
            values.difference_update(layer.top)


def named_as_written(net: NetParameter) -> None:
    """Undo `name_of_losses`."""
    written = {other: own for own, other in OF_LOSSES.items()}
    for layer in net.layer:
        layer.type = written.get(layer.type, layer.type)


def eltwise_of_losses(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """Σ coeff·x, the product or the greatest of scalars."""
    p = layer.eltwise_param
    values = [float(x) for x in bottoms]
    if p.coeff and (len(p.coeff) != len(values) or p.operation != EltwiseParameter.SUM):
        raise UnsupportedError(
            f"{where(layer)}: {len(p.coeff)} coeff for {len(values)} bottoms; SUM alone takes them, one a bottom"
        )
    if p.operation == EltwiseParameter.SUM:
        return Partial(float(np.dot(values, list(p.coeff) or [1.0] * len(values))), 1)
    return Partial(prod(values) if p.operation == EltwiseParameter.PROD else max(values), 1)


def power_of_losses(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """(shift + scale·x)^power of a scalar."""
    p = layer.power_param
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return Partial(float(np.power(np.float64(p.shift + p.scale * float(bottoms[0])), p.power)), 1)


def where(layer: LayerParameter) -> str:
    """How messages name a layer."""
    return f"layer '{layer.name}' ({layer.type.removesuffix('OfLosses')})"
