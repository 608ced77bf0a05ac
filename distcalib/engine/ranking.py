"""How far the output of each of many candidates is from FP32's, on a few iterations: what a search ranks layers by.

Candidates that differ in one layer share all that comes before it.  A chunk of them, or a piece of one, runs in one
actor: the part of the net up to their first difference once an iteration, then the rest once a candidate, from the
values that live at the cut.  Compiling is most of the cost on small nets, and half a net takes half of it; nothing is
exported: an actor that takes iterations from another compiles all of it again, which pays where it would be idle.
Where a chunk begins, and what is run before that, depends on the net alone, never on the actors, so that no kernel
chosen at a cut can change a result; how it is divided among them (ranking_split.py) changes none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, isqrt

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch
from distcalib.engine.builder import BuiltModel, build_model, layer_shapes, needed_for
from distcalib.engine.program import LocalProgram
from distcalib.engine.spec import NetSpec
from distcalib.layers import Blobs, ZeroBlobs
from distcalib.quantize.fusion import Fused, find_fused, in_run_order, reads_of

Array = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RankSpec:
    """Candidates by name, compared with FP32 at the values `outputs`.

    `reference`: the FP32 values, by iteration, in the order of `outputs`; `weights`: by how much each output counts.
    `begin` is where in run order the first difference between the candidates can be; what is before it is run as in
    `head`.  `images` (n, batch) i32: an iteration is a row of these, as in NetSpec.
    """

    candidates: Mapping[str, NetSpec]
    outputs: tuple[Blob, ...]
    reference: Mapping[int, tuple[Array, ...]] = field(compare=False, repr=False)
    weights: tuple[float, ...]
    begin: int
    head: NetSpec
    images: NDArray[np.int32] | None = field(default=None, compare=False)


def output_weights(reference: Mapping[int, Sequence[Array]]) -> tuple[float, ...]:
    """By how much the distance of each output counts: 1 for one alone; of several, which have units of their own (boxes
    and confidences), one over the mean square of FP32's, which are given by iteration.
    """
    squares = [[float(np.mean(np.square(y, dtype=np.float64))) for y in made] for made in reference.values()]
    means = [fsum(column) / len(column) for column in zip(*squares, strict=True)]
    if len(means) == 1:
        return (1.0,)
    return tuple(1.0 / mean if 0.0 < mean < np.inf else 1.0 for mean in means)


def in_chunks(
    base: NetSpec, candidates: Mapping[str, NetSpec], share: bool = True
) -> list[tuple[int, dict[str, NetSpec]]]:
    """Where in run order each chunk of candidates begins to differ from `base`, and it by name; see `grouped`."""
    graph = base.graph
    order = list(in_run_order(graph, find_fused(graph)))
    firsts = {name: _first_difference(order, graph, spec.graph) for name, spec in candidates.items()}
    return [(begin, {name: candidates[name] for name in names}) for begin, names in grouped(firsts, share)]


def grouped(firsts: Mapping[str, int], share: bool = True) -> list[tuple[int, list[str]]]:
    """Names in groups of neighbours, each with its first place, from the place in run order of each name.

    A group is √n of n names: larger ones begin too early for most of their members, smaller ones run the part in
    common too often.  With `share` False each name is its own group and begins at the data.
    """
    if not share:
        return [(0, [name]) for name in firsts]
    names = sorted(firsts, key=firsts.__getitem__)
    size = max(1, isqrt(len(names)))
    groups = [names[i : i + size] for i in range(0, len(names), size)]
    return [(firsts[group[0]], group) for group in groups]


@dataclass(frozen=True)
class RankProgram:
    """A piece of a chunk ready to run: the part in common, and the rest of all candidates in one net.

    `head` makes the values at the cut, `tails` the `wanted` outputs of the candidates, one after the other.
    """

    spec: RankSpec
    head: Callable[[Mapping[str, Array]], Sequence[Array]]
    live: tuple[Blob, ...]
    tails: Callable[[Mapping[str, Array]], Sequence[Array]]
    wanted: tuple[Blob, ...]

    def distances(self, iteration: int, batch: Batch) -> dict[str, float]:
        """By candidate the `distance` of its outputs in one iteration, whose data is `batch`."""
        values = dict(batch.tops) | dict(zip(map(str, self.live), self.head(batch.tops), strict=True))
        made = iter(self.tails(values))
        distances: dict[str, float] = {}
        for name in self.spec.candidates:
            outputs = values | {str(blob): next(made) for blob in self.wanted}
            kept = [batch.kept(outputs[str(blob)]) for blob in self.spec.outputs]
            distances[name] = distance(kept, self.spec.reference[iteration], self.spec.weights)
        return distances


def compile_ranking(
    spec: RankSpec,
    blobs_of: Callable[[NetSpec], Blobs],
    shapes: Shapes,
    n_threads: int,
    arithmetic: Arithmetic = NATIVE,
) -> RankProgram:
    """Compile a piece: its head, and its tails as one net, which takes less time than one net for each."""
    live = live_values(spec.head.graph, spec.outputs, spec.begin)
    sizes = _sizes(spec.head, shapes)
    given = {blob: sizes[blob] for blob in live}
    wanted = tuple(blob for blob in spec.outputs if blob not in given)

    def built(one: NetSpec, keep: tuple[Blob, ...], given: Mapping[Blob, tuple[int, ...]]) -> BuiltModel:
        return build_model(one.graph, blobs_of(one), shapes, one.where, keep=keep, given=given, arithmetic=arithmetic)

    def ready(keep: tuple[Blob, ...], made: Callable[[], BuiltModel]) -> Callable[[Mapping[str, Array]], list[Array]]:
        return LocalProgram(made(), spec.head.where, n_threads).results if keep else lambda values: []

    head = ready(live, lambda: built(spec.head, live, {}))
    tails = ready(wanted, lambda: side_by_side([built(one, wanted, given) for one in spec.candidates.values()]))
    return RankProgram(spec, head, live, tails, wanted)


def side_by_side(nets: Sequence[BuiltModel]) -> BuiltModel:
    """Nets as one, each with inputs of its own, one net's inputs and results after the other's.

    Inputs of the same names must not be one: OpenVINO would compute equal layers of two nets once and fuse what is left
    in another way, so that the bits of a net depended on which others stand beside it.
    """
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


def live_values(graph: Graph, outputs: Sequence[Blob], begin: int) -> tuple[Blob, ...]:
    """What is computed before place `begin` of the run order and read from there on, on the way to `outputs`.

    Values of data layers are left out: they are there anyway.
    """
    groups = find_fused(graph)
    order = list(in_run_order(graph, groups))
    needed = needed_for(graph, groups, outputs)
    read = {blob for node, group in order[begin:] if not needed.isdisjoint(node.tops) for blob in reads_of(node, group)}
    read.update(outputs)
    before = [top for node, _ in order[:begin] if node.type not in DATA_TYPES for top in node.tops]
    return tuple(blob for blob in before if blob in read)


def _sizes(spec: NetSpec, shapes: Shapes) -> Mapping[Blob, tuple[int, ...]]:
    """The shape of every value."""
    return layer_shapes(spec.graph, ZeroBlobs(), shapes, spec.where)[0]


def _first_difference(order: Sequence[tuple[Node, Fused | None]], base: Graph, other: Graph) -> int:
    """The place in the run order of `base` of the first layer that differs."""
    there = {node.index: node.layer for node in other}
    for place, (node, group) in enumerate(order):
        index = node.index if group is None else group.node.index
        if base.layer(index).layer != there.get(index):
            return place
    return len(order)
