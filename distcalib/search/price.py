"""What the last layers of a set in FP32 bought.

A 1-minimal set can be useless: 22 layers of 52 in FP32 for two images, 17 of them for the second one.  So it is
looked at what fewer of them lose, the most harmful ones first, until it is known to be too much; where most is won by
few, that is offered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distcalib.quantize.candidate import Candidate
from distcalib.search.ranked import ranked_list
from distcalib.search.strategy import Ranking

LEAST = 4
"""FP32 layers from which on it is asked what they bought."""
BENT = 0.8
"""The part of the layers and the part of the loss that are left at the knee, together; 1 on a straight line."""


@dataclass(frozen=True)
class Loss:
    """What a candidate loses; `about`: as estimated from the part of the data that showed that it is too much."""

    candidate: Candidate
    drop: float
    about: bool = False

    def meets(self, tolerance: float) -> bool:
        """Whether it is known to lose no more than that."""
        return not self.about and self.drop <= tolerance


@dataclass(frozen=True)
class Knee:
    """A smaller set in FP32, and what the layers beyond it bought."""

    loss: Loss
    n_more: int
    """Layers that the delivered set has beyond it."""
    gain: float
    """What these win, in drop."""


def shorter(start: Candidate, winner: Candidate, ranking: Ranking) -> list[Candidate]:
    """Candidates with the most harmful half, quarter and so on of the winner's FP32 layers; none if they are few."""
    wanted = set(winner.fp32_layers) - set(start.fp32_layers)
    if len(wanted) < LEAST:
        return []
    prefixes = [prefix.candidate for prefix in ranked_list(start, ranking)]
    harmful: list[str] = []
    last = start
    for candidate in prefixes:  # a layer pulls others along
        harmful += [layer for layer in candidate.fp32_layers if layer in wanted and layer in last.int8]
        last = candidate
    candidates, n = [], len(harmful) // 2
    while n:
        candidates.append(start.without(*harmful[:n]))
        n //= 2
    return [
        candidate for candidate in dict.fromkeys(candidates) if set(candidate.fp32_layers) < set(winner.fp32_layers)
    ]


def knee(first: Loss, inner: Sequence[Loss], last: Loss) -> Knee | None:
    """The one of `inner` from which on a layer buys least, between all INT8 and the winner; None if all buy alike."""
    n_all, gain_all = _n_more(last, first), first.drop - last.drop
    if n_all < LEAST or not 0.0 < gain_all < math.inf:
        return None

    def left(one: Loss) -> float:
        return _n_more(one, first) / n_all + max(one.drop - last.drop, 0.0) / gain_all

    best = min(inner, key=lambda one: (left(one), _n_more(one, first)), default=None)
    if best is None or left(best) > BENT:
        return None
    return Knee(best, _n_more(last, best), max(best.drop - last.drop, 0.0))


def _n_more(one: Loss, other: Loss) -> int:
    return len(one.candidate.fp32_layers) - len(other.candidate.fp32_layers)
