"""MVN and Normalize: each record, or each channel or pixel of it, brought to mean 0, variance 1 or length 1.

Epsilon stands in different places: MVN adds it to the deviation, Normalize to the square of the length.
"""

from __future__ import annotations

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import along, constant, integers, shape_of


@converts("MVN")
def mvn(layer: Layer, x: Output) -> Output:
    """(x - mean) / (deviation + eps) over the pixels of a channel, or of all; x (N, C, H, W) (mvn_layer.cpp)."""
    p = layer.param("mvn_param")
    rank = len(shape_of(x))
    layer.require(rank == 4, f"its input has {rank} axes; 4 (N, C, H, W) are converted")
    axes = integers([1, 2, 3] if p.across_channels else [2, 3])
    centred = ops.subtract(x, ops.reduce_mean(x, axes, keep_dims=True)).output(0)
    if not p.normalize_variance:
        return centred
    deviation = ops.sqrt(ops.reduce_mean(ops.multiply(centred, centred), axes, keep_dims=True))
    return ops.divide(centred, ops.add(deviation, constant(p.eps))).output(0)


@converts("Normalize")
def normalize(layer: Layer, x: Output) -> Output:
    """x / sqrt(Σx² + eps) · scale over all of a record, or over the channels of a pixel if across_spatial is false.

    x (N, C, H, W), scale (C,), or one number if channel_shared (normalize_layer.cpp of SSD).
    """
    p = layer.param("norm_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.expect_blobs(1)
    scale = layer.blob(0, () if p.channel_shared else shape[1:2])
    axes = integers([1, 2, 3] if p.across_spatial else [1])
    energy = ops.reduce_sum(ops.multiply(x, x), axes, keep_dims=True)
    unit = ops.divide(x, ops.sqrt(ops.add(energy, constant(p.eps))))
    return ops.multiply(unit, along(scale, 1, 4)).output(0)
