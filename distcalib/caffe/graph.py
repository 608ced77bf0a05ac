"""The TEST net as a graph of values: every in-place layer makes a new one.

Caffe names storage, not values: in `conv1 -> relu (in-place) -> pool`, "conv1" means two things. Ranges, scales and
storage types belong to values, so each write of a blob name is a `Blob(name, version)` here. The predecessor read
ranges by name after the forward pass, when a fused sum had already overwritten its residual, and so got wrong scales.

The sum lies in the residual's memory: a layer that Intel Caffe runs behind it reads the sum where the prototxt names
the residual (golden_rules c05), and does so here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.caffe.compiling import compile_net
from distcalib.caffe.steps import UNFUSED, Step, Trouble
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


@dataclass(frozen=True)
class Run:
    """A step of the net as Intel Caffe compiles it, with the values that it reads (None: there is none) and makes.

    A step that sums reads its input, then the residual.
    """

    step: Step
    reads: tuple[Blob | None, ...]
    makes: tuple[Blob, ...]
    copied: bool = False
    """Whether it adds a copy of the residual, which stays as it is."""


@dataclass(frozen=True, eq=False)
class Graph:
    """All layers in the order of the prototxt, which Caffe requires to be topological."""

    nodes: tuple[Node, ...]
    producer: Mapping[Blob, Node]
    consumers: Mapping[Blob, tuple[Node, ...]]
    outputs: tuple[Blob, ...] = field(default=())
    runs: tuple[Run, ...] = field(default=(), repr=False)
    """The layers as Intel Caffe fuses and runs them, in the order in which it does."""
    overwritten: Mapping[Blob, Blob] = field(default_factory=dict, repr=False)
    """What lies after a pass in the memory of a value that a sum overwrote."""
    troubles: tuple[Trouble, ...] = field(default=(), repr=False)
    """Why Intel Caffe could not make or load the net, whatever its numbers are."""

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
    compiled = compile_net(layers)
    runs, now, overwritten, lost = _resolve(compiled.steps, nodes)
    if overwritten:
        nodes = [_rewired(node, now) for node in nodes]
        producer = {blob: node for node in nodes for blob in node.tops}
        consumers = {}
        for node in nodes:
            for blob in dict.fromkeys(node.bottoms):
                consumers.setdefault(blob, []).append(node)
    return Graph(
        tuple(nodes),
        producer,
        {b: tuple(n) for b, n in consumers.items()},
        tuple(sorted(unread)),
        runs,
        overwritten,
        (*compiled.troubles, *lost),
    )


Reads = dict[tuple[int, Blob], Blob]
"""By layer and the value that the prototxt has it read: the value that it finds there."""


def _resolve(
    steps: Sequence[Step], nodes: Sequence[Node]
) -> tuple[tuple[Run, ...], Reads, dict[Blob, Blob], list[Trouble]]:
    """The steps with their values, who reads a sum in place of its residual, which values are gone in the end, and what
    is to be said of that.
    """
    values: dict[str, Blob] = {}
    memory: dict[Blob, Blob] = {}  # the first value of the memory that holds a value
    made_at: dict[Blob, int] = {}
    holds: dict[Blob, tuple[Blob, int]] = {}
    found: Reads = {}
    copies: set[str] = set()
    sums: dict[Blob, str] = {}
    lost: list[Trouble] = []
    runs = []
    for time, step in enumerate(steps):
        first = step.parts.get("layer")
        reads: list[Blob | None] = []
        for name in step.bottoms:
            blob = values.get(name)
            if blob is not None:
                value, written = holds.get(memory[blob], (blob, -1))
                if written > made_at[blob]:
                    for index in step.parts.values():
                        found[index, blob] = value
                    if first is not None and memory[blob] in sums:
                        lost.append(_lost(step, first, blob, value, sums[memory[blob]]))
                    blob = value
            reads.append(blob)
        if step.last is None:
            copies.update(step.tops if step.type == "Pooling" else ())
            for name in step.tops:
                if reads[0] is not None:
                    values[name] = reads[0]
            runs.append(Run(step, tuple(reads), ()))
            continue
        makes = nodes[step.last].tops
        for name, blob in zip(step.tops, makes, strict=False):
            values[name] = blob
            memory[blob], made_at[blob] = blob, time
            if step.type == "Split" and first == step.last and reads[0] is not None:
                memory[blob] = memory[reads[0]]
            elif name in step.bottoms and (written_over := reads[step.bottoms.index(name)]) is not None:
                memory[blob] = memory[written_over]
                holds[memory[blob]] = blob, time
        copied = step.summed and step.bottoms[-1] in copies
        residual = reads[-1] if step.summed and not copied else None
        if residual is not None:
            memory[makes[0]] = memory[residual]
            sums[memory[residual]] = step.name
            holds[memory[residual]] = makes[0], time
        runs.append(Run(step, tuple(reads), makes, copied))
    gone = {
        blob: holds[first][0] for blob, first in memory.items() if first in holds and holds[first][1] > made_at[blob]
    }
    return tuple(runs), found, gone, lost


def _lost(step: Step, index: int, blob: Blob, value: Blob, convolution: str) -> Trouble:
    said = (
        f"layer '{step.name}' ({step.type}): finds the sum '{value.name}' where it reads '{blob.name}', for it stands "
        f"behind convolution '{convolution}', which leaves the sum there; let it stand in front of that"
    )
    return Trouble(index, said, False, convolution, UNFUSED)


def _rewired(node: Node, found: Reads) -> Node:
    bottoms = tuple(found.get((node.index, blob), blob) for blob in node.bottoms)
    return node if bottoms == node.bottoms else Node(node.index, node.layer, bottoms, node.tops)


# Published prototxts name both tops of their dummy input "data" (ssd_vgg16_int8.prototxt): harmless, they carry no
# weights.
_REPEATABLE = frozenset({"Data", "DummyData", "Input", "DenseImageData", "ImageData", "AnnotatedData", "HDF5Data"})
