"""Whether the FP32 net makes numbers at all: a look at one batch, inside the net.

A ReLU makes 0 of NaN, so that weights which overflow give scores like any others, and the verdict on INT8 is "met".
So the sum of |x| is taken of each layer's result before anything can swallow it: that of what a convolution multiplies,
and of every other layer's tops.  It is NaN or infinite if one of the values is.
"""

from collections.abc import Mapping

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.engine.builder import Shapes, _Builder
from distcalib.engine.program import LocalProgram
from distcalib.errors import EngineError
from distcalib.layers import Blobs, Layer

Array = NDArray[np.float32]


def is_fp32(graph: Graph) -> bool:
    """Whether no layer has parameters for INT8."""
    return not any(node.layer.HasField("quantization_param") for node in graph)


def refuse_unsound(
    graph: Graph, blobs: Blobs, shapes: Shapes, where: str, batch: Mapping[str, Array], n_threads: int
) -> None:
    """Raise EngineError naming the first layer that makes NaN or infinity of `batch`; the net runs in FP32."""
    builder = _SumBuilder(graph, blobs, shapes, where)
    builder.run()
    if not builder.sums:
        return
    results = [ops.result(builder.sums[blob]) for blob in builder.sums]
    model = ov.Model(results, list(builder.parameters.values()), where)
    found = LocalProgram(builder.built(model, tuple(builder.sums)), where, n_threads).run(batch)
    for blob in builder.sums:
        if not np.isfinite(found[blob]).all():
            raise EngineError(unsound(where, graph.producer[blob]))


def unsound(where: str, node: Node, iteration: int = 0) -> str:
    """That a layer of the FP32 net makes no numbers."""
    return (
        f"{where}: layer '{node.name}' ({node.type}) makes values in FP32 that are NaN or infinite (iteration "
        f"{iteration}); correct its weights, or those before it, or the data and its transform_param"
    )


class _SumBuilder(_Builder):
    """Builds the net in FP32, and the sum of |x| of each layer's result."""

    def __init__(self, graph: Graph, blobs: Blobs, shapes: Shapes, where: str) -> None:
        super().__init__(graph, blobs, shapes, where)
        self.in_fp32()
        self.sums: dict[Blob, Output] = {}

    def _multiply(self, layer: Layer, x: Output, weight: Array, bias: Array) -> Output:
        y = super()._multiply(layer, x, weight, bias)
        self.sums[self.groups[layer.name].node.tops[0]] = _sum(y)
        return y

    def _plain(self, node: Node) -> None:
        super()._plain(node)
        self.sums.update((blob, _sum(self.values[blob])) for blob in node.tops)


def _sum(y: Output) -> Output:
    return ops.reduce_l1(y, np.arange(len(y.get_shape()), dtype=np.int64)).output(0)
