"""The default strategy: rank once on a small sample, search the length of the list, prune back.

The ranking only decides what is tried first.  What is returned was measured, and no single layer of its FP32 set can be
returned to INT8: that was tried for each, on all the data.  So a ranking that is wrong costs time, not accuracy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from distcalib.quantize.candidate import Candidate
from distcalib.search.strategy import Answered, Measurement, Ranking, Search, decide, measure, measure_unless_lost, rank

LOOK_AHEAD = 8
"""Candidates named as likely next; more would be wrong guesses, and cost actors that others could use."""

FARTHEST = 1e30
"""The distance of an output that is not finite; others are far below it."""


class RankedFallback:
    """Find a 1-minimal set of FP32 layers: without any one of them the drop would be above the tolerance."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def search(self, start: Candidate) -> Search:
        """All INT8, a ranking, then candidates that need to be decided only, and the winner in full."""
        first = yield from measure_unless_lost(start)
        drop = first.drop if isinstance(first, Measurement) else first.likely_drop
        if isinstance(first, Measurement) and (drop <= self._tolerance or not start.movable):
            return start
        if not start.movable:
            yield from measure([start])
            return start
        ranking = yield from rank(start.movable)
        known = _Known(start)
        prefixes = ranked_list(start, ranking)
        guess = _guess(prefixes, self._tolerance / drop if drop > self._tolerance else 1.0)
        while True:
            length = yield from _shortest(known, [prefix.candidate for prefix in prefixes], guess)
            if length is None:
                winner = prefixes[-1].candidate  # all that may fall back has: the best there is
            else:
                winner = yield from _pruned(known, prefixes[length - 1].candidate, ranking.work)
            [final] = yield from measure([winner])
            if length is None or final.drop <= self._tolerance:
                return winner
            known.correct(winner)  # decided on a part of the data, and wrongly


class _Known:
    """The verdicts so far; FP32 altogether loses nothing."""

    def __init__(self, start: Candidate) -> None:
        self._meets: dict[Candidate, bool] = {start: False}

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._meets or not candidate.int8

    def __getitem__(self, candidate: Candidate) -> bool:
        return not candidate.int8 or self._meets[candidate]

    def verdict(self, candidate: Candidate) -> bool | None:
        """The verdict; None if there is none."""
        return True if not candidate.int8 else self._meets.get(candidate)

    def correct(self, candidate: Candidate) -> None:
        """It was taken to meet the tolerance, and does not."""
        self._meets[candidate] = False

    def ask(
        self, wanted: Sequence[Candidate], likely: Iterable[Candidate] = (), unlikely: Iterable[Candidate] = ()
    ) -> Answered[None]:
        """Learn about each of `wanted`; the next question is among `likely`, or after a surprise among `unlikely`."""
        new = [candidate for candidate in dict.fromkeys(wanted) if candidate not in self]
        if new:
            expected = [candidate for candidate in likely if candidate not in self][:LOOK_AHEAD]
            others = [candidate for candidate in unlikely if candidate not in self]
            answers = yield from decide(new, expected, others[: LOOK_AHEAD - len(expected)])
            self._meets.update(zip(new, answers, strict=True))


@dataclass(frozen=True)
class Prefix:
    """A beginning of the ranked list: the candidate with these layers in FP32, and the gain expected of the last."""

    candidate: Candidate
    gain: float


def ranked_list(start: Candidate, ranking: Ranking, by_work: bool = False) -> list[Prefix]:
    """The ranked list: that layer next which does most harm a layer that goes to FP32, those that it pulls along too.

    Of equals the one with less work.  With `by_work` it is the one that does most harm for the work that goes to FP32.
    """
    harm = _own_harm(start, ranking)
    place = {layer: i for i, layer in enumerate(start.movable)}
    prefixes: list[Prefix] = []
    last, left = start, list(place)
    while left:
        fallen = {layer: last.int8 - last.without(layer).int8 for layer in left}
        gains = {layer: fsum(harm.get(name, 0.0) for name in sorted(fallen[layer])) for layer in left}

        def order(layer: str, fallen: Mapping[str, frozenset[str]], gains: Mapping[str, float]) -> tuple[float, ...]:
            price = sum(ranking.work.get(name, 0) for name in fallen[layer]) if by_work else len(fallen[layer])
            return -gains[layer] / max(price, 1), ranking.work[layer], place[layer]

        best = min(left, key=lambda layer: order(layer, fallen, gains))
        last = last.without(best)
        prefixes.append(Prefix(last, gains[best]))
        left = [layer for layer in left if layer in last.int8]
    return prefixes


def _own_harm(start: Candidate, ranking: Ranking) -> dict[str, float]:
    """What each layer does by itself: what was seen of it, less what one that it needs does already."""
    seen = {layer: _finite(distance) for layer, distance in ranking.alone.items()}
    needed = {layer: start.space.smallest(layer).int8 - {layer} for layer in seen}
    return {
        layer: max(harm - max((seen[other] for other in needed[layer] if other in seen), default=0.0), 0.0)
        for layer, harm in seen.items()
    }


def _guess(prefixes: Sequence[Prefix], allowed: float) -> int:
    """The length of the list after which its harms fall most steeply, of those that may leave what is `allowed`.

    Harms add up, as squares of independent errors do, and `allowed` is the part of the all-INT8 drop that is tolerated.
    Between two lengths: at least what leaves the square root of that part of the harm, and at most what leaves that
    part itself.  The drop of hard layers goes with their harm (resnet20 with 1 to 5 planted layers loses 0.025 to 0.055
    of its top-1 for each unit), that of many easy ones is less, for near a boundary as many answers become right as
    wrong: by harm alone all these would be taken for what is missing.
    """
    shortest, longest = _leaving(prefixes, sqrt(allowed)), _leaving(prefixes, allowed)
    gains = [prefix.gain for prefix in prefixes]

    def fall(length: int) -> float:
        gain, following = gains[length - 1], gains[length] if length < len(gains) else gains[length - 1]
        return gain / following if following else float(gain > 0.0) * FARTHEST

    return max(range(shortest, longest + 1), key=lambda length: (fall(length), -length))


def _leaving(prefixes: Sequence[Prefix], part: float) -> int:
    """The first length that leaves no more than `part` of the harm; at least 1."""
    left = total = fsum(prefix.gain for prefix in prefixes)
    for length, prefix in enumerate(prefixes, 1):
        left -= prefix.gain
        if left <= part * total:
            return length
    return len(prefixes)


def _finite(distance: float) -> float:
    """A number to reckon with where a net gave none."""
    return min(distance, FARTHEST) if distance == distance else FARTHEST


def _shortest(known: _Known, prefixes: Sequence[Candidate], guess: int) -> Answered[int | None]:
    """The length of a prefix that meets the tolerance where the one shorter by 1 does not; None if there is none.

    From the guess outwards in steps that double, then by bisection.  If a longer prefix failed where a shorter one
    met, lengths tell nothing about each other: then all shorter ones are tried, and the shortest that meets is taken.
    """
    low, high = 0, len(prefixes) + 1  # low fails, high meets, as far as is known

    def meets(length: int, step: int) -> Answered[bool]:
        candidate = prefixes[length - 1]
        below, above, far = [
            prefixes[n - 1 : n] if low < n < high else [] for n in (length - 1, length + step, length - 1 - step)
        ]
        if_met = [*below, *candidate.returns.values(), *far]
        if_not = [one for p in above for one in (p, *p.returns.values())]
        if length + 1 < high or high > len(prefixes):
            yield from known.ask([candidate], if_met, if_not)
        else:  # the one longer by 1 meets, so this one will most likely not, and that one is pruned
            yield from known.ask([candidate], prefixes[high - 1].returns.values(), if_met)
        return known[candidate]

    step, length = 1, guess
    while high - low > 1:
        length = min(max(length, low + 1), high - 1)
        if (yield from meets(length, step)):
            high = length
            length = high - step if low == 0 else (low + high) // 2
        else:
            low = length
            length = low + step if high > len(prefixes) else (low + high) // 2
        step *= 2
    if high > len(prefixes):
        return None
    if any(known.verdict(candidate) is False for candidate in prefixes[high:]):
        yield from known.ask(prefixes[: high - 1])
        high = next(n for n, candidate in enumerate(prefixes, 1) if known.verdict(candidate))
    return high


def _pruned(known: _Known, candidate: Candidate, work: Mapping[str, int]) -> Answered[Candidate]:
    """Return layers to INT8, those with most work first, until no single one can be: each was tried on the last set.

    One that failed on a larger set will most likely fail again, so it is tried again when all others were.
    """
    failed: set[str] = set()  # on the set as it is now
    failed_before: set[str] = set()
    while True:
        returns = candidate.returns
        left = sorted(returns.keys() - failed, key=lambda name: (name in failed_before, -work.get(name, 0), name))
        if not left:
            return candidate
        layer, *others = left
        yield from known.ask([returns[layer]], [returns[other] for other in others])
        if known[returns[layer]]:
            candidate = returns[layer]
            failed.clear()
        else:
            failed.add(layer)
            failed_before.add(layer)
