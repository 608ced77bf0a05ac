"""The `DummyData` layer: filled tensors, for speed runs and tests.

Caffe draws new random values at each forward pass from one stream, so they depend on the order of the passes. Here they
are a function of layer, top and iteration alone, so that a shard is the same on whichever actor runs it; they cannot
equal Caffe's, and need not. RandomState and not Generator: NumPy promises its stream for ever."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from math import prod, sqrt
from pathlib import Path

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.data.left_out import Bad
from distcalib.data.source import FloatArray, Index
from distcalib.errors import DataError

Filler = caffe_pb2.FillerParameter
Shape = tuple[int, ...]


class DummySource:
    """As many tops as the layer names, each of its own or the common shape and filler. Raises DataError."""

    index: Index | None = None

    def __init__(self, layer: caffe_pb2.LayerParameter, prototxt: Path) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        param = layer.dummy_data_param
        self.tops = tuple(layer.top)
        n_tops = len(self.tops)
        shapes = _shapes(param, n_tops)
        fillers = list(param.data_filler) or [Filler()]
        faults = []
        if len(shapes) != n_tops:
            faults.append(f"gives {len(shapes)} shapes for {n_tops} tops; give one each, or one for all")
        if len(fillers) not in (1, n_tops):
            faults.append(f"gives {len(fillers)} data_filler for {n_tops} tops; give none, one or {n_tops}")
        faults += [f"shape {' x '.join(map(str, s))} is empty; give sizes of at least 1" for s in shapes if prod(s) < 1]
        unknown = sorted({f.type for f in fillers} - set(_FILLERS))
        faults += [f"data_filler type '{name}' is not done; {', '.join(_FILLERS)} are" for name in unknown]
        if any(f.sparse >= 0 for f in fillers):
            faults.append("data_filler sparse is not done; take it out")
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        self._name = layer.name
        self._fillers = fillers if len(fillers) == n_tops else fillers * n_tops
        self.shapes = dict(zip(self.tops, shapes, strict=True))
        self.batch_size = shapes[0][0] if shapes[0] else 1

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """The filled tops; random ones differ from iteration to iteration, as in Caffe."""
        tops = {}
        for number, (top, shape) in enumerate(self.shapes.items()):
            seed = sha256(f"{self._name}\0{number}\0{iteration}".encode()).digest()
            filler = self._fillers[number]
            tops[top] = _FILLERS[filler.type](filler, shape, seed)
        return tops

    def close(self) -> None:
        """Nothing to let go of."""


def _shapes(param: caffe_pb2.DummyDataParameter, n_tops: int) -> list[Shape]:
    """One shape a top; another number of them if the layer gives neither one nor `n_tops`."""
    if param.shape:
        shapes: list[Shape] = [tuple(shape.dim) for shape in param.shape]
        return shapes * n_tops if len(shapes) == 1 else shapes
    sides = [list(side) * (n_tops if len(side) == 1 else 1) for side in _legacy_sides(param)]
    return list(zip(*sides, strict=False))


def _legacy_sides(param: caffe_pb2.DummyDataParameter) -> tuple[list[int], ...]:
    return list(param.num), list(param.channels), list(param.height), list(param.width)


def _random(seed: bytes) -> np.random.RandomState:
    return np.random.RandomState(np.frombuffer(seed, "<u4"))


def _constant(filler: Filler, shape: Shape, seed: bytes) -> FloatArray:
    return np.full(shape, filler.value, np.float32)


def _gaussian(filler: Filler, shape: Shape, seed: bytes) -> FloatArray:
    return _random(seed).normal(filler.mean, filler.std, shape).astype(np.float32)


def _uniform(filler: Filler, shape: Shape, seed: bytes) -> FloatArray:
    return _random(seed).uniform(filler.min, filler.max, shape).astype(np.float32)


def _xavier(filler: Filler, shape: Shape, seed: bytes) -> FloatArray:
    """Uniform in ±sqrt(3/fan)."""
    limit = sqrt(3 / _fan(filler, shape))
    return _random(seed).uniform(-limit, limit, shape).astype(np.float32)


def _msra(filler: Filler, shape: Shape, seed: bytes) -> FloatArray:
    """Gaussian of deviation sqrt(2/fan)."""
    return _random(seed).normal(0, sqrt(2 / _fan(filler, shape)), shape).astype(np.float32)


def _fan(filler: Filler, shape: Shape) -> float:
    """Caffe's fan of a blob: count/num in, count/channels out, or their mean."""
    count = prod(shape)
    fan_in = count / shape[0] if shape else 1
    fan_out = count / shape[1] if len(shape) > 1 else count
    if filler.variance_norm == Filler.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if filler.variance_norm == Filler.FAN_OUT else fan_in


_FILLERS: dict[str, Callable[[Filler, Shape, bytes], FloatArray]] = {
    "constant": _constant,
    "gaussian": _gaussian,
    "uniform": _uniform,
    "xavier": _xavier,
    "msra": _msra,
}
