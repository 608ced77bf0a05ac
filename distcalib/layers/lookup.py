"""Embed, Parameter and SPP: rows of a table, a blob by itself, and pooling over grids of several sizes."""

from __future__ import annotations

from math import prod

import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter
from distcalib.layers.pooling import pooling
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of


@converts("Embed")
def embed(layer: Layer, x: Output) -> Output:
    """Row x of W, plus b:  x (...) of whole numbers, W (input_dim, M), b (M,) -> (..., M)."""
    p = layer.param("embed_param")
    sizes = f"num_output={p.num_output}, input_dim={p.input_dim}"
    layer.require(p.num_output > 0 and p.input_dim > 0, f"{sizes}; both must be above zero")
    layer.expect_blobs(1 + p.bias_term)
    weight = layer.blob(0, (p.input_dim, p.num_output))
    y = ops.gather(constant(weight), ops.convert(x, "i64"), integers([0])).output(0)
    y = reshape(y, (*shape_of(x), p.num_output))
    return ops.add(y, constant(layer.blob(1, (p.num_output,)))).output(0) if p.bias_term else y


@converts("Parameter", bottoms=(0, 0))
def parameter(layer: Layer) -> Output:
    """The stored blob, of the shape that parameter_param gives."""
    shape = tuple(int(n) for n in layer.param("parameter_param").shape.dim)
    layer.require(bool(shape) and min(shape) > 0, f"its shape is {shape}; give sizes of at least 1")
    layer.expect_blobs(1)
    return constant(layer.blob(0, shape))


@converts("SPP")
def spp(layer: Layer, x: Output) -> Output:
    """Poolings into 1, 2x2, 4x4, ... bins, one after the other:  x (N, C, H, W) -> (N, C·(1 + 4 + 16 + ...)).

    Level i has 2^i bins along each axis, of ceil(H / 2^i) rows, with half of what that is too much as padding; they are
    Caffe's own Pooling layers (spp_layer.cpp).  A single level keeps its (N, C, 1, 1).
    """
    p = layer.param("spp_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(p.pyramid_height > 0, f"pyramid_height={p.pyramid_height}; it must be above zero")
    layer.require(p.pool != SPPParameter.STOCHASTIC, "pool=STOCHASTIC is not converted; MAX and AVE are")
    levels = [_level(layer, x, 2**i) for i in range(p.pyramid_height)]
    if len(levels) == 1:
        return levels[0]
    return ops.concat([reshape(y, (shape[0], prod(shape_of(y)[1:]))) for y in levels], 1).output(0)


def _level(layer: Layer, x: Output, n_bins: int) -> Output:
    """A Pooling into `n_bins` by `n_bins`."""
    height, width = shape_of(x)[2:]
    kernel = [-(-size // n_bins) for size in (height, width)]
    pad = [(k * n_bins - size + 1) // 2 for k, size in zip(kernel, (height, width), strict=True)]
    method = SPPParameter.PoolMethod.Name(layer.param("spp_param").pool)
    pooling_param = PoolingParameter(
        pool=method,
        engine=PoolingParameter.CAFFE,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=kernel[0],
        stride_w=kernel[1],
        pad_h=pad[0],
        pad_w=pad[1],
    )
    proto = LayerParameter(name=layer.name, type="SPP", top=["level"], pooling_param=pooling_param)
    [y] = pooling(Layer(proto, layer.blobs, layer.source), x)
    return y
