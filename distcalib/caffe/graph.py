"""The TEST net as a graph of values: every in-place layer makes a new one.

Caffe names storage, not values: in `conv1 -> relu (in-place) -> pool`, "conv1" means two things. Ranges, scales and
storage types belong to values, so each write of a blob name is a `Blob(name, version)` here. The predecessor read
ranges by name after the forward pass, when a fused sum had already overwritten its residual, and so got wrong scales.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.errors import FormatError


class Blob(NamedTuple):
    """One value of a blob: the `version`-th write of `name`, counted from 0."""

    name: str
    version: int

    def __str__(self) -> str:
        return self.name if self.version == 0 else f"{self.name}#{self.version}"


@dataclass(frozen=True, eq=False)
class Node:
    """A layer with the values that it reads and makes; compared by identity."""

    index: int
    layer: caffe_pb2.LayerParameter
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]

    @property
    def name(self) -> str:
        """The layer's name, unique in a graph."""
        return self.layer.name

    @property
    def type(self) -> str:
        """The layer's Caffe type."""
        return self.layer.type


@dataclass(frozen=True, eq=False)
class Graph:
    """All layers in the order of the prototxt, which Caffe requires to be topological."""

    nodes: tuple[Node, ...]
    producer: Mapping[Blob, Node]
    consumers: Mapping[Blob, tuple[Node, ...]]
    outputs: tuple[Blob, ...] = field(default=())

    def only_consumer(self, blob: Blob) -> Node | None:
        """The layer that alone reads `blob`, or None if there are none or several."""
        readers = self.consumers.get(blob, ())
        return readers[0] if len(readers) == 1 else None

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
    outputs = tuple(sorted(unread))
    return Graph(tuple(nodes), producer, {b: tuple(n) for b, n in consumers.items()}, outputs)


def overwritten(graph: Graph) -> list[str]:
    """A sentence for each layer that works in place on a value which others read too.

    Caffe gives such a value a split, a blob a reader; the layer is not in place then, and Caffe ends with "Top blob
    produced by multiple sources" (Net::AppendTop).
    """
    return [
        f"layer '{node.name}' ({node.type}): works in place on blob '{blob.name}', which layer '{other.name}' reads as "
        "it was before; Caffe refuses that, so give the layer a top of its own"
        for blob, readers in graph.consumers.items()
        for node in readers
        for other in [reader for reader in readers if reader is not node][:1]
        if _writes(node, blob)
    ]


_SHARING = frozenset({"Flatten", "Reshape", "Squeeze"})
"""The types whose top is the memory of their bottom in Caffe (ShareData)."""


def shared_in_place(graph: Graph) -> list[str]:
    """A sentence for each layer that would read, in Caffe, memory which a layer in place has written before.

    An Eltwise in place clears its top before it adds up or compares (eltwise_layer.cpp).
    What works in place behind a Flatten or Reshape changes the bottom of that, too.  Here each value stays what it was.
    """
    found = [
        f"layer '{node.name}' (Eltwise): works in place on '{node.layer.bottom[0]}', which Caffe's own loops clear "
        "before they read it; give the layer a top of its own"
        for node in graph
        if node.type == "Eltwise"
        and node.layer.eltwise_param.operation != caffe_pb2.EltwiseParameter.PROD
        and node.tops[0].name == node.layer.bottom[0]
    ]
    for node in graph:
        if node.type not in _SHARING or not node.bottoms:
            continue
        writers = [n for n in graph.consumers.get(node.tops[0], ()) if _writes(n, node.tops[0])]
        for writer in writers:
            later = [n for n in graph.consumers[node.bottoms[0]] if n.index > writer.index]
            found += [
                f"layer '{reader.name}' ({reader.type}): reads '{node.bottoms[0].name}', which Caffe lets layer "
                f"'{writer.name}' ({writer.type}) change, for '{node.name}' ({node.type}) shares its memory; give "
                f"'{writer.name}' a top of its own"
                for reader in later
            ]
    return found


def _writes(node: Node, blob: Blob) -> bool:
    """Whether the layer works in place on `blob`."""
    return any(top.name == blob.name and node.layer.bottom[i : i + 1] == [blob.name] for i, top in enumerate(node.tops))


# Published prototxts name both tops of their dummy input "data" (ssd_vgg16_int8.prototxt): harmless, they carry no
# weights.
_REPEATABLE = frozenset({"Data", "DummyData", "Input", "ImageData", "AnnotatedData", "HDF5Data"})
