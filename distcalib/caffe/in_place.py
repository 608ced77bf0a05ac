"""Where Caffe's blobs share memory, and a layer that works in place changes what others still read.

In Caffe a name is a piece of memory. Flatten, Reshape and Split hand their bottom's on under another name, as do other
forks' Squeeze, Concat of one bottom and Slice into one top, and a blob with several readers is split so too
(insert_splits.cpp). So a layer in place behind one of them writes over a value that another layer may read after it.
Here each write makes a value of its own (graph.py), and what such a net computes is another thing; it is told, not
imitated."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node

_SHARES = frozenset({"Flatten", "Reshape", "Split", "Squeeze"})
_SHARES_ONE = frozenset({"Concat", "Slice"})
_REFUSES = frozenset({"AbsVal", "Flatten", "Reorg", "Reshape", "Split"})
"""What Caffe aborts for in place (CHECK_NE of top and bottom)."""
_READS_ON = frozenset(
    {"ArgMax", "Concat", "Convolution", "Crop", "Deconvolution", "InnerProduct", "LRN", "Permute", "Pooling", "Tile"}
)
"""What reads its bottom after it began to write its top."""
_ADDS_ONTO = (caffe_pb2.EltwiseParameter.SUM, caffe_pb2.EltwiseParameter.MAX)
"""Eltwise sets its top to 0 or to the least number, then takes one bottom after the other into it."""

Fault = tuple[int, str]
"""A layer's index in the net, and the sentence."""


def in_place_faults(graph: Graph, fused: Collection[int] = ()) -> list[Fault]:
    """A sentence for each layer in place that Caffe refuses, or that changes what others read, in net order.

    `fused`: indexes of the Eltwise layers that Intel Caffe computes inside a convolution, where nothing is set to 0."""
    found = [(node.index, said) for node in graph for said in _of_layer(graph, node) if node.index not in fused]
    return sorted([*found, *_overwritten(graph)])


def _keeps(node: Node) -> bool:
    """Whether the layer changes nothing in TEST, though it is written in place; py-faster-rcnn's Dropout may scale."""
    return node.type == "Dropout" and node.layer.dropout_param.scale_train


def _writes_in_place(node: Node) -> Blob | None:
    """The bottom that the layer writes its first top over."""
    return next((b for b, t in zip(node.bottoms, node.tops, strict=False) if b.name == t.name), None)


def _of_layer(graph: Graph, node: Node) -> Iterator[str]:
    over = _writes_in_place(node)
    if over is None:
        return
    where = f"layer '{node.name}' ({node.type})"
    others = [reader.name for reader in graph.consumers[over] if reader is not node]
    if others:
        yield (
            f"{where}: works in place on '{over.name}', which '{others[0]}' reads as well, and Caffe refuses that "
            f"(Top blob '{over.name}' produced by multiple sources); give it a top of its own"
        )
    elif node.type in _REFUSES:
        yield f"{where}: works in place on '{over.name}', which Caffe refuses for this type; give it a top of its own"
    elif node.type in _READS_ON:
        yield (
            f"{where}: works in place on '{over.name}', and Caffe writes over what it still reads, so its result is "
            "another there; give it a top of its own"
        )
    elif node.type == "Eltwise" and node.layer.eltwise_param.operation in _ADDS_ONTO:
        yield (
            f"{where}: works in place on '{over.name}', and Caffe clears that before it reads it, so its result is "
            "another there; give it a top of its own"
        )


def _overwritten(graph: Graph) -> Iterator[Fault]:
    """Layers in place after which a blob that shares their memory is read, or is an output.

    A value is (memory, how many writes there had been): whoever reads it after another write gets something else."""
    values: dict[Blob, tuple[int, int]] = {}
    writes: list[list[Node]] = []
    seen: set[tuple[int, str]] = set()

    def lost(reader: str, blob: Blob) -> Iterator[Fault]:
        memory, n_writes = values[blob]
        if n_writes < len(writes[memory]):
            writer = writes[memory][n_writes]
            if (writer.index, blob.name) not in seen:
                seen.add((writer.index, blob.name))
                yield (
                    writer.index,
                    f"layer '{writer.name}' ({writer.type}): works in place on memory that '{blob.name}' shares in "
                    f"Caffe, and {reader} gets what it wrote; give it a top of its own",
                )

    named: dict[str, Blob] = {}  # as the prototxt has it: the graph knows what a layer finds where a sum was
    for node in graph:
        for name in node.layer.bottom:
            yield from lost(f"'{node.name}', which reads that later,", named[name])
        named.update((top.name, top) for top in node.tops)
        over = _writes_in_place(node)
        one_each = len(node.bottoms) == len(node.tops) == 1
        for top in node.tops:
            if over is not None and top.name == over.name:
                memory = values[over][0]
                if not _keeps(node):
                    writes[memory].append(node)
                values[top] = memory, len(writes[memory])
            elif node.bottoms and (node.type in _SHARES or (node.type in _SHARES_ONE and one_each)):
                values[top] = values[node.bottoms[0]]
            else:
                values[top] = len(writes), 0
                writes.append([])
    for blob in graph.outputs:
        yield from lost("the net's output of that name", blob)
