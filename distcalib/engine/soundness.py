"""Whether the FP32 net makes numbers at all, though a ReLU hides it where it does not.

A ReLU makes 0 of NaN, so that weights which overflow give scores like any others, and the verdict on INT8 is "met". So
of every batch data and those few values are looked at that prove all others to be finite (bounds.py). Where they do
not, the sum of |x| is taken of each layer's result for that batch, before anything can swallow it: of what a
convolution multiplies, and of every other layer's tops. It is NaN or infinite if one of the values is. Where no FP32
pass follows, the first batch is looked at so.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES
from distcalib.engine.bounds import MOST, SOURCE, bound, gain
from distcalib.engine.builder import Builder, Shapes, sum_of
from distcalib.engine.program import LocalProgram
from distcalib.errors import EngineError
from distcalib.layers import Blobs, FileBlobs, Layer
from distcalib.quantize.fusion import Fused, reads_of

Array = NDArray[np.float32]


def is_fp32(graph: Graph) -> bool:
    """Whether no layer has parameters for INT8."""
    return not any(node.layer.HasField("quantization_param") for node in graph)


class Soundness:
    """What is to be looked at of an FP32 net, and the look at all of it."""

    def __init__(self, graph: Graph, blobs: Blobs, shapes: Shapes, where: str, n_threads: int) -> None:
        self._graph, self._where, self._n_threads = graph, where, n_threads
        self._builder = _SumBuilder(graph, blobs, shapes, where)
        self._builder.run()
        self._program: LocalProgram | None = None

    @property
    def watched(self) -> tuple[Blob, ...]:
        """The values whose sums of |x| prove all others to be finite, where they and the data are small."""
        return tuple(self._builder.watched)

    @property
    def is_proven(self) -> bool:
        """Whether they do; if not, every batch is to be looked at."""
        return self._builder.is_proven

    def refuse(self, batch: Mapping[str, Array], iteration: int) -> None:
        """Raise EngineError naming the first layer that makes NaN or infinity of `batch`; the net runs in FP32."""
        sums = self._builder.sums
        if not sums:
            return
        if self._program is None:
            parameters = list(self._builder.parameters.values())
            model = ov.Model([ops.result(sums[blob]) for blob in sums], parameters, self._where)
            self._program = LocalProgram(self._builder.built(model, tuple(sums)), self._where, self._n_threads)
        results = self._program.run(batch)
        for blob in sums:
            if not np.isfinite(results[blob]).all():
                raise EngineError(unsound(self._where, self._graph.producer[blob], iteration))


def is_small(batch: Mapping[str, Array], sums: Sequence[float] | Array) -> bool:
    """Whether no value of the data, and none of the `sums` that are watched, is above what they may be."""
    return bool(np.all(np.asarray(sums) <= SOURCE)) and all(
        max(-float(x.min(initial=0.0)), float(x.max(initial=0.0))) <= SOURCE for x in batch.values()
    )


def unsound(where: str, node: Node, iteration: int = 0) -> str:
    """That a layer of the FP32 net makes no numbers."""
    return (
        f"{where}: layer '{node.name}' ({node.type}) makes values in FP32 that are NaN or infinite (iteration "
        f"{iteration}); correct its weights, or those before it, or the data and its transform_param"
    )


class _SumBuilder(Builder):
    """Builds the net in FP32, and the sum of |x| of each layer's result; finds what is to be watched."""

    def __init__(self, graph: Graph, blobs: Blobs, shapes: Shapes, where: str) -> None:
        super().__init__(graph, blobs, shapes, where)
        self.in_fp32()
        self.sums: dict[Blob, Output] = {}
        self.watched: dict[Blob, None] = {}
        self.is_proven = True
        self._bounds: dict[Blob, float] = {}
        self._gains: dict[str, tuple[float, float]] = {}

    def _multiply(self, layer: Layer, x: Output, weight: Array, bias: Array) -> Output:
        y = super()._multiply(layer, x, weight, bias)
        self.sums[self.groups[layer.name].node.tops[0]] = sum_of(y)
        self._gains[layer.name] = gain(weight, bias)
        return y

    def _data(self, node: Node) -> None:
        super()._data(node)
        self._bounds.update((blob, SOURCE) for blob in node.tops)

    def _plain(self, node: Node) -> None:
        super()._plain(node)
        self.sums.update((blob, sum_of(self.values[blob])) for blob in node.tops)
        limit = self._bound_of_plain(node)
        if (limit is None and node.type == "LRN") or (limit is not None and limit > MOST):
            for blob in node.bottoms:
                self._watch(blob)
            limit = self._bound_of_plain(node)
        for blob in node.tops:
            if limit is None or limit > MOST:
                self._watch(blob)
            else:
                self._bounds[blob] = limit

    def _group(self, group: Fused) -> Output:
        y = super()._group(group)
        read = reads_of(group.node, group)
        if group.name not in self._gains:  # added to its own input, without a product of its own
            self.sums[group.output] = sum_of(y)
            self._watch(group.output)
            return y
        limit = self._bound_of_group(group, read)
        if limit > MOST:
            for blob in read:
                self._watch(blob)
            limit = self._bound_of_group(group, read)
        self.is_proven &= limit <= MOST
        self._bounds[group.output] = min(limit, SOURCE) if limit > MOST else limit
        return y

    def _bound_of_plain(self, node: Node) -> float | None:
        """Of what a layer makes that is in no group; None: not known."""
        if node.index in self.graph.onto:
            return None
        weights = self.blobs.weights if isinstance(self.blobs, FileBlobs) else {}
        return bound(node.layer, [self._bound_of(blob) for blob in node.bottoms], weights.get(node.name, ()))

    def _bound_of_group(self, group: Fused, read: Sequence[Blob]) -> float:
        """Of all that the group computes."""
        largest_sum, largest_bias = self._gains[group.name]
        source, *residual = (self._bound_of(blob) for blob in read)
        limit = largest_sum * source + largest_bias + sum(residual)
        factor = abs(self.stored.run.gains.get(group.name, 1.0))
        return limit * max(1.0, abs(group.slope or 0.0)) * max(1.0, factor)

    def _watch(self, blob: Blob) -> None:
        if self.graph.producer[blob].type not in DATA_TYPES:
            self.watched[blob] = None
        self._bounds[blob] = SOURCE

    def _bound_of(self, blob: Blob) -> float:
        """Of a value, and of the sum that was put into its memory, once it is there."""
        by = self.graph.overwritten.get(blob)
        return max(self._bounds.get(blob, np.inf), 0.0 if by is None else self._bounds.get(by, 0.0))
