"""INT8 as OpenVINO must be shown it, so that real INT8 kernels run and give Intel Caffe's integers.

Values are integers, in FP32, from layer to layer. Activations go through a FakeQuantize of 256 levels, for s8 too: the
usual symmetric 255-level form is off by up to 1.3 % of the range on VNNI. Weights are an int8 constant behind Convert
and a Multiply by 1: without either, OpenVINO runs the layer in FP32 (resnet20: 1,640 images/s a core against 4,900).
In real units, q/scale, the same kernels run as fast, but OpenVINO merges the scales of a layer into one factor, and of
the integers of a ResNet-20 up to 3 % come out otherwise (scripts/bench/compare_ways.py).
"""

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output


def int8_weights(weight: NDArray[np.int8]) -> Output:
    """s8 weights (M, ...) as a graph constant, f32 to what reads it."""
    one = np.ones((len(weight), *[1] * (weight.ndim - 1)), np.float32)
    return ops.multiply(ops.convert(ops.constant(weight), "f32"), ops.constant(one)).output(0)


def round_fractions(x: Output) -> Output:
    """Averages of integers rounded with ties to even: f32 integers.

    An average of 2 x 2 integers is a tie one time in four, and a kernel that multiplies by 1/n may miss it by an ulp.
    Snapping to 1/4096 first makes ties exact and moves no average of up to 1024 values across one.
    """
    fine = np.float32(4096.0)
    snapped = ops.round(ops.multiply(x, fine), "half_to_even")
    return ops.round(ops.multiply(snapped, np.float32(1.0) / fine), "half_to_even").output(0)


def relu(x: Output, slope: float | None) -> Output:
    """x where it is positive, else x·slope; x as it is without a slope."""
    if slope is None:
        return x
    if slope == 0.0:
        return ops.relu(x).output(0)
    return ops.prelu(x, ops.constant(np.array([slope], np.float32))).output(0)
