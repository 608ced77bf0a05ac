"""InnerProduct: y = x·Wᵀ + b, with x flattened from `axis` on; FP32 or INT8, weights as a graph node like
Convolution's.
"""

from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer


def split_axis(layer: Layer, x: Output) -> tuple[tuple[int, ...], int]:
    """Leading dimensions of x that stay, and the number of inputs K of each product."""
    shape = tuple(int(d) for d in x.get_shape())
    axis = layer.proto.inner_product_param.axis
    layer.require(
        -len(shape) <= axis < len(shape), f"axis={axis} of an input with {len(shape)} dimensions; it must be inside"
    )
    axis %= len(shape)
    return shape[:axis], prod(shape[axis:])


def weight_shape(layer: Layer, n_inputs: int) -> tuple[int, int]:
    """Shape of W as stored: (M, K), or (K, M) if `transpose`."""
    param = layer.proto.inner_product_param
    layer.require(param.num_output > 0, "num_output is missing; an InnerProduct needs it")
    return (n_inputs, param.num_output) if param.transpose else (param.num_output, n_inputs)


def rows_of(layer: Layer, x: Output) -> Output:
    """x (N, ..., C, H, W) -> (N·..., K), a row for each product."""
    leading, n_inputs = split_axis(layer, x)
    return ops.reshape(x, np.array([prod(leading), n_inputs], np.int64), special_zero=False).output(0)


def from_rows(layer: Layer, x: Output, product: Output) -> Output:
    """The product (N·..., M) of the rows of x in the shape of the layer's top, (N, ..., M)."""
    leading, _ = split_axis(layer, x)
    if len(leading) == 1:
        return product
    shape = np.array([*leading, layer.proto.inner_product_param.num_output], np.int64)
    return ops.reshape(product, shape, special_zero=False).output(0)


def times_rows(rows: Output, weight: Output) -> Output:
    """Rows (R, K) times W (M, K): (R, M)."""
    return ops.matmul(rows, weight, transpose_a=False, transpose_b=True).output(0)


def multiply_rows(layer: Layer, x: Output, weight: Output) -> Output:
    """x (N, ..., C, H, W) -> (N, ..., M), W (M, K) with K = C·H·W."""
    return from_rows(layer, x, times_rows(rows_of(layer, x), weight))
