"""The TEST net as a graph of values: every in-place layer makes a new one.

Caffe names storage, not values: in `conv1 -> relu (in-place) -> pool`, "conv1" means two things. Ranges, scales and
storage types belong to values, so each write of a blob name is a `Blob(name, version)` here. The predecessor read
ranges by name after the forward pass, when a fused sum had already overwritten its residual, and so got wrong scales.

Names share memory, too: a layer in place behind a Flatten, and a sum that Intel Caffe leaves in its residual's memory
(golden_rules c05), change what later readers of another name find, and do so here (aliases.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from distcalib.caffe import caffe_pb2
from distcalib.caffe.aliases import follow
from distcalib.caffe.compiling import compile_net
from distcalib.caffe.steps import Trouble
from distcalib.caffe.values import Blob, Node, Run
from distcalib.errors import FormatError

__all__ = ["Blob", "Graph", "Node", "Run", "build_graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """All layers in the order of the prototxt, which Caffe requires to be topological, and views of shared memory."""

    nodes: tuple[Node, ...]
    producer: Mapping[Blob, Node]
    consumers: Mapping[Blob, tuple[Node, ...]]
    outputs: tuple[Blob, ...] = field(default=())
    runs: tuple[Run, ...] = field(default=(), repr=False)
    """The layers as Intel Caffe fuses and runs them, in the order in which it does."""
    overwritten: Mapping[Blob, Blob] = field(default_factory=dict, repr=False)
    """What lies after a pass in the memory of a value that a sum, or a layer in place, overwrote."""
    views: Mapping[Blob, Blob] = field(default_factory=dict, repr=False)
    """By what a node of type SHARED makes: the value of which that is a view."""
    shared: frozenset[Blob] = field(default=frozenset(), repr=False)
    """The values in memory that a layer in place changes under another name."""
    onto: Mapping[int, tuple[bool, ...]] = field(default_factory=dict, repr=False)
    """By the index of an Eltwise in place: which of its bottoms lie in the memory of its top, which Caffe clears."""
    troubles: tuple[Trouble, ...] = field(default=(), repr=False)
    """Why Intel Caffe could not make or load the net, whatever its numbers are."""

    def only_consumer(self, blob: Blob) -> Node | None:
        """The layer that alone reads `blob`, or None if there are none or several."""
        readers = self.consumers.get(blob, ())
        return readers[0] if len(readers) == 1 else None

    def layer(self, index: int) -> Node:
        """The node of the layer at a place in the prototxt."""
        return self._at[index]

    @cached_property
    def _at(self) -> Mapping[int, Node]:
        return {node.index: node for node in self.nodes}

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def build_graph(layers: Sequence[caffe_pb2.LayerParameter], where: str) -> Graph:
    """Resolve names to values.

    `outputs` are the blobs that no layer reads, sorted by name as Caffe prints them.  Raises FormatError naming every
    unknown bottom, doubled layer name and doubled (not in-place) top of `where` at once.
    """
    current: dict[str, Blob] = {}
    producer: dict[Blob, Node] = {}
    consumers: dict[Blob, list[Node]] = {}
    nodes: list[Node] = []
    problems: list[str] = []
    names: set[str] = set()
    lacking = False
    for index, layer in enumerate(layers):
        if layer.name in names and layer.type not in _REPEATABLE:
            problems.append(f"layer name '{layer.name}' is used twice; give each layer its own")
        names.add(layer.name)
        missing = [b for b in layer.bottom if b not in current]
        lacking = lacking or bool(missing)
        problems += [
            f"layer '{layer.name}' ({layer.type}) reads blob '{b}', which no layer before it makes" for b in missing
        ]
        bottoms = tuple(current[b] for b in layer.bottom if b in current)
        tops = []
        for position, top in enumerate(layer.top):
            in_place = position < len(layer.bottom) and layer.bottom[position] == top
            if top in current and not in_place:
                problems.append(f"layer '{layer.name}' ({layer.type}) makes blob '{top}', which is there already")
            blob = Blob(top, current[top].version + 1 if top in current else 0)
            current[top] = blob
            tops.append(blob)
        node = Node(index, layer, bottoms, tuple(tops))
        nodes.append(node)
        producer.update((blob, node) for blob in tops)
        for blob in dict.fromkeys(bottoms):
            consumers.setdefault(blob, []).append(node)
    if problems:
        remedy = "; correct the name, or give the TEST phase a layer that makes it" if lacking else ""
        raise FormatError(f"{where}: " + "; ".join(problems) + remedy)
    unread = [blob for blob in producer if blob not in consumers]
    compiled = compile_net(layers)
    followed = follow(compiled.steps, nodes, unread)
    producer = {blob: node for node in followed.nodes for blob in node.tops}
    consumers = {}
    for node in followed.nodes:
        for blob in dict.fromkeys(node.bottoms):
            consumers.setdefault(blob, []).append(node)
    return Graph(
        followed.nodes,
        producer,
        {blob: tuple(readers) for blob, readers in consumers.items()},
        followed.outputs,
        followed.runs,
        followed.overwritten,
        followed.views,
        followed.shared,
        followed.onto,
        (*compiled.troubles, *followed.troubles),
    )


# Published prototxts name both tops of their dummy input "data" (ssd_vgg16_int8.prototxt): harmless, they carry no
# weights.
_REPEATABLE = frozenset(
    {"Data", "DummyData", "Input", "DenseImageData", "ImageData", "AnnotatedData", "HDF5Data", "ImageSegData"}
)
