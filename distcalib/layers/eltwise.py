"""Eltwise: sum, product or maximum of two or more bottoms of one shape; Axpy: a sum with one factor a channel; Mul."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import EltwiseParameter
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of


@converts("Eltwise", bottoms=(2, None))
def eltwise(layer: Layer, *inputs: Output) -> Output:
    """Folded from the left as in Caffe; SUM multiplies by `coeff` first, if given."""
    p = layer.param("eltwise_param")
    _check(layer, inputs)
    is_sum = p.operation == EltwiseParameter.SUM
    terms = list(inputs)
    for i, coeff in enumerate(p.coeff):
        if coeff != 1.0:
            terms[i] = ops.multiply(terms[i], constant(coeff)).output(0)
    operation = ops.add if is_sum else ops.multiply if p.operation == EltwiseParameter.PROD else ops.maximum
    return reduce(lambda a, b: operation(a, b).output(0), terms)


def eltwise_onto(layer: Layer, onto: Sequence[bool], *inputs: Output) -> Output:
    """An Eltwise in place, in Caffe: bottom i lies in the memory of the top where `onto[i]`.

    SUM sets the top to 0, MAX to the least float32, before either reads its bottoms, and then takes one after the other
    into it: so of what lay there nothing is left, and a later bottom that lies there counts what was summed up to it
    once more. PROD and MAX take their first two at once (eltwise_layer.cpp).
    """
    p = layer.param("eltwise_param")
    _check(layer, inputs)
    if p.operation == EltwiseParameter.PROD:
        total = ops.multiply(*inputs[:2]).output(0)
        for x, own in zip(inputs[2:], onto[2:], strict=True):
            total = ops.multiply(total, total if own else x).output(0)
        return total
    if p.operation == EltwiseParameter.MAX:
        others = [x for x, own in zip(inputs, onto, strict=True) if not own]
        return reduce(
            lambda a, b: ops.maximum(a, b).output(0), others or [_filled(inputs[0], np.finfo(np.float32).min)]
        )
    factors: list[tuple[Output, float]] = []
    for x, own, coeff in zip(inputs, onto, list(p.coeff) or [1.0] * len(inputs), strict=True):
        factors = [(a, f * (1.0 + coeff)) for a, f in factors] if own else [*factors, (x, coeff)]
    terms = [x if f == 1.0 else ops.multiply(x, constant(f)).output(0) for x, f in factors]
    return reduce(lambda a, b: ops.add(a, b).output(0), terms) if terms else _filled(inputs[0], 0.0)


def _check(layer: Layer, inputs: Sequence[Output]) -> None:
    """Raise UnsupportedError for shapes and coefficients that do not fit."""
    p = layer.param("eltwise_param")
    shapes = [shape_of(x) for x in inputs]
    layer.require(len(set(shapes)) == 1, f"its bottoms have shapes {', '.join(map(str, shapes))}; they must be one")
    layer.require(
        len(p.coeff) in (0, len(inputs)), f"{len(p.coeff)} coeff for {len(inputs)} bottoms; none or one a bottom fit"
    )
    is_sum = p.operation == EltwiseParameter.SUM
    layer.require(is_sum or not p.coeff, "coeff is given with an operation other than SUM; remove it")


def _filled(like: Output, value: float) -> Output:
    return ops.broadcast(constant(value), integers(shape_of(like))).output(0)


@converts("Axpy", bottoms=(3, 3))
def axpy(layer: Layer, scale: Output, x: Output, y: Output) -> Output:
    """scale·x + y:  scale (N, C) or (N, C, 1, 1), x and y (N, C, H, W) (axpy_layer.cpp of Intel Caffe, from SENet)."""
    factors, shape = shape_of(scale), shape_of(x)
    layer.require(len(shape) >= 2, f"its second bottom has {len(shape)} axes; at least 2 (N, C) are needed")
    layer.require(shape_of(y) == shape, f"its bottoms x and y have shapes {shape} and {shape_of(y)}; they must be one")
    fits = factors[:2] == shape[:2] and all(n == 1 for n in factors[2:])
    layer.require(fits, f"its first bottom has shape {factors}; {shape[:2]}, with axes of 1 behind it, is needed")
    one_each = reshape(scale, (*shape[:2], *[1] * (len(shape) - 2)))
    return ops.add(ops.multiply(one_each, x), y).output(0)


@converts("MaskPooling", bottoms=(2, 2))
def mask_pooling(layer: Layer, x: Output, mask: Output) -> Output:
    """Each channel times the mask:  x (N, C, H, W), mask (N, 1, H, W).

    Source: daijifeng001/caffe-mnc, mask_pooling_layer.cu.
    """
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    wanted = (shape[0], 1, *shape[2:])
    layer.require(shape_of(mask) == wanted, f"its mask has shape {shape_of(mask)}; {wanted} is needed")
    return ops.multiply(x, mask).output(0)


@converts("Mul", bottoms=(1, 2))
def mul(layer: Layer, x: Output, factor: Output | None = None) -> Output:
    """The product of two bottoms that broadcast as NumPy's arrays do; of one, with a blob of the shape mul_shape.

    Source: synopsys-caffe, mul_layer.cpp.
    """
    if factor is None:
        layer.expect_blobs(1)
        factor = constant(layer.blob(0, tuple(int(n) for n in layer.param("mul_param").mul_shape)))
    shapes = shape_of(x), shape_of(factor)
    fits = all(a == b or 1 in (a, b) for a, b in zip(reversed(shapes[0]), reversed(shapes[1]), strict=False))
    layer.require(fits, f"its factors have shapes {shapes[0]} and {shapes[1]}; sizes must be equal, or one of them 1")
    return ops.multiply(x, factor).output(0)
