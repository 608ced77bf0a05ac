"""What each layer of a net makes on integers otherwise than in FP32, from the same input: a bias can take it up."""

from collections.abc import Sequence

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe.graph import Blob, Graph
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.builder import Builder, BuiltModel, Shapes
from distcalib.layers import Blobs, Layer
from distcalib.quantize.storage import input_grid

Array = NDArray[np.float32]


def build_errors(
    graph: Graph,
    blobs: Blobs,
    shapes: Shapes,
    where: str,
    products: Sequence[Blob],
    arithmetic: Arithmetic = NATIVE,
) -> BuiltModel:
    """The FP32 net, and beside each layer with a quantization_param the same layer on integers, from the same input.

    The results are, for each of `products` (the top of a convolution or inner product, BatchNorm and Scale folded in),
    integer result less FP32 result, before any ReLU or sum: its mean over the positions, (N, M) f32.
    Raises UnsupportedError and WeightsError.
    """
    builder = _ErrorBuilder(graph, blobs, shapes, where, arithmetic)
    builder.run()
    results = [ops.result(builder.errors[blob]) for blob in products]
    model = ov.Model(results, list(builder.parameters.values()), where)
    return BuiltModel(
        model, tuple(builder.parameters), tuple(products), (), frozenset(builder.groups), arithmetic.emulated
    )


class _ErrorBuilder(Builder):
    """Builds the net in FP32, and what its quantization_params would change in each layer by itself."""

    def __init__(self, graph: Graph, blobs: Blobs, shapes: Shapes, where: str, arithmetic: Arithmetic = NATIVE) -> None:
        super().__init__(graph, blobs, shapes, where, arithmetic)
        self.int8_params = self.params
        self.in_fp32()
        self.errors: dict[Blob, Output] = {}

    def _multiply(self, layer: Layer, x: Output, weight: Array, bias: Array) -> Output:
        exact = super()._multiply(layer, x, weight, bias)
        int8 = self.int8_params.get(layer.name)
        if int8 is not None:
            rounded = self.integers.take(x, input_grid(int8))
            error = ops.subtract(self.integers.multiply(layer, rounded, weight, bias, int8, None, None), exact).output(
                0
            )
            positions = np.arange(2, len(error.get_shape()), dtype=np.int64)
            if len(positions):
                error = ops.reduce_mean(error, positions).output(0)
            self.errors[self.groups[layer.name].node.tops[0]] = error
        return exact
