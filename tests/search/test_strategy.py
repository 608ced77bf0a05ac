"""The contract that every strategy fulfils, by a scorer in place of measurements.

A new strategy in STRATEGIES runs through all of this without a line here.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from distcalib.quantize.candidate import Candidate, Space
from distcalib.search import STRATEGIES, Measurement, Search, make_strategy

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
    """All rounds of a search, and what it returned."""

    rounds: list[list[Candidate]]
    winner: Candidate

    @property
    def measured(self) -> list[Candidate]:
        """Each candidate once: what was measured in an earlier round the driver knows."""
        return list(dict.fromkeys(candidate for asked in self.rounds for candidate in asked))


def answer(asked: Sequence[Candidate], drop: Score) -> list[Measurement]:
    return [Measurement(candidate, 0.75 - drop(candidate), drop(candidate)) for candidate in asked]


def drive(search: Search, measure: Callable[[Sequence[Candidate]], Sequence[Measurement]]) -> Run:
    rounds: list[list[Candidate]] = []
    try:
        asked = next(search)
        for _ in range(1000):
            rounds.append(list(asked))
            asked = search.send(measure(asked))
    except StopIteration as stop:
        return Run(rounds, stop.value)
    raise AssertionError("the search does not end")


def run(strategy: str, case: Case) -> Run:
    search = make_strategy(strategy, case.tolerance).search(case.space.all_int8)
    return drive(search, lambda asked: answer(asked, case.drop))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("strategy", STRATEGIES)
class TestEveryStrategy:
    """What the driver, the journal and the user rely on."""

    def test_begins_with_all_int8_alone(self, strategy: str, case: Case) -> None:
        assert run(strategy, case).rounds[0] == [case.space.all_int8]

    def test_asks_for_what_really_runs(self, strategy: str, case: Case) -> None:
        for candidate in run(strategy, case).measured:
            assert candidate == case.space.candidate(candidate.int8)

    def test_never_asks_for_nothing(self, strategy: str, case: Case) -> None:
        assert all(run(strategy, case).rounds)

    def test_never_asks_twice_in_a_round(self, strategy: str, case: Case) -> None:
        assert all(len(asked) == len(set(asked)) for asked in run(strategy, case).rounds)

    def test_learns_something_in_every_round(self, strategy: str, case: Case) -> None:
        seen: set[Candidate] = set()
        for asked in run(strategy, case).rounds:
            assert not seen.issuperset(asked)
            seen.update(asked)

    def test_returns_a_measured_candidate_or_fp32(self, strategy: str, case: Case) -> None:
        done = run(strategy, case)
        assert done.winner in done.measured or not done.winner.int8

    def test_meets_the_tolerance_if_it_can(self, strategy: str, case: Case) -> None:
        only_measures = strategy == "none"
        assert only_measures or case.drop(run(strategy, case).winner) <= case.tolerance

    def test_falls_back_only_if_it_must(self, strategy: str, case: Case) -> None:
        if case.drop(case.space.all_int8) <= case.tolerance:
            done = run(strategy, case)
            assert done.rounds == [[case.space.all_int8]]
            assert done.winner == case.space.all_int8

    def test_gives_the_same_each_time(self, strategy: str, case: Case) -> None:
        assert run(strategy, case) == run(strategy, case)

    def test_does_not_depend_on_other_searches(self, strategy: str, case: Case) -> None:
        """One object serves two interleaved searches: nothing is kept in `self`."""
        made = make_strategy(strategy, case.tolerance)

        def rounds() -> Iterator[list[Candidate]]:
            search = made.search(case.space.all_int8)
            try:
                asked = next(search)
                while True:
                    yield list(asked)
                    asked = search.send(answer(asked, case.drop))
            except StopIteration as stop:
                yield [stop.value]

        expected = run(strategy, case)
        for pair in itertools.zip_longest(rounds(), rounds()):
            assert pair[0] == pair[1]
        assert list(rounds()) == [*expected.rounds, [expected.winner]]

    def test_does_not_depend_on_the_order_of_completion(self, strategy: str, case: Case) -> None:
        """Measured last first, as actors may: the answers stand in the order of the questions all the same."""

        def backwards(asked: Sequence[Candidate]) -> Sequence[Measurement]:
            done = {m.candidate: m for m in answer(list(reversed(asked)), case.drop)}
            return tuple(done[candidate] for candidate in asked)

        search = make_strategy(strategy, case.tolerance).search(case.space.all_int8)
        assert drive(search, backwards) == run(strategy, case)

    def test_resumes_by_replay_after_any_measurement(self, strategy: str, case: Case) -> None:
        """Killed after each number of measurements, and started again with those in a journal: the same in the end,
        and nothing is measured twice.
        """
        expected = run(strategy, case)
        for n_kept in range(len(expected.measured) + 1):
            journal = {m.candidate: m for m in answer(expected.measured[:n_kept], case.drop)}
            fresh: list[Candidate] = []

            def measure(
                asked: Sequence[Candidate],
                journal: dict[Candidate, Measurement] = journal,
                fresh: list[Candidate] = fresh,
            ) -> list[Measurement]:
                new = [candidate for candidate in asked if candidate not in journal]
                fresh.extend(new)
                journal.update((m.candidate, m) for m in answer(new, case.drop))
                return [journal[candidate] for candidate in asked]

            assert drive(make_strategy(strategy, case.tolerance).search(case.space.all_int8), measure) == expected
            assert fresh == expected.measured[n_kept:]
