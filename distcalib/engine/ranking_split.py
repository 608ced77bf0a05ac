"""A ranking divided among actors: some of the candidates each, and of the iterations where there are more actors.

No distance depends on how that is done, so the times that `divided` goes by, which were measured, may differ from run
to run.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distcalib.engine.ranking import Plan
from distcalib.engine.spec import NetSpec

Array = NDArray[np.float32]
STACKED = 12
"""Candidates that are one net, at the most: fewer compile more of FP32 again, more keep other actors waiting."""
OWN_PARTS = 1.5
"""Parts of the net that a candidate computes itself, in the mean: its layer has a neighbour that changes, too."""


@dataclass(frozen=True)
class Piece:
    """Some candidates, on some iterations."""

    candidates: Mapping[str, NetSpec]
    iterations: tuple[int, ...]

    @property
    def alone(self) -> Iterator["Piece"]:
        """Each candidate for itself, to see which of them cannot be run."""
        return (Piece({name: spec}, self.iterations) for name, spec in self.candidates.items())


@dataclass(frozen=True)
class Pace:
    """Seconds of an actor: to compile a net, and for an iteration of it in FP32."""

    compiling: float
    fp32: float


@dataclass(frozen=True)
class Most:
    """Into how many pieces a ranking may be divided, and its candidates into how many parts."""

    pieces: int
    parts: int


def most_pieces(plan: Plan, reference: Mapping[int, Sequence[Array]], n_bytes: int) -> Most:
    """As many as take `n_bytes` of a node's object store: every piece carries the weights that are not those of the
    file, and every part of the candidates the whole reference."""
    changed = {id(blob): blob.nbytes for one in (plan.base, *plan.candidates.values()) for blob in _changed(one)}
    compared = sum(array.nbytes for values in reference.values() for array in values)
    return Most(max(1, n_bytes // max(1, sum(changed.values()))), max(1, n_bytes // max(1, compared)))


def _changed(spec: NetSpec) -> Iterator[Array]:
    return (blob for blobs in spec.changed.values() for blob in blobs)


def divided(plan: Plan, iterations: Sequence[int], n_actors: int, most: Most, pace: Pace) -> Iterator[Piece]:
    """All candidates on all iterations, in pieces for `n_actors`.

    Neighbours stay together: every piece runs the net up to where its first candidate begins to differ.  There are
    about √n pieces of n candidates; with fewer actors the pieces are the same, so a run that is resumed finds them in
    the journal.  For more actors candidates or iterations are divided further, whichever makes the longest piece
    shorter.
    """
    assert plan.candidates, "nobody ranks nothing"
    if not (pace.compiling or pace.fp32):  # all that was measured before was in the journal
        pace = Pace(1.0, 1.0)
    n_candidates = len(plan.candidates)
    n_whole = -(-n_candidates // max(1, isqrt(n_candidates)))
    n_pieces = max(1, min(max(n_actors, n_whole), most.pieces))
    most_parts = min(n_candidates, n_pieces, most.parts)
    fewest_parts = most_parts if n_pieces <= n_whole else 1
    ways = [_Way(n, max(1, min(len(iterations), n_pieces // n))) for n in range(fewest_parts, most_parts + 1)]
    best = min(ways, key=lambda way: (way.seconds(plan, len(iterations), pace), way.n_parts * way.n_blocks))
    for names in _parts(plan, best.n_parts):
        for block in _cut(iterations, best.n_blocks):
            yield Piece({name: plan.candidates[name] for name in names}, tuple(block))


def stacked(plan: Plan, iterations: Sequence[int], n_actors: int, most: Most, n_together: int) -> list[Piece]:
    """All candidates on all iterations, in pieces of no more than `n_together` candidates that each are to be one net.

    Which these are follows from the plan alone; iterations are divided where there are more actors.  None if there may
    not be so many pieces.
    """
    n_parts, n_pieces = -(-len(plan.candidates) // n_together), min(most.pieces, most.parts)
    if n_pieces < n_parts:
        return []
    n_blocks = max(1, min(len(iterations), min(n_actors, n_pieces) // n_parts))
    return [
        Piece({name: plan.candidates[name] for name in names}, tuple(block))
        for names in _cut(tuple(plan.candidates), n_parts)
        for block in _cut(iterations, n_blocks)
    ]


@dataclass(frozen=True)
class _Way:
    """Into how many parts the candidates are divided, and into how many blocks the iterations."""

    n_parts: int
    n_blocks: int

    def seconds(self, plan: Plan, n_iterations: int, pace: Pace) -> float:
        """What the longest piece takes, more or less: to compile the net and, for each candidate, one or two parts of
        it; to run the net up to where the last candidate begins to differ, and each candidate from there on."""
        n, own = -(-n_iterations // self.n_blocks), OWN_PARTS / (len(plan.cuts) + 1)

        def of(names: Sequence[str]) -> float:
            begins = [plan.begins[name] for name in names]
            running = max(begins) + sum(1.0 - begin for begin in begins)
            return (1.0 + own * len(names)) * pace.compiling + n * running * pace.fp32

        return max(map(of, _parts(plan, self.n_parts)))


def _parts(plan: Plan, n_parts: int) -> list[list[str]]:
    """The candidates in parts of neighbours that cost about the same, none empty: half of what one costs is alike, half
    goes with what is behind where it begins to differ."""
    names = list(plan.candidates)
    mean = sum(1.0 - plan.begins[name] for name in names) / len(names) or 1.0
    costs = [mean + 1.0 - plan.begins[name] for name in names]
    middles = [upto - cost / 2 for upto, cost in zip(accumulate(costs), costs, strict=True)]
    cuts = [0]
    for part in range(1, n_parts):
        even = bisect_left(middles, sum(costs) * part / n_parts)
        cuts.append(min(max(even, cuts[-1] + 1), len(names) - n_parts + part))
    return [names[begin:end] for begin, end in pairwise([*cuts, len(names)])]


_T = TypeVar("_T")


def _cut(items: Sequence[_T], n: int) -> Iterator[Sequence[_T]]:
    """`items` in n parts of neighbours, as even as can be."""
    for i in range(n):
        yield items[len(items) * i // n : len(items) * (i + 1) // n]
