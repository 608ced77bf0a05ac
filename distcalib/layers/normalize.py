"""MVN and Normalize: each record, or each channel or pixel of it, brought to mean 0, variance 1 or length 1.

Epsilon stands in different places: MVN adds it to the deviation, Normalize to the square of the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import along, constant, integers, reshape, shape_of


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


@converts("Normalize", tops=(1, 2))
def normalize(layer: Layer, x: Output) -> Output | Sequence[Output]:
    """x / sqrt(Σx² + eps) · scale over all of a record, or over the channels of a pixel if across_spatial is false.

    x (N, C, H, W), scale (C,), or one number if channel_shared (normalize_layer.cpp of SSD).  With a normalize_param,
    or normalize_type L1 or L2 in its softmax_param, or without any norm_param of an input (N, C), it is NormFace's: x
    (N, C, ...) divided by the length over the channels, a second top, which is sqrt(Σx² + 1e-6), or Σ|x| + 1e-6 of L1
    (happynear/caffe-windows, normalize_layer.cpp).
    """
    old = layer.param("softmax_param").normalize_type
    flat = len(shape_of(x)) == 2 and not layer.proto.HasField("norm_param")
    if layer.proto.HasField("normalize_param") or old in ("L1", "L2") or flat:
        own = layer.param("normalize_param").normalize_type
        return _by_length(layer, x, old if old in ("L1", "L2") and not layer.proto.HasField("normalize_param") else own)
    layer.require(len(layer.tops) == 1, "has two tops; the length is one of NormFace's, with a normalize_param")
    p = layer.param("norm_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.expect_blobs(1)
    scale = layer.blob(0, () if p.channel_shared else shape[1:2])
    axes = integers([1, 2, 3] if p.across_spatial else [1])
    energy = ops.reduce_sum(ops.multiply(x, x), axes, keep_dims=True)
    unit = ops.divide(x, ops.sqrt(ops.add(energy, constant(p.eps))))
    return ops.multiply(unit, along(scale, 1, 4)).output(0)


@converts("ChannelScale", bottoms=(2, 2))
def channel_scale(layer: Layer, x: Output, scale: Output) -> Output:
    """x (N, C, ...) times scale (N, 1, ...): one factor for all channels of a place.

    (happynear/caffe-windows, channel_scale_layer.cpp)
    """
    p, shape, factors = layer.param("channel_scale_param"), shape_of(x), shape_of(scale)
    layer.require(p.do_forward and not p.global_scale, "do_forward: false and global_scale are not converted")
    layer.require(
        len(shape) >= 2 and prod(factors) == prod(shape) // max(1, shape[1]),
        f"its bottoms have shapes {shape} and {factors}; a factor for each place, none for channels, is needed",
    )
    return ops.multiply(x, reshape(scale, (shape[0], 1, *shape[2:]))).output(0)


def _by_length(layer: Layer, x: Output, kind: str) -> Sequence[Output]:
    """NormFace's: x and the length of each place."""
    layer.require(kind in ("L1", "L2"), f'normalize_type="{kind}" is not converted; "L1" and "L2" are')
    layer.require(len(shape_of(x)) >= 2, f"its input has {len(shape_of(x))} axes; at least 2 (N, C) are needed")
    layer.expect_blobs(0)
    parts = ops.abs(x) if kind == "L1" else ops.multiply(x, x)
    total = ops.add(ops.reduce_sum(parts, integers([1]), keep_dims=True), constant(1e-6))
    length = total if kind == "L1" else ops.sqrt(total)
    return [ops.divide(x, length).output(0), length.output(0)][: len(layer.tops)]
