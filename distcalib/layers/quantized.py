"""INT8 as OpenVINO must be told it, so that real INT8 kernels run and give Intel Caffe's integers.

Activations go through a FakeQuantize of 256 levels, for s8 too: the usual symmetric 255-level form is off by up to
1.3 % of the range on VNNI. Weights are quantized here and given as an int8 constant behind Convert and Multiply: FP32
constants that lie on the grid run as FP32 (resnet20: 1,640 images/s a core against 4,900). Measured; see design.md,
decision 3.
"""

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.quantize.storage import Grid, weight_integers

Array = NDArray[np.float32]


def round_to_grid(x: Output, grid: Grid, unit: float = 1.0) -> Output:
    """rint(x·scale), saturated, as real values: f32 -> f32 on the grid.

    With `unit` the input is in units of 1/(scale·unit): force_u8_input's x holds the integers already (unit = 1/scale).
    """
    low, high = np.float32(grid.low / grid.scale), np.float32(grid.high / grid.scale)
    levels = grid.high - grid.low + 1
    return ops.fake_quantize(x, low / np.float32(unit), high / np.float32(unit), low, high, levels).output(0)


def int8_weights(weight: Array, scales: NDArray[np.float64]) -> Output:
    """s8 weights rint(w·scale) as a graph constant that stands for w: W (M, ...) f32, scales (M,), 0 for an all-zero
    channel.
    """
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    step = (1.0 / np.where(column == 0.0, 1.0, column)).astype(np.float32)
    constant = ops.convert(ops.constant(weight_integers(weight, scales)), "f32")
    return ops.multiply(constant, ops.constant(step)).output(0)


def grid_bias(bias: Array, scale_in: float, scales: NDArray[np.float64]) -> Array:
    """Bias (M,) rounded to the int32 grid of the accumulator; a channel of scale 0 keeps rint(b) (golden:
    zero_channel).
    """
    unit = np.where(scales == 0.0, 1.0, scale_in * scales)
    return np.asarray(np.rint(bias * unit) / unit, np.float32)


def round_again(x: Output, old: Grid, new: Grid) -> Output:
    """x, which lies on the grid `old`, on the grid `new`: rint(q·new/old), saturated; f32 -> f32.

    Spelled out in integers: a FakeQuantize computes in x's units and misses the ties, of which a ratio of 0.83 has
    one in fifty q (golden chain_requantized: 3.4 % of the values one step off).
    """
    integers = ops.round(ops.multiply(x, np.float32(old.scale)), "half_to_even")
    ratio = np.float32(new.scale) / np.float32(old.scale)
    return _from_integers(ops.round(ops.multiply(integers, ratio), "half_to_even").output(0), new)


def round_average(x: Output, grid: Grid) -> Output:
    """An average of values on `grid`, rounded back to it with ties to even: f32 -> f32.

    An average of 2 x 2 integers is a tie one time in four, and x·scale in float32 misses it by an ulp (golden
    pool_ave_then_conv: 9 % of the values one step off). Snapping to 1/4096 first makes ties exact and moves no
    average of up to 1024 values across one.
    """
    return _from_integers(round_fractions(x, grid.scale), grid)


def round_fractions(x: Output, scale: float = 1.0) -> Output:
    """x·scale, which are averages of integers, rounded with ties to even: f32 integers; see round_average."""
    fine = np.float32(4096.0)
    snapped = ops.round(ops.multiply(x, np.float32(scale) * fine), "half_to_even")
    return ops.round(ops.multiply(snapped, np.float32(1.0) / fine), "half_to_even").output(0)


def _from_integers(integers: Output, grid: Grid) -> Output:
    """Integers of the grid as the values they stand for, saturated, in the form that lets an INT8 kernel follow."""
    return round_to_grid(ops.multiply(integers, np.float32(1.0 / grid.scale)).output(0), grid)
