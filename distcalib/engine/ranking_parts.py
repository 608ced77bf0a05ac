"""A net cut into parts, most of which its candidates have in common: these a ranking compiles once.

A candidate of a ranking differs from the FP32 net in a layer or two.  The net is cut where few values live, and a part
in which a candidate has the same steps, with the same weights and on the same grids, is that of the FP32 net.  So the
ranking of n layers compiles the net and n parts of it, not n halves.  Where the cuts are depends on the FP32 net alone:
neither who computes a part nor what is computed beside it can change a bit of a result.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES
from distcalib.engine.builder import needed_for
from distcalib.engine.spec import NetSpec
from distcalib.quantize.fusion import Fused, find_fused, in_run_order, reads_of
from distcalib.quantize.storage import Storage, params_of, storage

Array = NDArray[np.float32]
Cuts = tuple[tuple[Blob, ...], ...]
"""The values that live at each cut, in run order."""
Order = Sequence[tuple[Node, Fused | None]]

FEWEST, MOST = 8, 12
"""Convolutions and inner products from cut to cut.  OpenVINO takes 9 ms to compile the smallest net, and lays out anew
what crosses a cut; with 3 to 6 a ranking took a fifth longer (SSD300-MobileNet), with 12 to 18 as long.  In between is
the cut that the fewest values cross: the end of a residual block."""


def cuts_of(graph: Graph, outputs: Sequence[Blob]) -> Cuts:
    """Where to cut a net that makes `outputs`."""
    order, live = _lives(graph, outputs)
    n_left = sum(group is not None for _, group in order)
    cuts, begin = [], 0
    while choices := list(_choices(order, begin, n_left)):
        n, place = min(choices, key=lambda choice: (len(live[choice[1]]), choice[0], -choice[1]))
        if live[place]:
            cuts.append(live[place])
        begin, n_left = place, n_left - n
    return tuple(cuts)


def every_cut(graph: Graph, outputs: Sequence[Blob]) -> Cuts:
    """What lives before each step but the first: a part for each."""
    return tuple(_lives(graph, outputs)[1][1:])


def _lives(graph: Graph, outputs: Sequence[Blob]) -> tuple[Order, list[tuple[Blob, ...]]]:
    groups = find_fused(graph)
    order = list(in_run_order(graph, groups))
    return order, live_values(order, outputs, needed_for(graph, groups, outputs))


def _choices(order: Order, begin: int, n_left: int) -> Iterator[tuple[int, int]]:
    """The places for the next cut, each with how many products it is behind `begin`; the last part has some, too."""
    n = 0
    for place in range(begin, len(order)):
        n += order[place][1] is not None
        if n > min(MOST, n_left - 1):
            return
        if n >= FEWEST:
            yield n, place + 1


def live_values(order: Order, outputs: Sequence[Blob], needed: frozenset[Blob]) -> list[tuple[Blob, ...]]:
    """By place in run order what is made before it and read from there on, on the way to `outputs`, for which the
    values `needed` are; nothing of data layers, whose values are there anyway."""
    last = dict.fromkeys(outputs, len(order))
    for place, (node, group) in reversed(list(enumerate(order))):
        if not needed.isdisjoint(node.tops):
            for blob in reads_of(node, group):
                last.setdefault(blob, place)
    made: list[Blob] = []
    live = []
    for place, (node, _) in enumerate(order):
        made = [blob for blob in made if last[blob] >= place]
        live.append(tuple(made))
        if node.type not in DATA_TYPES:
            made += [top for top in node.tops if top in last]
    return live


class NetParts:
    """The parts of a net between `cuts`, the first from the data on and the last up to `outputs`."""

    def __init__(self, spec: NetSpec, cuts: Cuts, outputs: Sequence[Blob]) -> None:
        self.spec, self.graph, self._cuts, self._outputs = spec, spec.graph, cuts, tuple(outputs)
        self._groups = find_fused(self.graph)
        self._order = list(in_run_order(self.graph, self._groups))
        self._ends = ((), *cuts, tuple(outputs))
        self._given = frozenset(top for node in self.graph if node.type in DATA_TYPES for top in node.tops)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def is_of(self, spec: NetSpec, cuts: Cuts, outputs: Sequence[Blob]) -> bool:
        """Whether it is the same net with the same weights and parts."""
        is_same = (self.spec, self._cuts, self._outputs) == (spec, cuts, tuple(outputs))
        names = self.spec.changed.keys() | spec.changed.keys()
        return is_same and all(_are_same(self.spec.changed.get(name), spec.changed.get(name)) for name in names)

    def begin(self, part: int) -> tuple[Blob, ...]:
        """What lives where the part begins."""
        return self._ends[part]

    def made(self, begin: int, end: int) -> tuple[Blob, ...]:
        """What the parts from `begin` to before `end` add to that for the next, or for the result."""
        there = self._given.union(self._ends[begin])
        return tuple(blob for blob in dict.fromkeys(self._ends[end]) if blob not in there)

    def differs(self, base: "NetParts") -> tuple[int, int]:
        """From where to before where this net is other than `base`; where it is not, from the last part on."""
        made = self._given.union(top for node, _ in self._order for top in node.tops)
        there = [made.issuperset(blobs) for blobs in self._ends]  # what this net fuses away it cannot be cut at
        other = [
            part for part, steps in enumerate(base._steps_of_parts) if any(self.steps_differ(base, i) for i in steps)
        ]
        begin, end = (other[0], other[-1] + 1) if other else (len(self) - 1, len(self))
        while not there[begin]:
            begin -= 1
        while not there[end]:
            end += 1
        return begin, end

    def steps_differ(self, base: "NetParts", index: int) -> bool:
        """Whether the step at the layer `index` of `base` is another one here, or one of its layers has other blobs."""
        ours, theirs = self.spec.changed, base.spec.changed
        same_weights = all(_are_same(ours.get(name), theirs.get(name)) for name in base._layers[index])
        return not same_weights or self._steps.get(index) != base._steps[index]

    @cached_property
    def _steps(self) -> Mapping[int, tuple[object, ...]]:
        """By the layer at which it runs, all that a step is made from but its weights."""
        stored = storage(self.graph, self._groups, params_of(self.graph))
        return {node.index: self._step(node, group, stored) for node, group in self._order}

    @cached_property
    def _layers(self) -> Mapping[int, tuple[str, ...]]:
        """By the same the names of its layers."""
        return {node.index: tuple(one.name for one in _members(node, group)) for node, group in self._order}

    @cached_property
    def _steps_of_parts(self) -> list[list[int]]:
        """By part the steps that make what it makes."""
        found = []
        for part in range(len(self)):
            given = self._given.union(self._ends[part])
            needed = needed_for(self.graph, self._groups, self.made(part, part + 1), given)
            found.append([node.index for node, _ in self._order if not needed.isdisjoint(node.tops)])
        return found

    def _step(self, node: Node, group: Fused | None, stored: Storage) -> tuple[object, ...]:
        run, at = stored.run, node.index if group is None else group.node.index
        reads = found_by(node, group, stored)
        name = "" if group is None else group.name
        return (
            tuple((one.index, one.layer.SerializeToString(deterministic=True)) for one in _members(node, group)),
            reads,
            node.tops,
            [stored.get(blob) for blob in (*reads, *node.tops)],
            run.reads.get(at),
            (name in run.int8, name in run.dropped, name in run.in_place, run.gains.get(name)),
            (run.unscaled.get(node.index), run.concat_scales.get(node.index), run.at_one.get(node.index)),
            self.graph.onto.get(node.index),
        )


def found_by(node: Node, group: Fused | None, stored: Storage) -> tuple[Blob, ...]:
    """The values that a step reads: those of its bottoms, and those that lie there when it runs."""
    at = node.index if group is None else group.node.index
    return (*reads_of(node, group), *(reading.blob for reading in stored.run.reads.get(at, ())))


def _members(node: Node, group: Fused | None) -> tuple[Node, ...]:
    return (node,) if group is None else group.members


def _are_same(ours: Sequence[Array] | None, theirs: Sequence[Array] | None) -> bool:
    """Whether these are the same blobs; None: those of the file."""
    if ours is None or theirs is None or ours is theirs:
        return ours is theirs
    pairs = list(zip(ours, theirs, strict=False))
    return len(ours) == len(theirs) and all(a is b or np.array_equal(a, b) for a, b in pairs)
