"""BatchNorm: with the statistics of training, or of the batch itself if use_global_stats is false.

Caffe stores running sums: mean and variance are blobs 0 and 1 divided by blob 2, and a factor of 0 means a divisor of
nothing, so both are 0. Intel Caffe merges Scale into it: blobs 3 and 4 are gamma and beta, present if use_weight_bias
and bias_term are set, both by default; a caffemodel of plain Caffe has 3 blobs and then gamma is 1 and beta 0.
"""

from __future__ import annotations

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.blobs import FloatArray
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import along, constant, integers, shape_of
from distcalib.quantize.fusion import batch_norm_affine, uses_global_stats


@converts("BatchNorm")
def batch_norm(layer: Layer, x: Output) -> Output:
    """(x - mean) / sqrt(variance + eps) · gamma + beta:  x (N, C, ...), all others (C,), or one number for x (N,)."""
    p = layer.param("batch_norm_param")
    rank = len(shape_of(x))
    layer.require(rank >= 1, "its input has no axes; at least one (N) is needed")
    n_channels = shape_of(x)[1] if rank > 1 else 1
    axis = 1 if rank > 1 else 0
    if uses_global_stats(layer.proto):
        scale, shift = batch_norm_affine(layer.proto, stored_blobs(layer, n_channels))
        y = ops.multiply(x, along(scale.astype(np.float32), axis, rank)).output(0)
        y = ops.add(y, along(shift.astype(np.float32), axis, rank)).output(0)
    else:
        y = _normalize_by_batch(layer, x, axis)
        n_blobs = _count(layer)
        if n_blobs > 3:
            gamma, beta = _gamma_beta(layer, n_blobs, n_channels)
            y = ops.multiply(y, along(gamma, axis, rank)).output(0)
            y = ops.add(y, along(beta, axis, rank)).output(0)
    return ops.relu(y).output(0) if p.relu else y


def _count(layer: Layer) -> int:
    """The number of blobs to read: those stored, of which the parameters allow 3, 4 or 5."""
    p = layer.param("batch_norm_param")
    allowed = 3 + (1 + p.bias_term if p.use_weight_bias else 0)
    layer.expect_blobs(allowed)
    layer.require(
        not p.scale_bias or layer.n_blobs in (None, 5),
        f"scale_bias is true and the caffemodel has {layer.n_blobs} blobs; NVIDIA's Caffe has 5 then",
    )
    return allowed if layer.n_blobs is None else layer.n_blobs


def _gamma_beta(layer: Layer, n_blobs: int, n_channels: int) -> tuple[FloatArray, FloatArray]:
    gamma = layer.blob(3, (n_channels,)) if n_blobs > 3 else np.ones(n_channels, np.float32)
    beta = layer.blob(4, (n_channels,)) if n_blobs > 4 else np.zeros(n_channels, np.float32)
    return gamma, beta


def stored_blobs(layer: Layer, n_channels: int) -> tuple[FloatArray, ...]:
    """Mean, variance, factor, gamma and beta, as many of them as there are; what batch_norm_affine reads."""
    n_blobs = max(2, _count(layer))  # where mean or variance is missing, say so
    return tuple(layer.blob(i, (1,) if i == 2 else (n_channels,)) for i in range(n_blobs))


def _normalize_by_batch(layer: Layer, x: Output, axis: int) -> Output:
    """Take out the mean and the (biased) variance of each channel over the batch."""
    p = layer.param("batch_norm_param")
    shape = shape_of(x)
    layer.require(
        p.stats_batch_size in (0, shape[0]),
        f"stats_batch_size={p.stats_batch_size} in a batch of {shape[0]} is not converted; 0, the whole batch, is",
    )
    axes = integers([i for i in range(len(shape)) if i != axis or len(shape) == 1])
    centred = ops.subtract(x, ops.reduce_mean(x, axes, keep_dims=True)).output(0)
    variance = ops.reduce_mean(ops.multiply(centred, centred), axes, keep_dims=True)
    return ops.divide(centred, ops.sqrt(ops.add(variance, constant(p.eps)))).output(0)
