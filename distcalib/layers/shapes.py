"""Static shapes, Caffe's axis rule, and constants: what every converter needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.errors import described
from distcalib.layers.blobs import FloatArray
from distcalib.layers.registry import Layer

Shape = tuple[int, ...]
MOST_ELEMENTS = 2**31


def shape_of(x: Output) -> Shape:
    """The shape of a node's output; all shapes here are static."""
    return tuple(int(n) for n in x.get_shape())


def too_large(values: Iterable[Output | None]) -> str | None:
    """That a value has more elements than a blob of Caffe's can have, which counts them in an int; None if none has."""
    return next((wrong for value in values if value is not None and (wrong := too_many(shape_of(value)))), None)


def too_many(shape: Shape) -> str | None:
    """The same of a shape, for a converter that works values out, before it does; UnsupportedError's words."""
    if prod(shape) < MOST_ELEMENTS:
        return None
    return f"its top is {' x '.join(map(str, shape))}, and a blob has less than 2^31 elements; correct its sizes"


def why_not(error: Exception, bottoms: Iterable[Output]) -> str:
    """What an exception in a converter means, to follow "layer 'x' (Type): ". A RuntimeError is OpenVINO's own check,
    such as of a kernel larger than its input; others come of numbers that nobody means, such as a size of 2^40."""
    if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"its shapes do not fit: {lines[-1] if lines else 'no reason is given'}"
    given = " and ".join(str(shape_of(x)) for x in bottoms) or "none"
    if isinstance(error, IndexError):
        return f"reads blobs of shape {given}, which have too few axes for it; correct its parameters or what it reads"
    return f"cannot be converted for bottoms of {given} ({described(error)}); correct its parameters or what it reads"


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
