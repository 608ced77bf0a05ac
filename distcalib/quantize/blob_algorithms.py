"""Which algorithm makes each threshold: one for all values, but for some of them another; and how `-a auto` finds it.

The search is a pure generator, as the strategies are, over choices in place of candidates and over errors in place of
scores: a score moves in steps of one image, and most single changes would not move it at all.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from distcalib.caffe.graph import Blob
from distcalib.quantize.thresholds import ALGORITHMS


@dataclass(frozen=True)
class Choice:
    """`base` for every value that is not in `others`; equal to another that says the same."""

    base: str = "DIRECT"
    others: frozenset[tuple[Blob, str]] = frozenset()

    @classmethod
    def of(cls, base: str, others: Mapping[Blob, str]) -> "Choice":
        """`base`, and `others` where they differ from it."""
        return cls(base, frozenset((blob, name) for blob, name in others.items() if name != base))

    def algorithm(self, blob: Blob) -> str:
        """The algorithm for `blob`."""
        return dict(self.others).get(blob, self.base)


ChoiceSearch = Generator[Sequence[Choice], Sequence[float], Choice]
"""Yields choices that may be evaluated in parallel, receives their errors in the same order, returns one of them."""


def search_choices(blobs: Sequence[Blob], algorithms: Sequence[str] = ALGORITHMS) -> ChoiceSearch:
    """The choice of least error found for `blobs`, the values whose thresholds matter.

    Rounds: each algorithm for all; for each blob the others alone, on top of the best of the first round, n·(k-1)
    choices; the best change of each blob together, first all that help, then the better half of them, a quarter, down
    to two: what helps alone may do harm together.  Nothing is returned that was not evaluated, so the error is never
    above that of the best single algorithm.  Ties: what was asked first, which follows the order of `algorithms` and
    then of `blobs`.  An error that is not a number is the worst.  Without blobs nothing is asked.
    """
    if not blobs:
        return Choice(algorithms[0])
    uniform = [Choice(name) for name in algorithms]
    errors = dict(zip(uniform, _numbers((yield uniform)), strict=True))
    start = min(uniform, key=errors.__getitem__)

    others = [name for name in algorithms if name != start.base]
    alone = {Choice.of(start.base, {blob: name}): (blob, name) for blob in blobs for name in others}
    if alone:
        errors.update(zip(alone, _numbers((yield list(alone))), strict=True))
    best: dict[Blob, Choice] = {}
    for choice, (blob, _) in alone.items():
        if errors[choice] < errors[best.get(blob, start)]:
            best[blob] = choice
    changes = [alone[choice] for choice in sorted(best.values(), key=errors.__getitem__)]

    together = [Choice.of(start.base, dict(changes[:n])) for n in _halvings(len(changes))]
    if together:
        errors.update(zip(together, _numbers((yield together)), strict=True))
    return min(errors, key=errors.__getitem__)


def _halvings(n: int) -> list[int]:
    """n, n/2, n/4, ... as long as they are at least 2."""
    halvings = []
    while n >= 2:
        halvings.append(n)
        n //= 2
    return halvings


def _numbers(errors: Sequence[float]) -> list[float]:
    return [math.inf if math.isnan(error) else error for error in errors]
