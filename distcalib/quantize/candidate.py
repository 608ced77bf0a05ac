"""A candidate: the set of layers that run INT8, and the rule by which one layer pulls another along.

Intel Caffe runs a convolution with a fused sum in FP32 if its residual is FP32 (golden residual_fp32_shortcut), so
returning a layer to FP32 takes with it the sums that its output is the residual of. Searches count what really runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Space:
    """All layers that can run INT8, in net order, and what each of them needs to be INT8 beside itself.

    `kept_int8` are those that a search must leave INT8.
    """

    order: tuple[str, ...]
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kept_int8: frozenset[str] = frozenset()

    def candidate(self, layers: Iterable[str]) -> "Candidate":
        """The largest candidate inside `layers` that really runs: without those that lack what they need."""
        wanted, kept = set(layers), set[str]()
        for name in self.order:  # what a layer needs stands before it
            if name in wanted and self.needs.get(name, frozenset()) <= kept:
                kept.add(name)
        return Candidate(frozenset(kept), self)

    def smallest(self, layer: str) -> "Candidate":
        """The smallest candidate in which `layer` runs: with all that it needs, and nothing else."""
        wanted, needed = [layer], {layer}
        while wanted:
            new = self.needs.get(wanted.pop(), frozenset()) - needed
            needed |= new
            wanted += sorted(new)
        return Candidate(frozenset(needed), self)

    @property
    def all_int8(self) -> "Candidate":
        """Every layer INT8 that can be."""
        return self.candidate(self.order)


@dataclass(frozen=True)
class Candidate:
    """The layers that run INT8; equal to another of the same layers."""

    int8: frozenset[str]
    space: Space = field(compare=False, repr=False)

    def without(self, *layers: str) -> "Candidate":
        """The candidate with `layers`, and what cannot be INT8 without them, back in FP32."""
        return self.space.candidate(self.int8.difference(layers))

    @cached_property
    def int8_layers(self) -> tuple[str, ...]:
        """The INT8 layers in net order."""
        return tuple(name for name in self.space.order if name in self.int8)

    @cached_property
    def movable(self) -> tuple[str, ...]:
        """The INT8 layers that a search may return to FP32, in net order: those that take none of `kept_int8` along."""
        kept_int8 = self.space.kept_int8 & self.int8
        return tuple(name for name in self.int8_layers if not kept_int8 or kept_int8 <= self.without(name).int8)

    @cached_property
    def returns(self) -> dict[str, "Candidate"]:
        """By FP32 layer the candidate with it INT8 again, in net order, of those that have all that they need."""
        candidates = {name: self.space.candidate(self.int8 | {name}) for name in self.fp32_layers}
        return {name: candidate for name, candidate in candidates.items() if name in candidate.int8}

    @cached_property
    def fp32_layers(self) -> tuple[str, ...]:
        """The layers that fell back to FP32, in net order."""
        return tuple(name for name in self.space.order if name not in self.int8)
