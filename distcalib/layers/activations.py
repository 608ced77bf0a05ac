"""Layers that treat every element alike; all keep the shape of their bottom.

What follows from parameters alone is computed in float64 and rounded once; Caffe rounds each step to float32, so that
the two differ by a last bit at times.
"""

from __future__ import annotations

import math

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, shape_of


@converts("ReLU")
def relu(layer: Layer, x: Output) -> Output:
    """max(x, 0) + negative_slope·min(x, 0).

    `fuse` is Intel Caffe's note that a BatchNorm before it has the ReLU already; doing it twice changes nothing.
    """
    slope = layer.param("relu_param").negative_slope
    if slope == 0.0:
        return ops.relu(x).output(0)
    return ops.prelu(x, constant(np.array([slope]))).output(0)


@converts("PReLU")
def prelu(layer: Layer, x: Output) -> Output:
    """max(x, 0) + slope·min(x, 0):  x (N, C, ...), slope (C,), or one number if `channel_shared`."""
    shape = shape_of(x)
    layer.require(len(shape) >= 2, f"its input has {len(shape)} axes; at least 2 (N, C) are needed")
    layer.expect_blobs(1)
    slope = layer.blob(0, () if layer.param("prelu_param").channel_shared else shape[1:2])
    return ops.prelu(x, constant(slope.reshape(-1))).output(0)


@converts("ELU")
def elu(layer: Layer, x: Output) -> Output:
    """Positive x as they are, alpha·(eˣ - 1) for the others."""
    return ops.elu(x, layer.param("elu_param").alpha).output(0)


@converts("Sigmoid")
def sigmoid(layer: Layer, x: Output) -> Output:
    """1 / (1 + e⁻ˣ)."""
    return ops.sigmoid(x).output(0)


@converts("TanH")
def tanh(layer: Layer, x: Output) -> Output:
    """The hyperbolic tangent."""
    return ops.tanh(x).output(0)


@converts("AbsVal")
def abs_val(layer: Layer, x: Output) -> Output:
    """|x|."""
    return ops.abs(x).output(0)


@converts("BNLL")
def bnll(layer: Layer, x: Output) -> Output:
    """The logarithm of 1 + eˣ."""
    return ops.softplus(x).output(0)


@converts("Swish")
def swish(layer: Layer, x: Output) -> Output:
    """The product of x and the sigmoid of beta·x."""
    return ops.swish(x, constant(layer.param("swish_param").beta)).output(0)


@converts("ReLU6")
def relu6(layer: Layer, x: Output) -> Output:
    """The least of 6 and max(x, 0) + negative_slope·min(x, 0), of relu6_param (eric612/MobileNet-YOLO)."""
    slope = layer.param("relu6_param").negative_slope
    y = ops.relu(x) if slope == 0.0 else ops.prelu(x, constant(np.array([slope], np.float32)))
    return ops.minimum(y, constant(6.0)).output(0)


@converts("Clip")
def clip(layer: Layer, x: Output) -> Output:
    """The nearest of the values from `min` to `max`, of which both must be given (BVLC, clip_layer.cpp)."""
    p = layer.param("clip_param")
    layer.require(p.HasField("min") and p.HasField("max"), "clip_param lacks min or max; give both")
    return ops.maximum(constant(p.min), ops.minimum(x, constant(p.max))).output(0)


@converts("Mish")
def mish(layer: Layer, x: Output) -> Output:
    """The product of x and tanh(log(1 + exp(x))): YOLO v4's (synopsys-caffe, mish_layer.cpp)."""
    return ops.mish(x).output(0)


@converts("HardSwish")
def hard_swish(layer: Layer, x: Output) -> Output:
    """The product of x and min(max(x + 3, 0), 6)/6: MobileNet v3's, which the forks that have the layer share."""
    gate = ops.minimum(ops.maximum(ops.add(x, constant(3.0)), constant(0.0)), constant(6.0))
    return ops.divide(ops.multiply(x, gate), constant(6.0)).output(0)


@converts("Threshold")
def threshold(layer: Layer, x: Output) -> Output:
    """1 where x is above the threshold, 0 elsewhere."""
    above = ops.greater(x, constant(layer.param("threshold_param").threshold))
    return ops.convert(above, "f32").output(0)


@converts("Power")
def power(layer: Layer, x: Output) -> Output:
    """(shift + scale·x) ^ power; the constant shift ^ power if scale or power is 0, whatever x is, as in Caffe."""
    p = layer.param("power_param")
    if p.scale == 0.0 or p.power == 0.0:
        value = 1.0 if p.power == 0.0 else _power(layer, p.shift, p.power)
        return ops.broadcast(constant(value), integers(shape_of(x))).output(0)
    y = _affine(x, p.scale, p.shift)
    if p.power == 1.0:
        return y
    if p.power == 2.0:
        return ops.multiply(y, y).output(0)
    return ops.power(y, constant(p.power)).output(0)


@converts("Exp")
def exp(layer: Layer, x: Output) -> Output:
    """Base ^ (shift + scale·x); base -1 stands for e."""
    p = layer.param("exp_param")
    log_base = _log_base(layer, p.base)
    return ops.exp(_affine(x, log_base * p.scale, log_base * p.shift)).output(0)


@converts("Log")
def log(layer: Layer, x: Output) -> Output:
    """The logarithm of shift + scale·x to `base`; base -1 stands for e."""
    p = layer.param("log_param")
    log_base = _log_base(layer, p.base)
    layer.require(log_base != 0.0, "base=1; a logarithm needs another base")
    y = ops.log(_affine(x, p.scale, p.shift)).output(0)
    return y if p.base == -1.0 else ops.multiply(y, constant(1.0 / log_base)).output(0)


def _affine(x: Output, scale: float, shift: float) -> Output:
    """scale·x + shift, without the operations that change nothing."""
    if scale != 1.0:
        x = ops.multiply(x, constant(scale)).output(0)
    if shift != 0.0:
        x = ops.add(x, constant(shift)).output(0)
    return x


def _power(layer: Layer, base: float, exponent: float) -> float:
    whole = float(exponent).is_integer()
    layer.require(base > 0.0 or (base < 0.0 and whole) or (base == 0.0 and exponent > 0.0), _NOT_A_NUMBER)
    return float(math.pow(base, exponent))


def _log_base(layer: Layer, base: float) -> float:
    layer.require(base == -1.0 or base > 0.0, f"base={base:g}; it must be above zero, or -1 for e")
    return 1.0 if base == -1.0 else math.log(base)


_NOT_A_NUMBER = "shift ^ power with scale=0 is not a number; correct power_param"
