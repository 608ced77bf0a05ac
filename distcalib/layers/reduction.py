"""Reduction: all axes from one on become a single number."""

from __future__ import annotations

from math import prod

import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import ReductionParameter
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, shape_of


@converts("Reduction")
def reduction(layer: Layer, x: Output) -> Output:
    """coeff times the sum, the sum of absolute values, the sum of squares or the mean of the axes from `axis` on."""
    p = layer.param("reduction_param")
    shape = shape_of(x)
    axis = canonical_axis(layer, p.axis, len(shape))
    if p.operation == ReductionParameter.ASUM:
        x = ops.abs(x).output(0)
    elif p.operation == ReductionParameter.SUMSQ:
        x = ops.multiply(x, x).output(0)
    y = ops.reduce_sum(x, integers(list(range(axis, len(shape))))).output(0)
    n = prod(shape[axis:]) if p.operation == ReductionParameter.MEAN else 1
    return y if p.coeff == 1.0 and n == 1 else ops.multiply(y, constant(p.coeff / n)).output(0)
