"""LRN: each element divided by a power of the energy around it, across channels or within its own.

The two regions are two formulas in Caffe: across channels alpha is divided by the length and k is added, within a
channel alpha is divided by the area and 1 is added whatever k says (lrn_layer.cpp builds it of a pooling layer).
"""

from __future__ import annotations

import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import LRNParameter
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, shape_of


@converts("LRN")
def lrn(layer: Layer, x: Output) -> Output:
    """For n=local_size: x / (k + alpha/n·Σx²)^beta over n channels, or x / (1 + alpha·mean x²)^beta over n·n pixels.

    The shape is (N, C, H, W).
    """
    p = layer.param("lrn_param")
    rank, size = len(shape_of(x)), p.local_size
    layer.require(rank == 4, f"its input has {rank} axes; 4 (N, C, H, W) are converted")
    layer.require(size % 2 == 1, f"local_size={size}; it must be odd")
    if p.norm_region == LRNParameter.ACROSS_CHANNELS:
        return ops.lrn(x, integers([1]), p.alpha, p.beta, p.k, size).output(0)
    pad = (size - 1) // 2
    # Padding counts in Caffe's average, and with stride 1 no window overhangs it: the divisor is the whole area.
    square = ops.multiply(x, x)
    mean = ops.avg_pool(square, [1, 1], [pad, pad], [pad, pad], [size, size], exclude_pad=False)
    energy = ops.add(ops.multiply(mean, constant(p.alpha)), constant(1.0))
    return ops.multiply(x, ops.power(energy, constant(-p.beta))).output(0)
