"""How the integers of INT8 layers are computed: by the CPU's own INT8 kernels, or exactly in FP32 ones.

Without VNNI, INT8 kernels add pairs of products into 16 bits that saturate, so what they answer is not what the file
does elsewhere. FP32 kernels can answer in their place: products of u8 and s8 and their sums are integers, and FP32
holds each integer up to 2^24. Emulation computes in units of the grid, not in real values, so that nothing but the one
multiplication by the output scale is rounded before the value is stored. The order of operations is that of mkl-dnn
0.18 (gemm_x8s8s32x_convolution.cpp): accumulator to f32, plus bias, times scale, plus residual times its scale, ReLU,
round to even, saturate.
"""

from dataclasses import dataclass

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe import caffe_pb2
from distcalib.engine.exact_sums import exact_product
from distcalib.layers import Layer, quantized
from distcalib.layers.products import along_channels, product
from distcalib.quantize.storage import Grid, input_grid, weight_integers

Array = NDArray[np.float32]
Param = caffe_pb2.QuantizationParameter


@dataclass(frozen=True)
class Arithmetic:
    """What computes the INT8 layers of a run: FP32 kernels if `emulated`, else the CPU's INT8 kernels.

    `halved`: the weights of convolutions with s8 input are rounded at half their scale, as mkl-dnn 0.18 does on CPUs
    without VNNI (simple_reorder.hpp, adj_scale), so that pairs of products fit 16 bits: 255 · 64 · 2 < 2^15.
    """

    emulated: bool = False
    halved: bool = False


NATIVE = Arithmetic()


class Integers:
    """How values on a grid go through the graph: as their integers, f32.

    In front of each scale stands what keeps OpenVINO from multiplying it into the weights or the bias, which would be
    integers no more: a Round that changes nothing behind sums, a Clamp behind FP32 layers.
    """

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._emulated, self._halved = arithmetic.emulated, arithmetic.halved

    def take(self, x: Output, grid: Grid, unit: float = 1.0) -> Output:
        """Real values rounded to `grid`: rint(x·scale·unit), saturated."""
        scale = np.float32(grid.scale * unit)
        near = ops.clamp(x, float((grid.low - 1) / scale), float((grid.high + 1) / scale))
        return self._saturated(ops.multiply(near, scale).output(0), grid)

    def real(self, x: Output, grid: Grid) -> Output:
        """The real values that a value on `grid` stands for, f32."""
        return ops.multiply(x, np.float32(1.0 / grid.scale)).output(0)

    def again(self, x: Output, old: Grid, new: Grid) -> Output:
        """A value on `old` rounded to `new`: rint(q·new/old), saturated."""
        return self._saturated(ops.multiply(x, np.float32(new.scale) / np.float32(old.scale)).output(0), new)

    def between(self, x: Output, grid: Grid) -> Output:
        """What a layer made between the steps of `grid`, such as averages, rounded back to it with ties to even."""
        return self._bounded(quantized.round_fractions(x), grid)

    def multiply(
        self, layer: Layer, x: Output, weight: Array, bias: Array, param: Param, grid: Grid | None, slope: float | None
    ) -> Output:
        """x, on the input grid of `param`, times the weights (M, ...) plus the bias (M,), not rounded yet.

        In units of `grid`, that it will be stored on; None: real values.  `slope`: the negative slope of the ReLU
        that follows at once, None where none does.
        """
        scales = weight_scales(layer, param, len(weight))
        share = share_of_scale(layer, param, self._halved)
        integers = weight_integers(weight, scales * share)
        source = input_grid(param)
        if self._emulated or (self._halved and _pairs_positions(layer, weight)):
            total = exact_product(layer, x, integers, max(-source.low, source.high))
        else:
            total = product(layer, x, quantized.int8_weights(integers))
            total.get_node().set_friendly_name(layer.name)
        if share != 1.0:
            total = ops.multiply(total, np.float32(1.0 / share)).output(0)
        if np.any(bias):
            total = ops.add(total, ops.constant(along_channels(layer, bias_integers(bias, param, scales)))).output(0)
        # A plain ReLU commutes with the scale, and keeps it apart as well as a Round.
        total = (ops.relu(total) if slope == 0.0 else ops.round(total, "half_to_even")).output(0)
        step = output_scales(param, scales, 1.0 if grid is None else grid.scale)
        y = ops.multiply(total, ops.constant(along_channels(layer, step))).output(0)
        return quantized.relu(y, slope) if slope else y

    def plus(self, y: Output, residual: Output, old: Grid, grid: Grid) -> Output:
        """What `multiply` made for `grid`, plus a value on `old`."""
        return ops.add(y, ops.multiply(residual, np.float32(grid.scale) / np.float32(old.scale))).output(0)

    def store(self, y: Output, grid: Grid) -> Output:
        """What `multiply` made for `grid`, rounded to it and saturated."""
        return self._saturated(y, grid)

    def _saturated(self, x: Output, grid: Grid) -> Output:
        """The nearest integers of `grid`, ties to even."""
        return self._bounded(ops.round(x, "half_to_even").output(0), grid)

    def _bounded(self, x: Output, grid: Grid) -> Output:
        """Integers saturated to `grid`: natively by the FakeQuantize that OpenVINO lowers INT8 kernels by."""
        if self._emulated:
            return ops.clamp(x, grid.low, grid.high).output(0)
        low, high = np.float32(grid.low), np.float32(grid.high)
        return ops.fake_quantize(x, low, high, low, high, grid.high - grid.low + 1).output(0)


def _pairs_positions(layer: Layer, weight: Array) -> bool:
    """Whether kernels of AVX-512 pair positions of the kernel, where mkl-dnn 0.18 pairs channels: of one channel.

    Its neighbour is then a channel of zeros, so the sums of a Skylake are exact (tests/engine/test_native_kernels.py).
    """
    return layer.type == "Convolution" and weight.shape[1] == 1 and layer.proto.convolution_param.group == 1


def weight_scales(layer: Layer, param: Param, n_out: int) -> NDArray[np.float64]:
    """The scale of each of `n_out` output channels.  Raises UnsupportedError where their number does not fit."""
    scales = np.array(param.scale_params, np.float64)
    layer.require(
        len(scales) in (1, n_out), f"{len(scales)} scale_params for {n_out} output channels; 1 or {n_out} fit"
    )
    return np.broadcast_to(scales, n_out)


def share_of_scale(layer: Layer, param: Param, halved: bool) -> float:
    """The part of their scale that the weights are rounded at; see Arithmetic."""
    return 0.5 if halved and layer.type == "Convolution" and param.is_negative_input else 1.0


def bias_integers(bias: Array, param: Param, scales: NDArray[np.float64]) -> Array:
    """Bias (M,) as integers of the accumulator, f32: rint(b·scale_in·scale_params); of scale 0: rint(b)."""
    unit = np.where(scales == 0.0, 1.0, np.float32(param.scale_in[0]) * scales.astype(np.float32))
    return np.rint(bias * unit.astype(np.float32))


def output_scales(param: Param, scales: NDArray[np.float64], scale_out: float) -> Array:
    """scale_out / (scale_in · scale_params), (M,) f32; scale_out alone where a channel's scale is 0.

    In f32 as Intel Caffe divides (mkldnn_convolution_layer.cpp, InitConvolutionFwd).
    """
    out, unit = np.float32(scale_out), np.float32(param.scale_in[0]) * scales.astype(np.float32)
    factors: Array = np.where(unit == 0.0, out, out / np.where(unit == 0.0, np.float32(1.0), unit)).astype(np.float32)
    return factors
