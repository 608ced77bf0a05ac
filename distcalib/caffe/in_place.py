"""Layers in place, and who finds what they wrote: what of that Caffe refuses, what cannot be known, what is computed.

In Caffe a name is a piece of memory, and several names may be one (aliases.py). A layer in place writes over a value
that another layer may read after it; what comes of that is computed here as Caffe does, and reported. Some types read
their bottom on after they began to write: what they make depends on the BLAS and the CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from distcalib.caffe.aliases import SHARED, keeps, shares
from distcalib.caffe.graph import Graph, Node

_REFUSES = frozenset({"AbsVal", "Flatten", "Reorg", "Reshape", "Split"})
"""What Caffe aborts for in place (CHECK_NE of top and bottom)."""
_READS_ON = frozenset(
    {"ArgMax", "Concat", "Convolution", "Crop", "Deconvolution", "InnerProduct", "LRN", "Permute", "Pooling", "Tile"}
)
"""What reads its bottom after it began to write its top."""

Told = tuple[int, str]
"""A layer's index in the net, and the sentence."""


def in_place_faults(graph: Graph) -> list[Told]:
    """A sentence for each layer in place that Caffe refuses, or of which nobody knows what it makes, in net order."""
    faults: list[Told] = []
    readers: dict[str, list[str]] = {}  # of each name since it was last written, as the prototxt has it
    for node in _layers(graph):
        faults += [(node.index, said) for said in _of_layer(node, readers)]
        for name in node.layer.bottom:
            readers.setdefault(name, []).append(node.name)
        readers.update((name, []) for name in node.layer.top)
    return faults


def in_place_notes(graph: Graph, fused: Collection[int] = ()) -> list[Told]:
    """A sentence for each layer in place that computes another thing than it seems, which is done here, in net order.

    `fused`: indexes of the Eltwise layers that Intel Caffe computes inside a convolution, where nothing is set to 0."""
    notes = [(node.index, said) for node in _layers(graph) for said in _of_eltwise(graph, node, fused)]
    return sorted([*notes, *_overwritten(graph)])


def _layers(graph: Graph) -> Iterator[Node]:
    """Those of the prototxt."""
    return (node for node in graph if node.type != SHARED)


def _writes_in_place(node: Node) -> str | None:
    """The name of the bottom that the layer writes over; what it finds there may have another (aliases.py)."""
    return next((b for b, t in zip(node.layer.bottom, node.layer.top, strict=False) if b == t), None)


def _of_layer(node: Node, readers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    over = _writes_in_place(node)
    if over is None:
        return
    where = f"layer '{node.name}' ({node.type})"
    others = [*readers.get(over, ()), *[node.name] * (list(node.layer.bottom).count(over) > 1)]
    if others:
        yield (
            f"{where}: works in place on '{over}', which '{others[0]}' reads as well, and Caffe refuses that "
            f"(Top blob '{over}' produced by multiple sources); give it a top of its own"
        )
    elif node.type in _REFUSES:
        yield f"{where}: works in place on '{over}', which Caffe refuses for this type; give it a top of its own"
    elif node.type in _READS_ON:
        yield (
            f"{where}: works in place on '{over}', and Caffe writes over what it still reads, so its result is "
            "another there; give it a top of its own"
        )


def _of_eltwise(graph: Graph, node: Node, fused: Collection[int]) -> Iterator[str]:
    """An Eltwise adds onto its top, or takes the largest into it: Caffe clears that first."""
    over = _writes_in_place(node)
    param = node.layer.eltwise_param
    if over is None or node.type != "Eltwise" or param.operation == param.PROD:
        return
    said = f"layer '{node.name}' (Eltwise): works in place on '{over}'"
    if node.index in fused:
        yield f"{said}: it is added to, as in Intel Caffe, which fuses the sum; other Caffes clear it first"
    elif node.index in graph.onto:
        yield f"{said}: as in Caffe, which clears that before it reads it, nothing of it is left in the result"


def _overwritten(graph: Graph) -> Iterator[Told]:
    """Layers in place after which a blob that shares their memory is read, or is an output.

    A name is (memory, how many writes there had been): whoever reads it after another write gets something else."""
    named: dict[str, tuple[int, int]] = {}
    writes: list[list[Node]] = []
    seen: set[tuple[int, str]] = set()

    def found(reader: str, name: str) -> Iterator[Told]:
        memory, n_writes = named[name]
        if n_writes < len(writes[memory]):
            writer = writes[memory][n_writes]
            if (writer.index, name) not in seen:
                seen.add((writer.index, name))
                yield (
                    writer.index,
                    f"layer '{writer.name}' ({writer.type}): works in place on memory that '{name}' shares, and "
                    f"{reader} finds what it wrote, as in Caffe; give it a top of its own if that is not meant",
                )

    unread: dict[str, None] = {}
    for node in _layers(graph):
        layer = node.layer
        for name in layer.bottom:
            yield from found(f"'{node.name}', which reads that later,", name)
            unread.pop(name, None)
        over = _writes_in_place(node)
        for top in layer.top:
            unread[top] = None
            if top == over:
                memory = named[top][0]
                if not keeps(layer):
                    writes[memory].append(node)
                named[top] = memory, len(writes[memory])
            elif layer.bottom and shares(layer):
                memory = named[layer.bottom[0]][0]
                named[top] = memory, len(writes[memory])
            else:
                named[top] = len(writes), 0
                writes.append([])
    for name in unread:
        yield from found("the net's output of that name", name)
