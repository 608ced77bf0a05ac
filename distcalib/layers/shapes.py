"""Static shapes, Caffe's axis rule, and constants: what every converter needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.blobs import FloatArray
from distcalib.layers.registry import Layer

Shape = tuple[int, ...]


def shape_of(x: Output) -> Shape:
    """The shape of a node's output; all shapes here are static."""
    return tuple(int(n) for n in x.get_shape())


def canonical_axis(layer: Layer, axis: int, rank: int, name: str = "axis") -> int:
    """`axis` counted from the front, if negative from the end (Blob::CanonicalAxisIndex); UnsupportedError outside."""
    layer.require(-rank <= axis < rank, f"{name}={axis} of an input with {rank} axes; {-rank} to {rank - 1} exist")
    return axis % rank


def constant(values: FloatArray | float) -> Output:
    """Float32 values as a node."""
    return ops.constant(np.asarray(values, np.float32)).output(0)


def integers(values: Sequence[int]) -> Output:
    """Int64 values as a node, for shapes and axes."""
    return ops.constant(np.array(values, np.int64)).output(0)


def reshape(x: Output, shape: Sequence[int]) -> Output:
    """`x` in another shape of as many elements; `x` itself if it has that shape."""
    if shape_of(x) == tuple(shape):
        return x
    return ops.reshape(x, integers(shape), special_zero=False).output(0)


def along(values: FloatArray, axis: int, rank: int) -> Output:
    """`values` as a constant that broadcasts over an input of `rank` axes, its own axes laid from `axis` on."""
    return constant(values.reshape((1,) * axis + values.shape + (1,) * (rank - axis - values.ndim)))
