"""The multiplication at the heart of a Convolution or InnerProduct, as builders need it: whole, or cut along its
inputs.

The weights are a graph node with output channels first, (M, ...), whatever made it.
"""

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers import convolution, inner_product
from distcalib.layers.registry import Layer


def product(layer: Layer, x: Output, weight: Output) -> Output:
    """x times W (M, ...), without bias."""
    if layer.type == "InnerProduct":
        return inner_product.multiply_rows(layer, x, weight)
    group = layer.proto.convolution_param.group
    if group != 1:
        m, *rest = (int(d) for d in weight.get_shape())
        shape = np.array([group, m // group, *rest], np.int64)
        weight = ops.reshape(weight, shape, special_zero=False).output(0)
    return convolution.convolve(layer, x, weight)


def along_channels(layer: Layer, values: NDArray[np.floating], rank: int = 4) -> NDArray[np.float32]:
    """Values (M,), one per output channel, as f32 in the shape that meets the channels of a product of `rank` axes."""
    row = np.asarray(values, np.float32)
    return row if layer.type == "InnerProduct" else row.reshape(1, -1, *[1] * (rank - 2))
