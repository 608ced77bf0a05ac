"""InnerDistance and InnerProduct of NormFace: how far each input is from each of some points, or how much along it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.blobs import FloatArray
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import Shape, canonical_axis, constant, integers, reshape, shape_of

_MOST_GAPS = 2**24
"""Differences that are summed up one by one: of NormFace's 10,572 persons there would be 3 GB."""


@converts("InnerDistance", bottoms=(1, 2))
def inner_distance(layer: Layer, x: Output, others: Output | None = None) -> Output:
    """The distance of x (N, K) from each of M points: Σ(x - w)² or, with "L1", Σ|x - w| -> (N, M).

    The points are a blob (M, K), each divided by its length with `normalize` (of Σw² + 1e-6), or the second bottom.
    bias_term has no effect (happynear/caffe-windows, inner_distance_layer.cpp).
    """
    p = layer.param("inner_distance_param")
    leading, rows = _rows_of(layer, p, x)
    layer.require(not p.transpose, "transpose: true is not converted; its source has it for false alone")
    layer.require(p.distance_type in ("L2", "L1"), f"distance_type is {p.distance_type!r}; L2 and L1 are converted")
    points = _points(layer, p, rows, others, 1)
    (n_rows, k), (n_points, _) = shape_of(rows), shape_of(points)
    n_gaps = n_rows * k * n_points
    if p.distance_type == "L2" and n_gaps > _MOST_GAPS:
        return reshape(_by_product(rows, points), (*leading, n_points))
    layer.require(n_gaps <= _MOST_GAPS, f"has {n_gaps} differences to sum up; up to {_MOST_GAPS} are converted for L1")
    gap = ops.subtract(reshape(rows, (n_rows, 1, k)), reshape(points, (1, n_points, k)))
    size = ops.abs(gap) if p.distance_type == "L1" else ops.multiply(gap, gap)
    return reshape(ops.reduce_sum(size, integers([2])).output(0), (*leading, n_points))


def _by_product(x: Output, points: Output) -> Output:
    """Σ(x - w)² as Σx² + Σw² - 2·x·w, never below 0: right to 1e-6 of the sum of the squares, and small in memory."""
    squares, others = (ops.reduce_sum(ops.multiply(one, one), integers([1]), keep_dims=True) for one in (x, points))
    product = ops.multiply(ops.matmul(x, points, False, True), constant(2.0))
    total = ops.add(squares, ops.transpose(others, integers([1, 0])))
    return ops.maximum(ops.subtract(total, product), constant(0.0)).output(0)


@converts("NormFaceInnerProduct", bottoms=(1, 3))
def inner_product(layer: Layer, x: Output, *given: Output) -> Output:
    """y = x·Wᵀ + b:  x (N, K), W (M, K) a blob or the second bottom, b (M,) a blob or the third bottom -> (N, M).

    With `normalize` each row of the blob W is divided by its length, of Σw² + 1e-6; a bottom is not.  `transpose` is
    refused (happynear/caffe-windows, inner_product_layer.cpp).
    """
    p = layer.param("inner_product_param")
    leading, rows = _rows_of(layer, p, x)
    layer.require(not p.transpose, "transpose: true is not converted beside normalize or a bottom of weights")
    layer.require(len(given) < 2 or p.bias_term, "has a third bottom and bias_term: false; take one of them out")
    layer.require(
        len(given) != 1 or not p.bias_term,
        "has weights from a bottom and a bias of its own, which its source reads where there is none; write "
        "bias_term: false",
    )
    points = _points(layer, p, rows, given[0] if given else None, 2 if p.bias_term else 1)
    n_points = shape_of(points)[0]
    y = ops.matmul(rows, points, False, True).output(0)
    if p.bias_term:
        bias = reshape(given[1], (1, n_points)) if given else constant(layer.blob(1, (n_points,)).reshape(1, -1))
        y = ops.add(y, bias).output(0)
    return reshape(y, (*leading, n_points))


def _rows_of(layer: Layer, p: Any, x: Output) -> tuple[Shape, Output]:
    """The sizes of x before `axis`, and x (N, K) with what is from there on in a row."""
    shape = shape_of(x)
    axis = canonical_axis(layer, p.axis, len(shape))
    return shape[:axis], reshape(x, (prod(shape[:axis]), prod(shape[axis:])))


def _points(layer: Layer, p: Any, rows: Output, given: Output | None, n_blobs: int) -> Output:
    """The points (M, K): a bottom, or else the first of `n_blobs` blobs, divided by their lengths with `normalize`."""
    k = shape_of(rows)[1]
    if given is None:
        layer.require(p.num_output > 0, "num_output is missing; it needs one where its points are a blob")
        layer.expect_blobs(n_blobs)
        return constant(_normalized(layer.blob(0, (int(p.num_output), k)), p.normalize))
    shape = shape_of(given)
    layer.require(prod(shape) == shape[0] * k, f"its points have shape {shape}, and a row of its input {k} values")
    return reshape(given, (shape[0], k))


def _normalized(points: FloatArray, normalized: bool) -> FloatArray:
    """The rows of `points` (M, K), divided by their lengths if `normalized`."""
    if not normalized:
        return points
    lengths = np.sqrt(np.square(points).sum(axis=1, keepdims=True) + np.float32(1e-6))
    return np.asarray(points / lengths, np.float32)
