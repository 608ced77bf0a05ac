"""How far the output of each of many candidates is from FP32's, on a few iterations: what a search ranks layers by.

Candidates that differ in one layer share all that comes before it.  A chunk of them runs in one actor: the part of the
net up to their first difference once an iteration, then the rest once a candidate, from the values that live at the
cut.  Compiling is most of the cost on small nets, and half a net takes half of it; nothing travels, so nothing is
exported.  Chunks depend on the net alone, never on the actors, so that no kernel chosen at a cut can change a result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, isqrt

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph
from distcalib.data import DATA_TYPES
from distcalib.engine.builder import build_model, layer_shapes, needed_for
from distcalib.engine.program import LocalProgram
from distcalib.engine.spec import NetSpec
from distcalib.layers import Blobs, ZeroBlobs
from distcalib.quantize.fusion import find_fused, in_run_order, reads_of

Array = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RankSpec:
    """Candidates by name, compared with FP32 at the values `outputs` over `iterations`.

    `reference`: the FP32 values, by iteration, in the order of `outputs`.  `begin` is where in run order the first
    difference between the candidates can be; all before it is theirs in common.
    """

    candidates: Mapping[str, NetSpec]
    outputs: tuple[Blob, ...]
    iterations: tuple[int, ...]
    reference: Mapping[int, tuple[Array, ...]] = field(compare=False, repr=False)
    begin: int


def in_chunks(
    base: NetSpec, candidates: Mapping[str, NetSpec], share: bool = True
) -> list[tuple[int, dict[str, NetSpec]]]:
    """Candidates by name in groups of neighbours: where in run order each group begins to differ from `base`, and it.

    A chunk of √n of n candidates: larger ones begin too early for most of their members, smaller ones run the part in
    common too often.  With `share` False each candidate is its own and begins at the data.
    """
    graph = base.graph
    firsts = {name: _first_difference(graph, spec.graph) for name, spec in candidates.items()}
    if not share:
        return [(0, {name: spec}) for name, spec in candidates.items()]
    names = sorted(candidates, key=lambda name: firsts[name])
    size = max(1, isqrt(len(names)))
    chunks = [names[i : i + size] for i in range(0, len(names), size)]
    return [(firsts[chunk[0]], {name: candidates[name] for name in chunk}) for chunk in chunks]


def rank(
    spec: RankSpec,
    blobs_of: Callable[[NetSpec], Blobs],
    shapes: Shapes,
    batch: Callable[[int], Mapping[str, Array]],
    n_threads: int,
) -> dict[str, float]:
    """Compile and run a chunk: by candidate the mean over the iterations of `distance`."""
    first = next(iter(spec.candidates.values()))
    live = live_values(first.graph, spec.outputs, spec.begin)
    sizes = _sizes(first, shapes)
    given = {blob: sizes[blob] for blob in live}
    head = _part(first, blobs_of, shapes, n_threads, keep=live, given={})
    tails = {
        name: _part(one, blobs_of, shapes, n_threads, keep=spec.outputs, given=given)
        for name, one in spec.candidates.items()
    }
    found: dict[str, list[float]] = {name: [] for name in tails}
    for iteration in spec.iterations:
        values = dict(batch(iteration))
        values.update((str(blob), array) for blob, array in head(values).items())
        for name, tail in tails.items():
            outputs = {**values, **{str(blob): array for blob, array in tail(values).items()}}
            got = [outputs[str(blob)] for blob in spec.outputs]
            found[name].append(distance(got, spec.reference[iteration]))
    return {name: fsum(parts) / len(parts) for name, parts in found.items()}


def distance(values: Sequence[Array], reference: Sequence[Array]) -> float:
    """Σ over outputs of mean (y - y_FP32)², f64; infinite where an output is not finite."""
    parts = [float(np.mean((a.astype(np.float64) - b) ** 2)) for a, b in zip(values, reference, strict=True)]
    total = fsum(parts)
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


def _part(
    spec: NetSpec,
    blobs_of: Callable[[NetSpec], Blobs],
    shapes: Shapes,
    n_threads: int,
    keep: tuple[Blob, ...],
    given: Mapping[Blob, tuple[int, ...]],
) -> Callable[[Mapping[str, Array]], Mapping[Blob, Array]]:
    """What leads from `given` and the data to `keep`, ready to run; nothing at all where all of it is given."""
    wanted = tuple(blob for blob in keep if blob not in given)
    if not wanted:
        return lambda values: {}
    built = build_model(spec.graph, blobs_of(spec), shapes, spec.where, keep=wanted, given=given)
    return LocalProgram(built, spec.where, n_threads).run


def _sizes(spec: NetSpec, shapes: Shapes) -> Mapping[Blob, tuple[int, ...]]:
    """The shape of every value."""
    return layer_shapes(spec.graph, ZeroBlobs(), shapes, spec.where)[0]


def _first_difference(base: Graph, other: Graph) -> int:
    """The place in run order of the first layer whose quantization_param differs."""
    order = list(in_run_order(base, find_fused(base)))
    for place, (node, group) in enumerate(order):
        index = node.index if group is None else group.node.index
        if base.nodes[index].layer != other.nodes[index].layer:
            return place
    return len(order)
