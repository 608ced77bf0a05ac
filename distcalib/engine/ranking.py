"""How far the output of each of many candidates is from FP32's, on a few iterations: what a search ranks layers by.

A candidate has a layer or two in INT8, so nearly all of it is the FP32 net, which is compiled once, in the parts of
ranking_parts.py.  An actor runs it up to where a candidate begins to differ, there the candidate's own parts, and from
where they end those of the FP32 net again, on what the candidate made.  Nothing is exported: each actor compiles the
FP32 net once for all its pieces.  An actor that takes over iterations of another compiles only the candidates' own
parts again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph
from distcalib.data import DATA_TYPES
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch
from distcalib.engine.builder import BuiltModel, build_model, layer_shapes
from distcalib.engine.program import LocalProgram
from distcalib.engine.ranking_parts import Cuts, NetParts, cuts_of
from distcalib.engine.spec import NetSpec
from distcalib.layers import Blobs, ZeroBlobs
from distcalib.quantize.fusion import find_fused, in_run_order

Array = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
Values = Mapping[str, Array]
Layer = caffe_pb2.LayerParameter


@dataclass(frozen=True)
class RankSpec:
    """Candidates by name, compared with FP32 at the values `outputs`.

    `reference`: the FP32 values, by iteration, in the order of `outputs`; `weights`: by how much each output counts.
    `base` is what the candidates have in common, the FP32 net, in parts between `cuts`.  `images` (n, m) i32: an
    iteration is a row of these, as in NetSpec, but of `m` images, which may be fewer than the net's batch has.
    `stacked`: it is made into one net (ranking_stack.py), and no parts are.
    """

    candidates: Mapping[str, NetSpec]
    outputs: tuple[Blob, ...]
    reference: Mapping[int, tuple[Array, ...]] = field(compare=False, repr=False)
    weights: tuple[float, ...]
    base: NetSpec
    cuts: Cuts
    images: NDArray[np.int32] | None = field(default=None, compare=False)
    stacked: bool = False

    def sized(self, shapes: Shapes) -> Shapes:
        """The shapes of the data layers' tops, from those that they have in the net."""
        if self.images is None:
            return shapes
        return {top: (self.images.shape[1], *shape[1:]) for top, shape in shapes.items()}


@dataclass(frozen=True)
class Plan:
    """What all pieces of a ranking have in common.

    `candidates` in the order of where they begin to differ from `base`, and `begins`: the part of the net, from 0 to 1,
    that is before it.
    """

    base: NetSpec
    cuts: Cuts
    candidates: Mapping[str, NetSpec]
    begins: Mapping[str, float]

    @classmethod
    def ordered(
        cls, base: NetSpec, cuts: Cuts, candidates: Mapping[str, NetSpec], begins: Mapping[str, float]
    ) -> "Plan":
        """The same, of candidates in any order."""
        names = sorted(candidates, key=begins.__getitem__)
        return cls(base, cuts, {name: candidates[name] for name in names}, {name: begins[name] for name in names})


def planned(base: NetSpec, candidates: Mapping[str, NetSpec], outputs: Sequence[Blob], share: bool = True) -> Plan:
    """The ranking of `candidates`; with `share` False each computes all of its net."""
    graph, layers = base.graph, base.layers
    run = (node if group is None else group.node for node, group in in_run_order(graph, find_fused(graph)))
    order = [node.index for node in run if node.index < len(layers)]  # views of shared memory are no layers
    begins = {name: _first_difference(order, layers, spec.layers) / len(order) for name, spec in candidates.items()}
    return Plan.ordered(base, cuts_of(graph, outputs) if share else (), candidates, begins)


def _first_difference(order: Sequence[int], base: Sequence[Layer], other: Sequence[Layer]) -> int:
    """The place in `order`, which has the layers by number as they run, of the first that differs."""
    return next((place for place, index in enumerate(order) if base[index] != other[index]), len(order))


def can_be_of(graph: Graph, shapes: Mapping[Blob, tuple[int, ...]], n: int, where: str) -> bool:
    """Whether the net, whose values have `shapes`, can be built for batches of `n` images as well, and each value has a
    row an image then, too."""
    wanted = {blob: (n, *shape[1:]) if shape else shape for blob, shape in shapes.items()}
    data = {blob.name: wanted[blob] for node in graph if node.type in DATA_TYPES for blob in node.tops}
    made, problems = layer_shapes(graph, ZeroBlobs(), data, where)
    return not problems and all(wanted[blob] == shape for blob, shape in made.items())


def output_weights(reference: Mapping[int, Sequence[Array]]) -> tuple[float, ...]:
    """By how much the distance of each output counts: 1 for one alone; of several, which have units of their own (boxes
    and confidences), one over the mean square of FP32's, which are given by iteration.
    """
    squares = [[float(np.mean(np.square(y, dtype=np.float64))) for y in made] for made in reference.values()]
    means = [fsum(column) / len(column) for column in zip(*squares, strict=True)]
    if len(means) == 1:
        return (1.0,)
    return tuple(1.0 / mean if 0.0 < mean < np.inf else 1.0 for mean in means)


Run = Callable[[Values], Sequence[Array]]


@dataclass(frozen=True)
class Own:
    """What a candidate computes itself: the parts from `begin` to before `end`, which make `made`."""

    name: str
    begin: int
    end: int
    made: tuple[Blob, ...]


class BaseParts:
    """The FP32 net of a ranking in an actor; its parts are compiled when the first piece needs them."""

    def __init__(
        self,
        spec: RankSpec,
        blobs_of: Callable[[NetSpec], Blobs],
        shapes: Shapes,
        n_threads: int,
        arithmetic: Arithmetic = NATIVE,
    ) -> None:
        self._blobs_of, self._shapes, self._n_threads, self._arithmetic = blobs_of, shapes, n_threads, arithmetic
        self.net = NetParts(spec.base, spec.cuts, spec.outputs)
        self._sizes, _ = layer_shapes(self.net.graph, ZeroBlobs(), shapes, spec.base.where)
        self._compiled: dict[int, Run] = {}

    def is_of(self, spec: RankSpec, shapes: Shapes) -> bool:
        """Whether it is the one of another piece, too, on data of these shapes."""
        return self._shapes == shapes and self.net.is_of(spec.base, spec.cuts, spec.outputs)

    def run(self, part: int, values: Values) -> Sequence[Array]:
        """What a part makes that was compiled."""
        return self._compiled[part](values)

    def compile(self, parts: Iterable[int]) -> None:
        """Compile those that no piece has needed before."""
        for part in parts:
            if part not in self._compiled:
                self._compiled[part] = self.compiled([self.built(self.net, part, part + 1)])

    def built(self, net: NetParts, begin: int, end: int) -> BuiltModel:
        """The parts of this net, or of a candidate, from `begin` to before `end`."""
        made, given = net.made(begin, end), {blob: self._sizes[blob] for blob in net.begin(begin)}
        blobs, where = self._blobs_of(net.spec), net.spec.where
        return build_model(net.graph, blobs, self._shapes, where, keep=made, given=given, arithmetic=self._arithmetic)

    def compiled(self, models: Sequence[BuiltModel]) -> Run:
        """What runs them as one net; its results are views until it runs again."""
        some = [model for model in models if model.outputs]
        return LocalProgram(side_by_side(some), self.net.spec.where, self._n_threads).views if some else lambda _: []


@dataclass(frozen=True)
class RankProgram:
    """A piece of a ranking ready to run: by the part that they begin with what candidates compute themselves, `run`
    making one's values after the other's."""

    spec: RankSpec
    base: BaseParts
    own: Mapping[int, tuple[Sequence[Own], Run]]

    def distances(self, iteration: int, batch: Batch) -> dict[str, float]:
        """By candidate the `distance` of its outputs in one iteration, whose data is `batch`."""
        distances: dict[str, float] = {}
        values, place, tops = batch.tops, 0, batch.tops

        def compared(values: Values) -> float:
            kept = [batch.kept(values[str(blob)]) for blob in self.spec.outputs]
            return distance(kept, self.spec.reference[iteration], self.spec.weights)

        for begin, (candidates, run) in self.own.items():
            reached, live = self._gone_on(values, place, begin, tops), map(str, self.base.net.begin(begin))
            values, place = {**tops, **{name: np.array(reached[name]) for name in live}}, begin  # parts will run again
            made = iter(run(values))
            for own in candidates:
                changed = self._at(own.end, values, {str(blob): next(made) for blob in own.made}, tops)
                distances[own.name] = compared(self._gone_on(changed, own.end, len(self.base.net), tops))
        return {name: distances[name] for name in self.spec.candidates}

    def _gone_on(self, values: Values, begin: int, end: int, tops: Values) -> Values:
        """The values at the begin of part `end` of the FP32 net, from those at the begin of part `begin`."""
        for part in range(begin, end):
            made = map(str, self.base.net.made(part, part + 1))
            values = self._at(part + 1, values, dict(zip(made, self.base.run(part, values), strict=True)), tops)
        return values

    def _at(self, part: int, before: Values, made: Values, tops: Values) -> Values:
        """What lives at the begin of `part`, of what lived before and was made since."""
        there = {**before, **made}
        return {**tops, **{str(blob): there[str(blob)] for blob in self.base.net.begin(part)}}


def compile_ranking(spec: RankSpec, base: BaseParts) -> RankProgram:
    """Compile a piece; the parts of its candidates that begin together as one net, which takes less time."""
    together: dict[int, list[tuple[Own, BuiltModel]]] = {}
    for name, candidate in spec.candidates.items():
        net = NetParts(candidate, spec.cuts, spec.outputs)
        begin, end = net.differs(base.net)
        one = Own(name, begin, end, net.made(begin, end)), base.built(net, begin, end)
        together.setdefault(begin, []).append(one)
    own = {
        begin: ([one for one, _ in together[begin]], base.compiled([model for _, model in together[begin]]))
        for begin in sorted(together)
    }
    first_end = min(one.end for candidates, _ in own.values() for one in candidates)
    base.compile({*range(max(own)), *range(first_end, len(base.net))})
    return RankProgram(spec, base, own)


def side_by_side(nets: Sequence[BuiltModel]) -> BuiltModel:
    """Nets as one, each with inputs of its own, one net's inputs and results after the other's.

    Inputs of the same names must not be one: OpenVINO would compute equal layers of two nets once and fuse what is left
    in another way, so that the bits of a net depended on which others stand beside it.
    """
    if len(nets) == 1:
        return nets[0]
    parameters = [parameter for net in nets for parameter in net.model.get_parameters()]
    results = [result for net in nets for result in net.model.get_results()]
    model = ov.Model(results, parameters, nets[0].model.get_friendly_name())
    inputs = tuple(name for net in nets for name in net.inputs)
    outputs = tuple(blob for net in nets for blob in net.outputs)
    return replace(nets[0], model=model, inputs=inputs, outputs=outputs, values={}, stored={})


def distance(values: Sequence[Array], reference: Sequence[Array], weights: Sequence[float] | None = None) -> float:
    """Σ over outputs of mean (y - y_FP32)² times its weight, f64; infinite where an output is not finite."""
    parts = [float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(values, reference, strict=True)]
    total = fsum(parts if weights is None else (part * weight for part, weight in zip(parts, weights, strict=True)))
    return total if np.isfinite(total) else float("inf")
