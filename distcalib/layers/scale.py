"""Scale and Bias: product and sum that broadcast from an axis on; the other operand is a blob or a second bottom."""

from __future__ import annotations

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import Shape, along, canonical_axis, constant, reshape, shape_of


@converts("Scale", bottoms=(1, 2))
def scale(layer: Layer, x: Output, factor: Output | None = None) -> Output:
    """The product x · factor (+ bias), both of shape x.shape[axis : axis + num_axes], or of the second bottom.

    A factor below min_value or above max_value counts as that (happynear/caffe-windows, scale_layer.cpp).
    """
    p = layer.param("scale_param")
    axis, shape = _extent(layer, p.axis, p.num_axes, x, factor)
    n_own = 1 if factor is None else 0
    layer.expect_blobs(n_own + p.bias_term)
    rank = len(shape_of(x))
    other = along(layer.blob(0, shape), axis, rank) if factor is None else _laid_along(factor, axis, rank)
    if p.HasField("min_value"):
        other = ops.maximum(other, constant(p.min_value)).output(0)
    if p.HasField("max_value"):
        other = ops.minimum(other, constant(p.max_value)).output(0)
    y = ops.multiply(x, other).output(0)
    return ops.add(y, along(layer.blob(n_own, shape), axis, rank)).output(0) if p.bias_term else y


@converts("Bias", bottoms=(1, 2))
def bias(layer: Layer, x: Output, term: Output | None = None) -> Output:
    """The sum x + bias, with the shapes of Scale."""
    p = layer.param("bias_param")
    axis, shape = _extent(layer, p.axis, p.num_axes, x, term)
    layer.expect_blobs(1 if term is None else 0)
    rank = len(shape_of(x))
    other = along(layer.blob(0, shape), axis, rank) if term is None else _laid_along(term, axis, rank)
    return ops.add(x, other).output(0)


def _extent(layer: Layer, axis: int, num_axes: int, x: Output, other: Output | None) -> tuple[int, Shape]:
    """First axis and shape of the other operand (scale_layer.cpp); num_axes -1 is to the end, 0 a single number."""
    shape = shape_of(x)
    if other is not None:
        given = shape_of(other)
        first = canonical_axis(layer, axis, len(shape)) if given else 0
        layer.require(
            shape[first : first + len(given)] == given,
            f"its bottoms are {shape} and {given}, which do not match from axis {first} on; they must",
        )
        return first, given
    first = canonical_axis(layer, axis, len(shape))
    layer.require(num_axes >= -1, f"num_axes={num_axes}; it must be -1 (to the end) or more")
    end = len(shape) if num_axes == -1 else first + num_axes
    layer.require(
        end <= len(shape), f"axis={axis} with num_axes={num_axes} reaches beyond an input of {len(shape)} axes"
    )
    return first, shape[first:end]


def _laid_along(other: Output, axis: int, rank: int) -> Output:
    shape = shape_of(other)
    return reshape(other, (1,) * axis + shape + (1,) * (rank - axis - len(shape)))
