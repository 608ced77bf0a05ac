"""BN, which two families of forks have under one name: SegNet's with two blobs, PSPNet's and ICNet's with four.

The parameters decide: bn_mode, scale_filler and shift_filler are SegNet's, all others the other's; where there are none
of either, the number of blobs in the caffemodel."""

from __future__ import annotations

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import BNParameter
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, shape_of

_SEGNET = ("bn_mode", "scale_filler", "shift_filler")
_OTHER = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")
_SEGNET_EPS = 1e-9
"""var_eps_ of SegNet's bn_layer.cpp, which no parameter sets."""


@converts("BN")
def bn(layer: Layer, x: Output) -> Output:
    """From x (N, C, H, W) to the same shape; blobs are (1, C, 1, 1).

    SegNet (alexgkendall/caffe-segnet, bn_layer.cpp): scale·x + shift with bn_mode INFERENCE, whose blobs have the
    statistics in them; with LEARN, the default, x is normalized by mean and variance of its batch first, in TEST too.
    PSPNet, ICNet (yjxiong/caffe, bn_layer.cpp): slope·(x - mean)/sqrt(variance + eps) + bias, blobs slope, bias, mean,
    variance.
    """
    p = layer.param("bn_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    one_each = (1, shape[1], 1, 1)
    segnet, other = (any(p.HasField(name) for name in names) for names in (_SEGNET, _OTHER))
    layer.require(
        not (segnet and other), "bn_param has fields of SegNet's BN and of another's; keep those of the net's own Caffe"
    )
    if segnet or (not other and layer.n_blobs == 2):
        layer.expect_blobs(2)
        scale, shift = layer.blob(0, one_each), layer.blob(1, one_each)
        if p.bn_mode == BNParameter.LEARN:
            x = ops.mvn(x, integers([0, 2, 3]), True, _SEGNET_EPS, "inside_sqrt").output(0)
        return ops.add(ops.multiply(x, constant(scale)), constant(shift)).output(0)
    layer.expect_blobs(4)
    slope, bias, mean, variance = (layer.blob(i, one_each).astype(np.float64) for i in range(4))
    layer.require(
        bool(np.all(variance + p.eps > 0.0)), "its variance + eps is not above 0; give the caffemodel of this prototxt"
    )
    a = slope / np.sqrt(variance + p.eps)
    return ops.add(ops.multiply(x, constant(a)), constant(bias - a * mean)).output(0)
