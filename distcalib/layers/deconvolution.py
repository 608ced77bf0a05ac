"""Deconvolution: the transpose of a convolution (the up-sampling of FCN and SSD heads)."""

from __future__ import annotations

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.geometry import kernel_geometry
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import along, constant, shape_of


@converts("Deconvolution")
def deconvolution(layer: Layer, x: Output) -> Output:
    """From x (N, C, H, W), W (C, M/group, KH, KW), b (M,) to (N, M, H', W'); H' = stride·(H - 1) + extent - 2·pad.

    The weight is that of the convolution whose transpose this is: its first axis is the input's (deconv_layer.cpp).
    """
    p = layer.param("convolution_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(p.axis in (1, -3), f"axis={p.axis}; only axis=1 is converted")
    layer.require(p.num_output > 0, "num_output is missing; a Deconvolution needs it")
    layer.require(p.group > 0, "group=0; it must be at least 1")
    n_in, n_out, group = shape[1], p.num_output, p.group
    layer.require(n_in % group == 0, f"group={group} does not divide its {n_in} input channels")
    layer.require(n_out % group == 0, f"group={group} does not divide num_output={n_out}")
    layer.require(not p.relu, "relu inside a Deconvolution is not converted; a ReLU layer behind it is")
    geometry = kernel_geometry(layer)
    layer.require(geometry.end is None, "pad_l, pad_r, pad_t and pad_b are not converted here; pad is")
    size = geometry.deconv_size((shape[2], shape[3]))
    layer.require(min(size) > 0, f"its output would be {size[0]}x{size[1]}; lower pad")
    layer.expect_blobs(1 + p.bias_term)
    weight = layer.blob(0, (n_in, n_out // group, *geometry.kernel))
    strides, dilations, pads = list(geometry.stride), list(geometry.dilation), list(geometry.pad)
    if group == 1:
        y = ops.convolution_backprop_data(
            x, constant(weight), strides, pads_begin=pads, pads_end=pads, dilations=dilations
        )
    else:
        grouped = constant(weight.reshape(group, n_in // group, *weight.shape[1:]))
        y = ops.group_convolution_backprop_data(
            x, grouped, strides, pads_begin=pads, pads_end=pads, dilations=dilations
        )
    if not p.bias_term:
        return y.output(0)
    return ops.add(y, along(layer.blob(1, (n_out,)), 1, 4)).output(0)
