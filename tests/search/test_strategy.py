"""The contract that every strategy fulfils, by a scorer in place of measurements.

A new strategy in STRATEGIES runs through all of this without a line here.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from distcalib.quantize.candidate import Candidate, Space
from distcalib.search import (
    STRATEGIES,
    Answer,
    Ask,
    Decide,
    Measure,
    Measurement,
    Rank,
    Ranking,
    Request,
    Search,
    Verdict,
    make_strategy,
)
from tests.every import every

Score = Callable[[Candidate], float]

NAMES = "abcdefgh"
SPACE = Space(tuple(NAMES), {"d": frozenset("b"), "g": frozenset("d")})


def planted(**costs: float) -> Score:
    """The drop of a candidate as the sum of what its INT8 layers cost, in exact binary fractions."""
    return lambda candidate: sum((cost for name, cost in costs.items() if name in candidate.int8), 0.0)


def masked(candidate: Candidate) -> float:
    """Two layers of which each alone brings nothing: only without both is the drop gone."""
    return 0.5 if {"c", "f"} & candidate.int8 else 0.0


@dataclass(frozen=True)
class Case:
    """A net's behaviour and what is tolerated."""

    drop: Score
    tolerance: float
    space: Space = SPACE
    distance: Score = lambda candidate: 1.0  # a ranking that tells nothing

    def ranked_by(self, distance: Score) -> "Case":
        """The same, with another ranking."""
        return replace(self, distance=distance)


CASES = {
    "harmless": Case(planted(), 0.0),
    "gain": Case(planted(a=-0.25), 0.0),
    "within_tolerance": Case(planted(a=0.25), 0.25),
    "one_layer": Case(planted(c=0.5), 0.125),
    "two_layers": Case(planted(c=0.5, f=0.25), 0.125),
    "cascade": Case(planted(b=0.5, g=0.25), 0.125),
    "last_layer": Case(planted(h=1.0), 0.0),
    "every_layer": Case(planted(**dict.fromkeys(NAMES, 0.25)), 0.0),
    "masked": Case(masked, 0.0),
    "all_equal": Case(lambda candidate: 0.5 if candidate.int8 else 0.0, 0.0),
    "no_number": Case(lambda candidate: float("inf") if "e" in candidate.int8 else 0.0, 0.0),
    "one_layer_net": Case(planted(a=1.0), 0.0, Space(("a",))),
    "empty_net": Case(planted(), 0.0, Space(())),
}


@dataclass
class Run:
    """All that a search asked, round by round, and what it returned."""

    asks: list[Ask]
    winner: Candidate

    @property
    def requests(self) -> list[Request]:
        """Each request once: what was asked in an earlier round the driver knows."""
        return list(dict.fromkeys(request for ask in self.asks for request in ask.wanted))

    @property
    def rounds(self) -> list[list[Candidate]]:
        """The candidates asked about, by round, without rankings."""
        found = [[r.candidate for r in ask.wanted if not isinstance(r, Rank)] for ask in self.asks]
        return [candidates for candidates in found if candidates]

    @property
    def measured(self) -> list[Candidate]:
        """The candidates whose scores were asked for."""
        return [request.candidate for request in self.requests if isinstance(request, Measure)]

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates asked about, each once."""
        return list(dict.fromkeys(candidate for round_ in self.rounds for candidate in round_))


def answer(request: Request, case: Case) -> Answer:
    if isinstance(request, Measure):
        return Measurement(request.candidate, 0.75 - case.drop(request.candidate), case.drop(request.candidate))
    if isinstance(request, Decide):
        return Verdict(request.candidate, case.drop(request.candidate) <= case.tolerance)
    alone = {layer: case.distance(case.space.smallest(layer)) for layer in request.layers}
    return Ranking(alone, {layer: 1 + len(layer) for layer in request.layers})


def drive(search: Search, answers: Callable[[Sequence[Request]], Sequence[Answer]]) -> Run:
    asks: list[Ask] = []
    try:
        ask = next(search)
        for _ in range(1000):
            asks.append(Ask(list(ask.wanted), list(ask.maybe), ask.n_likely))
            ask = search.send(answers(ask.wanted))
    except StopIteration as stop:
        return Run(asks, stop.value)
    raise AssertionError("the search does not end")


def run(strategy: str, case: Case) -> Run:
    search = make_strategy(strategy, case.tolerance).search(case.space.all_int8)
    return drive(search, lambda asked: [answer(request, case) for request in asked])


def upside_down(case: Case) -> Score:
    """A ranking that is wrong throughout."""
    return lambda candidate: 2.0 - min(case.drop(candidate), 2.0)


RANKINGS: dict[str, Callable[[Case], Score]] = {
    "true": lambda case: case.drop,
    "silent": lambda case: case.distance,
    "upside_down": upside_down,
}


def ranks(strategy: str) -> bool:
    """Whether the strategy asks for a ranking at all: to others all rankings are one."""
    return any(isinstance(request, Rank) for request in run(strategy, CASES["cascade"]).requests)


RUNS = [
    pytest.param(strategy, case.ranked_by(RANKINGS[ranking](case)), id=f"{strategy}-{name}-{ranking}")
    for strategy in STRATEGIES
    for name, case in CASES.items()
    for ranking in (RANKINGS if ranks(strategy) else ["silent"])
]


def test_one_strategy_at_least_ranks() -> None:
    assert [strategy for strategy in STRATEGIES if ranks(strategy)] == ["ranked"]


@pytest.mark.parametrize(("strategy", "case"), RUNS)
class TestEveryStrategy:
    """What the driver, the journal and the user rely on."""

    def test_begins_with_all_int8_alone(self, strategy: str, case: Case) -> None:
        first = run(strategy, case).asks[0]
        assert first in [Ask([Measure(case.space.all_int8, unless_lost)], []) for unless_lost in (False, True)]

    def test_asks_for_what_really_runs(self, strategy: str, case: Case) -> None:
        for candidate in run(strategy, case).candidates:
            assert candidate == case.space.candidate(candidate.int8)

    def test_never_asks_for_nothing(self, strategy: str, case: Case) -> None:
        assert every(ask.wanted for ask in run(strategy, case).asks)

    def test_never_asks_twice_in_a_round(self, strategy: str, case: Case) -> None:
        for ask in run(strategy, case).asks:
            asked = [*ask.wanted, *ask.maybe]
            assert len(asked) == len(set(asked))

    def test_learns_something_in_every_round(self, strategy: str, case: Case) -> None:
        seen: set[Request] = set()
        for ask in run(strategy, case).asks:
            assert not seen.issuperset(ask.wanted)
            seen.update(ask.wanted)

    def test_returns_a_measured_candidate(self, strategy: str, case: Case) -> None:
        done = run(strategy, case)
        assert done.winner in done.measured

    def test_meets_the_tolerance_if_it_can(self, strategy: str, case: Case) -> None:
        only_measures = strategy == "none"
        assert only_measures or case.drop(run(strategy, case).winner) <= case.tolerance

    def test_falls_back_only_if_it_must(self, strategy: str, case: Case) -> None:
        if case.drop(case.space.all_int8) <= case.tolerance:
            done = run(strategy, case)
            assert done.rounds == [[case.space.all_int8]]
            assert done.winner == case.space.all_int8

    @pytest.mark.parametrize("kept_int8", ["c", "bf", NAMES])
    def test_leaves_pinned_layers_int8(self, strategy: str, case: Case, kept_int8: str) -> None:
        space = replace(case.space, kept_int8=frozenset(kept_int8) & frozenset(case.space.order))
        done = run(strategy, replace(case, space=space))
        assert every(space.kept_int8 <= candidate.int8 for candidate in [*done.candidates, done.winner])

    def test_gives_the_same_each_time(self, strategy: str, case: Case) -> None:
        assert run(strategy, case) == run(strategy, case)

    def test_does_not_depend_on_other_searches(self, strategy: str, case: Case) -> None:
        """One object serves two interleaved searches: nothing is kept in `self`."""
        made = make_strategy(strategy, case.tolerance)

        def asks() -> Iterator[object]:
            search = made.search(case.space.all_int8)
            try:
                ask = next(search)
                while True:
                    yield list(ask.wanted)
                    ask = search.send([answer(request, case) for request in ask.wanted])
            except StopIteration as stop:
                yield stop.value

        expected = run(strategy, case)
        for pair in itertools.zip_longest(asks(), asks()):
            assert pair[0] == pair[1]
        assert list(asks()) == [*(ask.wanted for ask in expected.asks), expected.winner]

    def test_does_not_depend_on_the_order_of_completion(self, strategy: str, case: Case) -> None:
        """Answered last first, as actors may: the answers stand in the order of the questions all the same."""

        def backwards(asked: Sequence[Request]) -> Sequence[Answer]:
            done = {request: answer(request, case) for request in reversed(asked)}
            return tuple(done[request] for request in asked)

        search = make_strategy(strategy, case.tolerance).search(case.space.all_int8)
        assert drive(search, backwards) == run(strategy, case)

    def test_resumes_by_replay_after_any_answer(self, strategy: str, case: Case) -> None:
        """Killed after each number of answers, and started again with those in a journal: the same in the end, and
        nothing is asked twice.
        """
        expected = run(strategy, case)
        for n_kept in range(len(expected.requests) + 1):
            journal = {request: answer(request, case) for request in expected.requests[:n_kept]}
            fresh: list[Request] = []

            def answers(
                asked: Sequence[Request],
                journal: dict[Request, Answer] = journal,
                fresh: list[Request] = fresh,
            ) -> list[Answer]:
                new = [request for request in asked if request not in journal]
                fresh.extend(new)
                journal.update((request, answer(request, case)) for request in new)
                return [journal[request] for request in asked]

            assert drive(make_strategy(strategy, case.tolerance).search(case.space.all_int8), answers) == expected
            assert fresh == expected.requests[n_kept:]
