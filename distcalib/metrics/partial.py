"""Partial scores: what one iteration says, and how iterations become the score that `caffe test` prints.

Caffe prints the mean over iterations of each iteration's value. Counts stay integers and their mean a fraction; losses
are summed by fsum. So the score does not depend on who measured which iteration, nor on the order, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Partial:
    """One iteration's value as numerator / denominator; a numerator of type int is a count, and exact."""

    numerator: float | int
    denominator: int

    @property
    def value(self) -> float:
        """What Caffe prints for the iteration; 0 if every label was ignored, as newer versions of Caffe have it."""
        return self.numerator / self.denominator if self.denominator else 0.0


def mean(partials: Iterable[Partial]) -> float:
    """The mean of the iterations' values; ValueError if there are none.

    Counts are averaged as fractions, anything else by fsum, which is exact too before its one rounding: the order of
    the partials has no influence. A NaN or an infinity in a loss comes out as such.
    """
    parts = list(partials)
    if not parts:
        raise ValueError("the mean of no iterations")
    if all(isinstance(p.numerator, int) for p in parts):
        total = sum((Fraction(int(p.numerator), p.denominator) for p in parts if p.denominator), Fraction())
        return float(total / len(parts))
    values = [p.value for p in parts]
    if not all(map(math.isfinite, values)):
        return sum(values)
    return math.fsum(values) / len(values)
