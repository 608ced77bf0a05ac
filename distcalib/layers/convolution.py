"""Convolution: y = x * W + b, groups, dilation, h/w forms; FP32 or INT8.

Weights arrive as a graph node, because what they are made of (FP32 constant, or int8 constant with its scale) decides
which kernel runs; BatchNorm and Scale are folded into them before. See engine/builder.py.
"""

import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe import caffe_pb2
from distcalib.layers.geometry import AxesGeometry, Geometry, axes_geometry, kernel_geometry
from distcalib.layers.registry import Layer


def weight_shape(layer: Layer, n_channels: int, n_axes: int = 2) -> tuple[int, ...]:
    """Shape of W for an input of `n_channels` over `n_axes` axes of positions: (M, C/group, KH, KW) of images."""
    param = layer.proto.convolution_param
    group = param.group
    layer.require(param.num_output > 0, "num_output is missing; a Convolution needs it")
    layer.require(group > 0, "group=0; it must be at least 1")
    layer.require(n_channels % group == 0, f"group={group} does not divide its {n_channels} input channels")
    layer.require(param.num_output % group == 0, f"group={group} does not divide num_output={param.num_output}")
    layer.require(param.axis in (1, -1 - n_axes), f"axis={param.axis}; only axis=1 is converted")
    layer.require(
        param.fusion_type == caffe_pb2.ConvolutionParameter.NONE_FUSION,
        "fusion_type is set: this net was saved after Intel Caffe compiled it; give the original prototxt",
    )
    return param.num_output, n_channels // group, *_geometry(layer, n_axes).kernel


def convolve(layer: Layer, x: Output, weight: Output) -> Output:
    """x (N, C, H, W), W (M, C/group, KH, KW) -> (N, M, H', W'); H' = floor((H + 2p - d·(KH-1) - 1)/s) + 1.

    A grouped W must come as (group, M/group, C/group, KH, KW).  Over 1 or 3 axes of positions likewise.
    """
    geometry = _geometry(layer, len(x.get_shape()) - 2)
    strides, dilations = list(geometry.stride), list(geometry.dilation)
    begins, ends = list(geometry.pad), list(geometry.pad_end)
    make = ops.convolution if layer.proto.convolution_param.group == 1 else ops.group_convolution
    return make(x, weight, strides, begins, ends, dilations).output(0)


def _geometry(layer: Layer, n_axes: int) -> Geometry | AxesGeometry:
    return kernel_geometry(layer) if n_axes == 2 else axes_geometry(layer, n_axes)
