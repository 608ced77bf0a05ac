"""What a layer finds where blobs share memory: the last that was written there before it runs.

Flatten, Reshape, Split and other forks' Squeeze hand the memory of their bottom on under the name of their top
(ShareData), as do a Concat of one bottom and a Slice into one top, and so does the Split that Caffe puts behind a blob
with several readers (insert_splits.cpp). So a layer that works in place behind one of them changes what every reader
of any of those names finds from then on. A sum that Intel Caffe fuses lies in its residual's memory in the same way.

Memory is followed in the order in which the steps run. A reader is given the value that is there: the writer's own, or
where that has another shape a view of it, which a node of type SHARED makes.

BVLC's Caffe and Intel Caffe differ in two things: MKLDNN's Concat of one bottom copies, and its Eltwise SUM in place
adds, where BVLC's sets its top to 0 before it reads its bottoms. BVLC's way is the one here (layers/eltwise.py), and
`engine: "CAFFE"` on such a layer has Intel Caffe go it, too. An Eltwise that Intel Caffe fuses into a convolution adds.
Source: net.cpp, insert_splits.cpp, blob.cpp, flatten_layer.cpp, reshape_layer.cpp, split_layer.cpp, concat_layer.cpp,
slice_layer.cpp and eltwise_layer.cpp of BVLC's Caffe and of Intel Caffe's commit 44d5363.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from distcalib.caffe import caffe_pb2
from distcalib.caffe.steps import CAFFE, NET_ENGINE, UNFUSED, Step, Trouble, runs_on_mkldnn
from distcalib.caffe.values import Blob, Node, Run

SHARED = "SharedMemory"
"""The type of a node that is not a layer: what lies in a blob's memory, in the shape of that blob. Its bottoms are the
value that was written there and the blob."""
SHARES = frozenset({"Flatten", "Reshape", "Split", "Squeeze"})
SHARES_ONE = frozenset({"Concat", "Slice"})


@dataclass(frozen=True)
class Followed:
    """A net with its memory followed: nodes and steps with the values that they find."""

    nodes: tuple[Node, ...]
    runs: tuple[Run, ...]
    outputs: tuple[Blob, ...]
    overwritten: dict[Blob, Blob] = field(default_factory=dict)
    views: dict[Blob, Blob] = field(default_factory=dict)
    """The value that was written to the memory of each view."""
    shared: frozenset[Blob] = frozenset()
    """The values in memory that a layer in place changes under another name."""
    onto: dict[int, tuple[bool, ...]] = field(default_factory=dict)
    """By the index of an Eltwise in place: which of its bottoms lie in the memory of its top."""
    troubles: tuple[Trouble, ...] = ()


def shares(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether the layer's tops lie in the memory of its bottom, if it is not in place anyway."""
    one_each = len(layer.bottom) == len(layer.top) == 1
    return layer.type in SHARES or (layer.type in SHARES_ONE and one_each)


def keeps(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether the layer changes nothing in TEST, though it is written in place; py-faster-rcnn's Dropout may scale."""
    return layer.type == "Dropout" and layer.dropout_param.scale_train


def follow(steps: Sequence[Step], nodes: Sequence[Node], outputs: Iterable[Blob]) -> Followed:
    """The net whose layers are `nodes`, where each finds what is in memory when its step runs.

    `outputs`: the values that no layer reads.
    """
    memory = _Memory(nodes)
    for time, step in enumerate(steps):
        memory.step(time, step)
    return memory.followed(outputs)


class _Memory:
    """The values by the name that a step gives them, and where they lie."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._named: dict[str, Blob] = {}
        self._first: dict[Blob, Blob] = {}  # the first value of the memory that holds a value
        self._shape: dict[Blob, Blob] = {}  # the first value that has the shape of a value for certain
        self._made_at: dict[Blob, int] = {}
        self._holds: dict[Blob, tuple[Blob, int]] = {}
        self._found: dict[tuple[int, Blob], Blob] = {}  # by layer and the value that the prototxt has it read
        self._copies: set[str] = set()
        self._sums: dict[Blob, str] = {}
        self._changed: set[Blob] = set()
        self._views: dict[tuple[Blob, str], tuple[Blob, Blob]] = {}
        self._troubles: list[Trouble] = []
        self._runs: list[Run] = []
        self._alone: dict[Blob, Step] = {}  # each Concat of one bottom that MKLDNN runs, by what it makes
        self._onto: dict[int, tuple[bool, ...]] = {}

    def step(self, time: int, step: Step) -> None:
        reads = [self._read(step, name) for name in step.bottoms]
        if step.last is None:  # a Split that Caffe inserts
            self._copies.update(step.tops if step.type == "Pooling" else ())
            if reads[0] is not None:
                self._named.update(dict.fromkeys(step.tops, reads[0]))
            self._runs.append(Run(step, tuple(reads), ()))
            return
        makes = self._nodes[step.last].tops
        own = step.parts.get("layer") == step.last
        for name, blob in zip(step.tops, makes, strict=False):
            self._named[name] = self._first[blob] = self._shape[blob] = blob
            self._made_at[blob] = time
            if name in step.bottoms and (over := reads[step.bottoms.index(name)]) is not None:
                self._lies_in(over, blob)
                self._shape[blob] = blob if step.type in SHARES else self._shape[over]
                if step.type == "Eltwise":
                    self._onto_own(step, reads, blob)
                if self._first[blob] in self._holds or not keeps(step.layer):
                    self._holds[self._first[blob]] = blob, time
            elif own and shares(step.layer) and reads and reads[0] is not None:
                self._lies_in(reads[0], blob)
                if step.type == "Split":
                    self._shape[blob] = self._shape[reads[0]]
                if step.type == "Concat" and runs_on_mkldnn(step.layer):
                    self._alone[blob] = step
        copied = step.summed and step.bottoms[-1] in self._copies
        residual = reads[-1] if step.summed and not copied else None
        if residual is not None and makes:
            self._lies_in(residual, makes[0])
            self._shape[makes[0]] = self._shape[residual]
            self._sums[self._first[residual]] = step.name
            self._holds[self._first[residual]] = makes[0], time
        self._runs.append(Run(step, tuple(reads), makes, copied))

    def _onto_own(self, step: Step, reads: Sequence[Blob | None], top: Blob) -> None:
        """An Eltwise in place: note which bottoms it writes over, unless its engine is said to be MKLDNN."""
        layer, index = step.layer, step.parts["layer"]
        param = layer.eltwise_param
        if layer.engine.startswith(NET_ENGINE) or param.engine == param.MKLDNN:
            return
        self._onto[index] = tuple(blob is not None and self._first[blob] == self._first[top] for blob in reads)
        if param.operation == param.SUM and runs_on_mkldnn(layer):
            what = f"works in place on '{top.name}', which Caffe clears first and MKLDNN does not"
            said = f"layer '{step.name}' (Eltwise): {what}"
            self._troubles.append(Trouble(index, said, False, step.name, CAFFE))

    def _lies_in(self, there: Blob, blob: Blob) -> None:
        self._first[blob] = self._first[there]

    def _read(self, step: Step, name: str) -> Blob | None:
        """The value that the step finds at `name`."""
        blob = self._named.get(name)
        if blob is None or (value := self._over(blob)) is None:
            return blob
        for index in step.parts.values():
            self._found[index, blob] = value
        first = step.parts.get("layer")
        if first is not None and self._first[blob] in self._sums:
            self._troubles.append(_lost(step, first, blob, value, self._sums[self._first[blob]]))
        return value

    def _over(self, blob: Blob, own_name: bool = False) -> Blob | None:
        """What was written over a value, in its shape; None if nothing was. `own_name`: and under its name."""
        value = self._written_over(blob)
        if value is None:
            return None
        first = self._first[blob]
        if first not in self._sums:
            self._changed.add(first)
        if self._shape[value] == self._shape[blob] and not own_name:
            return value
        if (value, blob.name) not in self._views:
            view = Blob(blob.name, -1 - len(self._views))  # it gets its number when all are known
            self._views[value, blob.name] = view, blob
            self._first[view], self._shape[view], self._made_at[view] = first, self._shape[blob], self._holds[first][1]
        return self._views[value, blob.name][0]

    def _written_over(self, blob: Blob) -> Blob | None:
        if blob not in self._first:  # made by a layer that Intel Caffe leaves out
            return None
        value, written = self._holds.get(self._first[blob], (blob, -1))
        return value if written > self._made_at[blob] else None

    def _at_the_end(self, blob: Blob) -> Blob | None:
        """What lies where a value was, when all is over; None if that is the value, or there is no view of it."""
        value = self._written_over(blob)
        if value is None or self._shape[value] == self._shape[blob]:
            return value
        view = self._views.get((value, blob.name))
        return None if view is None else view[0]

    def followed(self, outputs: Iterable[Blob]) -> Followed:
        # An output that a fused sum overwrites stays as the prototxt has it.
        ends = {blob: self._over(blob, own_name=True) for blob in outputs if self._first.get(blob) not in self._sums}
        gone = {blob: value for blob in self._first if (value := self._at_the_end(blob)) is not None}
        views = {view: value for (value, _), (view, _) in self._views.items()}
        shared = {blob for blob, first in self._first.items() if first in self._changed}
        for step in self._alone.values():
            if self._first[self._nodes[step.parts["layer"]].tops[0]] in self._changed:
                said = f"layer '{step.name}' (Concat): has one bottom, whose memory Caffe shares and MKLDNN copies"
                self._troubles.append(Trouble(step.parts["layer"], said, False, step.name, CAFFE))
        followed = Followed(
            tuple(self._with_views()),
            tuple(self._runs),
            tuple(sorted(ends.get(blob) or blob for blob in outputs)),
            gone,
            views,
            frozenset(shared | views.keys()),
            self._onto,
            tuple(self._troubles),
        )
        return _renumbered(followed) if views else followed

    def _with_views(self) -> list[Node]:
        """The layers with what they find, each view behind the layer that makes its value."""
        behind: dict[Blob, list[Node]] = {}
        makers = {blob: node for node in self._nodes for blob in node.tops}
        for i, ((value, name), (view, blob)) in enumerate(self._views.items()):
            layer = caffe_pb2.LayerParameter(
                name=f"{name} behind {makers[value].name}", type=SHARED, bottom=[value.name, name], top=[name]
            )
            behind.setdefault(value, []).append(Node(len(self._nodes) + i, layer, (value, blob), (view,)))
        nodes: list[Node] = []
        for node in self._nodes:
            bottoms = tuple(self._found.get((node.index, blob), blob) for blob in node.bottoms)
            nodes.append(node if bottoms == node.bottoms else replace(node, bottoms=bottoms))
            nodes += [view for blob in node.tops for view in behind.get(blob, ())]
        return nodes


def _renumbered(followed: Followed) -> Followed:
    """Every value with the number of its write: views count as one."""
    counts: dict[str, int] = {}
    number: dict[Blob | None, Blob] = {}
    for node in followed.nodes:
        for blob in node.tops:
            number[blob] = Blob(blob.name, counts.get(blob.name, 0))
            counts[blob.name] = number[blob].version + 1

    def every(blobs: Iterable[Blob]) -> tuple[Blob, ...]:
        return tuple(number[blob] for blob in blobs)

    return replace(
        followed,
        nodes=tuple(replace(n, bottoms=every(n.bottoms), tops=every(n.tops)) for n in followed.nodes),
        runs=tuple(replace(r, reads=tuple(map(number.get, r.reads)), makes=every(r.makes)) for r in followed.runs),
        outputs=tuple(sorted(every(followed.outputs))),
        overwritten={number[blob]: number[value] for blob, value in followed.overwritten.items()},
        views={number[view]: number[value] for view, value in followed.views.items()},
        shared=frozenset(every(followed.shared)),
    )


def _lost(step: Step, index: int, blob: Blob, value: Blob, convolution: str) -> Trouble:
    said = (
        f"layer '{step.name}' ({step.type}): finds the sum '{value.name}' where it reads '{blob.name}', for it stands "
        f"behind convolution '{convolution}', which leaves the sum there; let it stand in front of that"
    )
    return Trouble(index, said, False, convolution, UNFUSED)
