"""How much a layer has to multiply."""

from collections.abc import Mapping
from math import prod

from distcalib.caffe.graph import Blob, Node
from distcalib.layers import Layer, ZeroBlobs, convolution


def multiply_adds(node: Node, shapes: Mapping[Blob, tuple[int, ...]]) -> int:
    """Multiply-adds of one image in a Convolution (outputs·C/group·KH·KW) or InnerProduct (inputs·outputs)."""
    top, bottom = shapes[node.tops[0]], shapes[node.bottoms[0]]
    if node.type == "InnerProduct":
        return prod(bottom[1:]) * node.layer.inner_product_param.num_output
    layer = Layer(node.layer, ZeroBlobs(), "")
    weight = convolution.weight_shape(layer, bottom[1], len(bottom) - 2)
    return prod(top[1:]) * prod(weight[1:])
