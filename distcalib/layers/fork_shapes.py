"""Layers of forks that put values elsewhere: ResizeNearestNeighbor, ResizeBilinear, UpsampleDarknet, Pad, Transpose and
Reverse; and Im2col of BVLC.

A resize does rows and columns apart, by weights that follow from the shapes: it is two products with constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers.blobs import FloatArray
from distcalib.layers.geometry import kernel_geometry
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, reshape, shape_of

_QUANTIZED = ("input_scale", "output_scale", "input_zero_point", "output_zero_point", "saturate", "quantize_method")
Weights = Callable[[Any, NDArray[np.float32], float, int], FloatArray]
"""Of the parameters, the places out (n,), the size in over the size out, and the size in: weights (n_out, n_in)."""


@converts("ResizeNearestNeighbor")
def resize_nearest_neighbor(layer: Layer, x: Output) -> Output:
    """Each value is that at floor(place·in/out): x (N, H, W, C), or (N, C, H, W) with `data_format: "NCHW"`.

    The size is output_height and output_width, or floor(size·scale_height) and so on.  With align_corners the place is
    rounded, of sizes less 1; half_pixel_centers adds half a pixel to it, half_pixel_onnx takes it off again behind the
    product.  (synopsys-caffe, resize_nearest_neighbor_layer.cpp)
    """
    p = layer.param("resize_nearest_neighbor_param")
    given = p.align_corners + p.half_pixel_centers + p.half_pixel_onnx
    layer.require(given <= 1, "align_corners, half_pixel_centers and half_pixel_onnx exclude each other; keep one")
    return _resized(layer, p, x, _nearest)


@converts("ResizeBilinear")
def resize_bilinear(layer: Layer, x: Output) -> Output:
    """The same between the two nearest values; pytorch_half_pixel is half_pixel_onnx, but for an output of one.

    (synopsys-caffe, resize_bilinear_layer.cpp)
    """
    p = layer.param("resize_bilinear_param")
    given = p.align_corners + p.half_pixel_centers + p.pytorch_half_pixel
    layer.require(given <= 1, "align_corners, half_pixel_centers and pytorch_half_pixel exclude each other; keep one")
    wrong = [name for name in _QUANTIZED if p.HasField(name) and getattr(p, name) not in (0, 1)]
    layer.require(not wrong, f"{', '.join(wrong)}: quantized values are not converted; leave them out")
    return _resized(layer, p, x, _bilinear)


def _resized(layer: Layer, p: Any, x: Output, weights: Weights) -> Output:
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 are converted")
    layer.require(p.data_format in ("NHWC", "NCHW"), f'data_format="{p.data_format}"; "NHWC" and "NCHW" are converted')
    last = p.data_format == "NHWC"
    maps = ops.transpose(x, integers([0, 3, 1, 2])).output(0) if last else x
    for axis, name in ((2, "height"), (3, "width")):
        n_in = shape_of(maps)[axis]
        scaled = int(np.floor(np.float32(n_in) * np.float32(getattr(p, f"scale_{name}"))))
        n_out = getattr(p, f"output_{name}") if p.HasField(f"output_{name}") else scaled
        layer.require(n_out > 0, f"its output would have {n_out} {'rows' if axis == 2 else 'columns'}; give a size")
        shrinks = p.align_corners and n_out > 1
        factor = np.float32(n_in - 1) / np.float32(n_out - 1) if shrinks else np.float32(n_in) / np.float32(n_out)
        matrix = constant(weights(p, np.arange(n_out, dtype=np.float32), float(factor), n_in))
        maps = (
            ops.matmul(matrix, maps, False, False).output(0)
            if axis == 2
            else ops.matmul(maps, matrix, False, True).output(0)
        )
    return ops.transpose(maps, integers([0, 2, 3, 1])).output(0) if last else maps


def _nearest(p: Any, places: NDArray[np.float32], factor: float, n_in: int) -> FloatArray:
    scale, half = np.float32(factor), np.float32(0.5)
    if p.half_pixel_onnx:
        at = np.floor((places + half) * scale - half)
    elif p.half_pixel_centers:
        at = np.floor((places + half) * scale)
    else:
        at = np.floor(places * scale + half) if p.align_corners else np.floor(places * scale)
    at = np.clip(at, 0, n_in - 1).astype(np.int64)
    return np.asarray(np.eye(n_in, dtype=np.float32)[at])


def _bilinear(p: Any, places: NDArray[np.float32], factor: float, n_in: int) -> FloatArray:
    scale, half = np.float32(factor), np.float32(0.5)
    at = (places + half) * scale - half if p.half_pixel_centers or p.pytorch_half_pixel else places * scale
    if p.pytorch_half_pixel and len(places) == 1:
        at = np.array([-0.5], np.float32)
    below = np.floor(at)
    part = (at - below)[:, None]
    low = np.clip(below, 0, n_in - 1).astype(np.int64)
    high = np.clip(np.ceil(at), 0, n_in - 1).astype(np.int64)
    one = np.eye(n_in, dtype=np.float32)
    return np.asarray((np.float32(1.0) - part) * one[low] + part * one[high], np.float32)


@converts("UpsampleDarknet")
def upsample_darknet(layer: Layer, x: Output) -> Output:
    """Each value `stride` by `stride` times (synopsys-caffe, upsample_darknet_layer.cpp)."""
    stride, shape = layer.param("upsample_darknet_param").stride, shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(stride > 0, f"stride={stride}; it must be above zero")
    n, c, h, w = shape
    repeated = ops.broadcast(reshape(x, (n, c, h, 1, w, 1)), integers([n, c, h, stride, w, stride])).output(0)
    return reshape(repeated, (n, c, h * stride, w * stride))


@converts("Pad")
def pad(layer: Layer, x: Output) -> Output:
    """`paddings` before and behind each axis, of constant_values (synopsys-caffe, pad_layer.cpp)."""
    p, shape = layer.param("pad_param"), shape_of(x)
    layer.require(
        len(p.paddings) == 2 * len(shape), f"{len(p.paddings)} paddings for {len(shape)} axes; two each are needed"
    )
    before, behind = integers(p.paddings[::2]), integers(p.paddings[1::2])
    return ops.pad(x, before, behind, "constant", constant(p.constant_values)).output(0)


@converts("Transpose")
def transpose(layer: Layer, x: Output) -> Output:
    """Axis i of the top is axis dim[i] of the bottom (tianzhi0549/CTPN, transpose_layer.cpp)."""
    order, rank = list(layer.param("transpose_param").dim), len(shape_of(x))
    layer.require(sorted(order) == list(range(rank)), f"dim is {order}; each of 0 to {rank - 1} must be in it once")
    return ops.transpose(x, integers(order)).output(0)


@converts("Reverse")
def reverse(layer: Layer, x: Output) -> Output:
    """The values along `axis` from the last to the first (tianzhi0549/CTPN, reverse_layer.cpp)."""
    shape = shape_of(x)
    axis = canonical_axis(layer, layer.param("reverse_param").axis, len(shape))
    return ops.gather(x, integers(list(range(shape[axis] - 1, -1, -1))), integers([axis])).output(0)


@converts("Im2col")
def im2col(layer: Layer, x: Output) -> Output:
    """The windows of a convolution: x (N, C, H, W) -> (N, C·KH·KW, H', W'), kernel columns running fastest.

    (BVLC, im2col_layer.cpp)
    """
    p, shape = layer.param("convolution_param"), shape_of(x)
    layer.require(
        len(shape) == 4 and p.axis in (1, -3), f"its input has {len(shape)} axes; 4 with axis=1 are converted"
    )
    g = kernel_geometry(layer)
    kernel_h, kernel_w = g.kernel
    size = kernel_h * kernel_w
    weight = np.tile(np.eye(size, dtype=np.float32).reshape(1, size, 1, kernel_h, kernel_w), (shape[1], 1, 1, 1, 1))
    made = ops.group_convolution(
        x, constant(weight), list(g.stride), list(g.pad), list(g.pad_end), list(g.dilation)
    ).output(0)
    layer.require(min(shape_of(made)) > 0, "its kernel is larger than its padded input")
    return made
