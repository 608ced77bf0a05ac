"""What a search is: a generator that yields candidates, receives their measurements, and returns the winner.

It has no clock, no unseeded randomness and no knowledge of actors, so its result cannot depend on the number of
actors, on the order of completion or on a crash in between: a resumed run replays the same measurements into the same
generator.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from distcalib.quantize.candidate import Candidate


@dataclass(frozen=True)
class Measurement:
    """The score of a candidate over all iterations, and its drop against FP32: positive is worse, for a loss too."""

    candidate: Candidate
    score: float
    drop: float


Search = Generator[Sequence[Candidate], Sequence[Measurement], Candidate]


class Strategy(Protocol):
    """One way to find the layers that must fall back."""

    def search(self, start: Candidate) -> Search:
        """Begin with `start`, all INT8.  Each yield is a batch that may be measured in parallel, answered in its
        order.
        """
        ...
