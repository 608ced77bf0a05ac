"""InnerDistance: how far each input is from each of some points."""

from __future__ import annotations

from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, reshape, shape_of


@converts("InnerDistance", bottoms=(1, 2))
def inner_distance(layer: Layer, x: Output, others: Output | None = None) -> Output:
    """The distance of x (N, K) from each of M points: Σ(x - w)² or, with "L1", Σ|x - w| -> (N, M).

    The points are a blob (M, K), each divided by its length with `normalize` (of Σw² + 1e-6), or the second bottom.
    bias_term has no effect (happynear/caffe-windows, inner_distance_layer.cpp).
    """
    p = layer.param("inner_distance_param")
    shape = shape_of(x)
    axis = canonical_axis(layer, p.axis, len(shape))
    k = prod(shape[axis:])
    layer.require(not p.transpose, "transpose: true is not converted; its source has it for false alone")
    layer.require(p.distance_type in ("L2", "L1"), f"distance_type is {p.distance_type!r}; L2 and L1 are converted")
    if others is None:
        layer.expect_blobs(1)
        points = np.asarray(layer.blob(0, (int(p.num_output), k)), np.float32)
        if p.normalize:
            points = points / np.sqrt(np.square(points).sum(axis=1, keepdims=True) + np.float32(1e-6))
        others = constant(points)
    n_points = shape_of(others)[0]
    layer.require(
        prod(shape_of(others)) == n_points * k,
        f"its points have shape {shape_of(others)} and its input {shape}; their sizes from axis {axis} on must be one",
    )
    gap = ops.subtract(reshape(x, (prod(shape[:axis]), 1, k)), reshape(others, (1, n_points, k)))
    size = ops.abs(gap) if p.distance_type == "L1" else ops.multiply(gap, gap)
    return reshape(ops.reduce_sum(size, integers([2])).output(0), (*shape[:axis], n_points))
