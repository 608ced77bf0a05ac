"""A piece of a ranking as one net: where a candidate differs from FP32 no more, its images go on behind those of the
others, in one batch.

A candidate has a layer or two of its own, and OpenVINO takes as long for each node that it compiles, whatever that
computes.  So what comes behind a candidate's own layers is there once, and what several candidates compute alike before
it, too.  That is for nets whose images do not depend on what stands beside them (calibration/image_order.py).  Bits may
depend on which candidates are in one net, so that must follow from the net and the data alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe.graph import Blob, Node
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch
from distcalib.engine.builder import Builder, Shapes
from distcalib.engine.finding import Finding
from distcalib.engine.program import LocalProgram
from distcalib.engine.ranking import RankSpec, distance
from distcalib.engine.ranking_parts import NetParts, every_cut, found_by
from distcalib.engine.spec import NetSpec
from distcalib.errors import UnsupportedError, WeightsError
from distcalib.layers import Blobs
from distcalib.quantize.fusion import Fused, in_run_order

FP32 = ""
Members = tuple[str, ...]
"""Of whom a value has rows, in this order: of FP32, and of the candidates that differ from it there."""


@dataclass(frozen=True)
class StackProgram:
    """A piece ready to run; `members`: those of each output, FP32 too if a candidate does not differ there."""

    spec: RankSpec
    program: LocalProgram
    members: Sequence[Members]

    def distances(self, iteration: int, batch: Batch) -> dict[str, float]:
        """By candidate the `distance` of its outputs in one iteration, whose data is `batch`."""
        made: list[dict[str, NDArray[np.float32]]] = [
            dict(zip(members, np.split(values, len(members)), strict=True))
            for values, members in zip(self.program.views(batch.tops), self.members, strict=True)
        ]

        def compared(name: str) -> float:
            values = [batch.kept(rows[name if name in rows else FP32]) for rows in made]
            return distance(values, self.spec.reference[iteration], self.spec.weights)

        return {name: compared(name) for name in self.spec.candidates}


def compile_stack(
    spec: RankSpec,
    blobs_of: Callable[[NetSpec], Blobs],
    shapes: Shapes,
    n_threads: int,
    arithmetic: Arithmetic = NATIVE,
) -> StackProgram:
    """Compile a piece for data layers whose tops have `shapes`.  Raises UnsupportedError, WeightsError, EngineError."""
    where, outputs = spec.base.where, spec.outputs
    cuts = every_cut(spec.base.graph, outputs)
    base = NetParts(spec.base, cuts, outputs)
    nets = {name: NetParts(one, cuts, outputs) for name, one in spec.candidates.items()}
    builder = _StackBuilder(base, nets, blobs_of, shapes, arithmetic)
    builder.begin_at({}, outputs)
    builder.run()
    results = [ops.result(builder.found.made(blob)) for blob in outputs]
    model = ov.Model(results, list(builder.parameters.values()), where)
    program = LocalProgram(builder.built(model, outputs), where, n_threads)
    return StackProgram(spec, program, [builder.members_of(blob) for blob in outputs])


class _OwnBuilder(Builder):
    """Builds what a candidate computes itself, but what one of the candidates `before` it computes of the same."""

    def __init__(
        self, net: NetParts, before: Sequence[_OwnBuilder], blobs: Blobs, shapes: Shapes, arithmetic: Arithmetic
    ) -> None:
        super().__init__(net.graph, blobs, shapes, net.spec.where, arithmetic)
        self._net, self._before = net, tuple(before)
        self._found: dict[int, list[Output | None]] = {}  # by the index of a step

    def _step(self, node: Node, group: Fused | None) -> None:
        found = [self.values.get(blob) for blob in found_by(node, group, self.stored)]
        self._found[node.index] = found
        for other in self._before:
            theirs = other._found.get(node.index)
            if theirs is None or len(theirs) != len(found) or self._net.steps_differ(other._net, node.index):
                continue
            if all(one is two for one, two in zip(found, theirs, strict=True)):
                self.values.update((top, other.values[top]) for top in node.tops)
                return
        super()._step(node, group)


class _StackBuilder(Builder):
    """Builds the FP32 net on the images of FP32 and of all candidates that differ from it no more."""

    def __init__(
        self,
        base: NetParts,
        nets: Mapping[str, NetParts],
        blobs_of: Callable[[NetSpec], Blobs],
        shapes: Shapes,
        arithmetic: Arithmetic,
    ) -> None:
        super().__init__(base.graph, blobs_of(base.spec), shapes, base.spec.where, arithmetic)
        self._members: dict[Blob, Members] = {}
        self._base, self._nets, self._blobs_of = base, nets, blobs_of
        [self._n_rows] = {shape[0] for shape in shapes.values()}  # RankSpec.sized has made them so
        order = in_run_order(self.graph, self.groups)
        self._places = {node.index: place for place, (node, _) in enumerate(order)}
        self._reached = -1  # the place up to which candidates have come and gone
        self._regions = {name: net.differs(base) for name, net in nets.items()}
        self._owns: list[_OwnBuilder] = []
        self._made: dict[str, Mapping[Blob, Output]] = {}
        self._joined = [FP32]
        self._cut: dict[tuple[int, int, int], tuple[Output, Output]] = {}

    def members_of(self, blob: Blob) -> Members:
        """Of whom it has rows."""
        return self._members.get(blob, (FP32,))

    def convert_all(self) -> None:
        """As of any net, and then take in the candidates that differ up to its end."""
        super().convert_all()
        if not self.problems:
            self._go_to(len(self._places))

    def _step(self, node: Node, group: Fused | None) -> None:
        self._go_to(self._places[node.index])
        if self.problems:  # with one candidate missing nothing further on is what it should be
            return
        found = [blob for blob in found_by(node, group, self.stored) if blob in self.values]
        there = {name for blob in found for name in self.members_of(blob)}
        # FP32 is left, maybe, and yet alone in what is made of the data only.
        members = tuple(name for name in self._joined if name in there) or (FP32,)
        values = self.values
        self.values = {**values, **{blob: self._aligned(blob, members) for blob in found}}
        self.found = Finding(self.values, self.stored, self.integers)
        try:
            super()._step(node, group)
            values.update((top, self.values[top]) for top in node.tops)
            self._members.update((top, members) for top in node.tops)
        finally:
            self.values, self.found = values, Finding(values, self.stored, self.integers)

    def _go_to(self, place: int) -> None:
        """Take in what candidates have made by `place`, and build those that begin to differ there."""
        while self._reached < place and not self.problems:
            self._reached += 1
            for name, (_, end) in self._regions.items():
                if end == self._reached:
                    self._join(name)
            if self._reached == max(end for _, end in self._regions.values()):
                self._leave_fp32()
            try:
                for name, (begin, end) in self._regions.items():
                    if begin == self._reached:
                        self._made[name] = self._own(self._nets[name], begin, end)
            except (UnsupportedError, WeightsError) as problem:
                self.problems.append(problem)

    def _own(self, net: NetParts, begin: int, end: int) -> Mapping[Blob, Output]:
        """What a candidate computes itself, from what FP32 has made."""
        own = _OwnBuilder(net, self._owns, self._blobs_of(net.spec), self.shapes, self.arithmetic)
        own.parameters, made = self.parameters, net.made(begin, end)
        own.begin_at({blob: self._rows(blob, 0, 1) for blob in net.begin(begin)}, made)
        own.run()
        self._owns.append(own)
        return {blob: own.found.made(blob) for blob in made}

    def _join(self, name: str) -> None:
        self._joined.append(name)
        for blob, rows in self._made.pop(name).items():
            self.values[blob] = ops.concat([self.values[blob], rows], 0).output(0)
            self._members[blob] = (*self.members_of(blob), name)

    def _leave_fp32(self) -> None:
        """Compute FP32 itself no more, if all that is left to be computed differs from it."""
        live = self._base.begin(self._reached)
        if all(len(self.members_of(blob)) > 1 for blob in live):
            self._joined.remove(FP32)
            rest = {blob: self._aligned(blob, tuple(self._joined)) for blob in live}
            self.values.update(rest)
            self._members.update(dict.fromkeys(rest, tuple(self._joined)))

    def _aligned(self, blob: Blob, members: Members) -> Output:
        """The value with the rows of `members`, which are those of FP32 for each that has none of its own."""
        there = self.members_of(blob)
        if there == members:
            return self.values[blob]
        places = [there.index(name if name in there else FP32) for name in members]
        starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1] + 1]
        ends = [*starts[1:], len(places)]
        parts = [self._rows(blob, places[i], places[j - 1] + 1) for i, j in zip(starts, ends, strict=True)]
        return parts[0] if len(parts) == 1 else ops.concat(parts, 0).output(0)

    def _rows(self, blob: Blob, begin: int, end: int) -> Output:
        """The rows of a value from its member at `begin` to before that at `end`."""
        value = self.values[blob]
        if (begin, end) == (0, len(self.members_of(blob))):
            return value
        key = id(value), begin, end  # the value is kept, or its id would be another one's
        if key not in self._cut:
            bounds = [np.array([n], np.int64) for n in (begin * self._n_rows, end * self._n_rows, 1, 0)]
            self._cut[key] = value, ops.slice(value, *bounds).output(0)
        return self._cut[key][1]
