"""What a search is: a generator that asks about candidates, receives the answers, and returns the winner.

It has no clock, no unseeded randomness and no knowledge of actors, so its result cannot depend on the number of
actors, on the order of completion or on a crash in between: a resumed run replays the same answers into the same
generator.  What it will probably want to know next it names as `maybe`: the driver may look into that with actors that
would be idle, and the search goes the same way whether it did or not.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from distcalib.quantize.candidate import Candidate


@dataclass(frozen=True)
class Measure:
    """What does the candidate score over all iterations?  Answered by a Measurement.

    With `unless_lost` a Verdict will do where the candidate loses too much and that is known earlier.
    """

    candidate: Candidate
    unless_lost: bool = False


@dataclass(frozen=True)
class Decide:
    """Does the candidate meet the tolerance?  Answered by a Verdict, as soon as the rest cannot change it."""

    candidate: Candidate


@dataclass(frozen=True)
class Rank:
    """What does each of `layers`, alone in INT8 with what it needs, do on a small sample?  Answered by a Ranking."""

    layers: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """The score of a candidate over all iterations, and its drop against FP32: positive is worse, for a loss too.

    A candidate that cannot be run has an infinite drop.
    """

    candidate: Candidate
    score: float
    drop: float


@dataclass(frozen=True)
class Verdict:
    """Whether the drop of a candidate is at most the tolerance; False too for one that cannot be run.

    `likely_drop` is what it loses on the part of the data that decided; told where the question was for the score.
    """

    candidate: Candidate
    meets: bool
    likely_drop: float = math.inf


@dataclass(frozen=True)
class Ranking:
    """By layer: the distance of the net's output from FP32's with it alone in INT8, `alone`, and its `work`.

    The work are the multiply-adds of one image, the measure of what FP32 costs there.
    """

    alone: Mapping[str, float]
    work: Mapping[str, int]


Request = Measure | Decide | Rank
Answer = Measurement | Verdict | Ranking


@dataclass(frozen=True)
class Ask:
    """Requests that may be worked on in parallel, answered in their order; and those that the next may be among.

    `maybe` is in the order of likelihood and gets no answer of its own; the first `n_likely` of it will follow from the
    answers that are expected, the others from what would be a surprise.  None: all of them.
    """

    wanted: Sequence[Request]
    maybe: Sequence[Decide] = ()
    n_likely: int | None = None


Search = Generator[Ask, Sequence[Answer], Candidate]
_T = TypeVar("_T")
Answered = Generator[Ask, Sequence[Answer], _T]


class Strategy(Protocol):
    """One way to find the layers that must fall back."""

    def search(self, start: Candidate) -> Search:
        """Begin with `start`, all INT8; return a candidate that was measured."""
        ...


def measure(candidates: Sequence[Candidate]) -> Answered[list[Measurement]]:
    """Ask what each of `candidates` scores over all iterations."""
    answers = yield Ask([Measure(candidate) for candidate in candidates])
    return [cast(Measurement, answer) for answer in answers]


def measure_unless_lost(candidate: Candidate) -> Answered[Measurement | Verdict]:
    """Ask what `candidate` scores; where it loses too much a verdict will do."""
    [answer] = yield Ask([Measure(candidate, unless_lost=True)])
    return cast("Measurement | Verdict", answer)


def decide(
    candidates: Sequence[Candidate], likely: Sequence[Candidate] = (), unlikely: Sequence[Candidate] = ()
) -> Answered[list[bool]]:
    """Ask which of `candidates` meet the tolerance; then probably about those that are `likely`, else the others."""
    asked = set(candidates)
    expected = [candidate for candidate in dict.fromkeys(likely) if candidate not in asked]
    others = [candidate for candidate in dict.fromkeys(unlikely) if candidate not in asked.union(expected)]
    later = [Decide(candidate) for candidate in (*expected, *others)]
    answers = yield Ask([Decide(candidate) for candidate in candidates], later, len(expected))
    return [cast(Verdict, answer).meets for answer in answers]


def rank(layers: Sequence[str]) -> Answered[Ranking]:
    """Ask what each of `layers` does alone."""
    [answer] = yield Ask([Rank(tuple(layers))])
    return cast(Ranking, answer)
