"""What `ranked` returns, and how little it asks: by nets of which all is known."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from distcalib.quantize.candidate import Candidate, Space
from distcalib.search import Answer, Ask, Decide, Measure, Rank, Request, Verdict, make_strategy
from tests.search.test_strategy import CASES, NAMES, SPACE, Case, Run, Score, answer, drive, planted, run

WIDE = Space(tuple(f"layer{i:02}" for i in range(53)))


def random_case(seed: int, space: Space, n_hard: int, noise: float) -> Case:
    """Hard layers of 1/4 to 1/2 each, easy ones of nothing, and a ranking that is off by up to `noise`."""
    random = np.random.RandomState(seed)
    hard = random.choice(len(space.order), n_hard, replace=False)
    costs = {space.order[i]: 0.25 + random.randint(0, 17) / 64 for i in hard}
    drop = planted(**costs)

    def distance(candidate: Candidate) -> float:
        wobble = np.random.RandomState(seed + len(candidate.int8) + sum(map(hash_of, candidate.fp32_layers)) % 10_000)
        return drop(candidate) + noise * float(wobble.uniform())

    return Case(drop, 0.125, space, distance)


def hash_of(name: str) -> int:
    """The same in every process, unlike hash()."""
    return int.from_bytes(name.encode(), "big") % 9973


def chaotic(seed: int) -> Score:
    """A drop that has nothing to do with how many layers are INT8, but is 0 with none."""

    def drop(candidate: Candidate) -> float:
        if not candidate.int8:
            return 0.0
        mixed = seed + sum(7 ** (i % 5) * hash_of(name) for i, name in enumerate(candidate.int8_layers))
        return float(np.random.RandomState(mixed % 2**31).choice([0.0, 0.25, 0.5], p=[0.3, 0.3, 0.4]))

    return drop


def is_minimal(case: Case, winner: Candidate) -> bool:
    """Whether no single FP32 layer can be INT8 again."""
    for layer in winner.fp32_layers:
        larger = Candidate(winner.int8 | {layer}, case.space)
        if larger == case.space.candidate(larger.int8) and case.drop(larger) <= case.tolerance:
            return False
    return True


def smallest(case: Case) -> int:
    """The size of the smallest FP32 set that meets the tolerance, by trying all of them."""
    for n in range(len(case.space.order) + 1):
        for layers in itertools.combinations(case.space.order, n):
            candidate = case.space.all_int8.without(*layers)
            if len(candidate.fp32_layers) == n and case.drop(candidate) <= case.tolerance:
                return n
    raise AssertionError("FP32 meets any tolerance")


def n_decided(done: Run) -> int:
    return sum(isinstance(request, Decide) for request in done.requests)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n_hard", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0], ids=["ranked_right", "ranked_roughly", "ranked_wrongly"])
def test_ranked_finds_the_planted_layers(seed: int, n_hard: int, noise: float) -> None:
    case = random_case(seed, SPACE, n_hard, noise)
    winner = run("ranked", case).winner
    assert is_minimal(case, winner)
    assert len(winner.fp32_layers) == smallest(case)


@pytest.mark.parametrize("seed", range(10))
def test_ranked_asks_for_one_set_more_than_it_restores_layers(seed: int) -> None:
    """The list's length at once, then each restored layer once: nothing else can show that none of them is idle."""
    case = random_case(seed, WIDE, 5, noise=0.0)
    done = run("ranked", case)
    assert len(done.winner.fp32_layers) == 5
    assert n_decided(done) == 6
    assert len(done.measured) == 2


@pytest.mark.parametrize("seed", range(10))
def test_ranked_with_a_useless_ranking_asks_less_than_greedy(seed: int) -> None:
    case = random_case(seed, WIDE, 5, noise=0.0).ranked_by(lambda candidate: 1.0)
    done = run("ranked", case)
    assert len(done.winner.fp32_layers) == 5
    assert len(done.candidates) < len(run("greedy", case).candidates) / 2


@pytest.mark.parametrize("seed", range(50))
def test_ranked_is_minimal_where_nothing_is_monotone(seed: int) -> None:
    case = Case(chaotic(seed), 0.125, SPACE).ranked_by(chaotic(seed + 1000))
    winner = run("ranked", case).winner
    assert case.drop(winner) <= case.tolerance
    assert is_minimal(case, winner)


@pytest.mark.parametrize("seed", range(10))
def test_ranked_names_all_that_it_will_ask_with_its_first_guess(seed: int) -> None:
    """So that with enough actors one round is all, if the ranking is right."""
    first, *later = [ask for ask in run("ranked", random_case(seed, WIDE, 5, 0.0)).asks if is_decision(ask)]
    assert len(later) == 5
    assert {request for ask in later for request in ask.wanted} <= set(first.maybe)
    assert {request for ask in later for request in ask.wanted} <= set(first.maybe[: first.n_likely])


def test_ranked_expects_nothing_where_its_guess_is_the_first_layer() -> None:
    """Without it there is all INT8, which is known: only if it does not meet the tolerance there is more to ask."""
    [first, *_] = [ask for ask in run("ranked", random_case(3, WIDE, 1, 0.0)).asks if is_decision(ask)]
    assert first.n_likely == 0
    assert first.maybe


@pytest.mark.parametrize(
    ("drop", "tolerance", "harms", "length"),
    [
        (0.0133, 0.005, (0.2686, 0.0065, 0.001), 1),
        (0.1367, 0.005, (1.9793, 1.7726, 0.2686, 0.0004, 0.001, 0.0006), 3),
        (0.2564, 0.005, (2.8227, 1.6512, 0.3409, 0.0004, 0.001, 0.0006), 3),
        (0.4042, 0.005, (6.8202, 0.3927, 0.2344, 0.001, 0.0006, 0.0001), 3),
        (0.1508, 0.01, (0.0369, 0.0287, 0.0231, 0.0112, 0.0004, 0.0002), 4),
        (0.0300, 0.01, (0.5, 0.4, *[0.02] * 40), 2),
        (0.1, 0.01, (0.0, 0.0, 0.0), 1),
        (0.02, 0.01, (1e30, 1e30), 1),
    ],
    ids=["one", "three", "three_too", "five", "digit_scenes", "easy_ones", "none", "no_number"],
)
def test_the_first_guess_is_where_the_harm_falls_most_steeply(
    drop: float, tolerance: float, harms: tuple[float, ...], length: int
) -> None:
    """On what rankings of real nets have found, and where all that is known is that many layers are a little hard."""
    space = Space(tuple(f"layer{i:02}" for i in range(len(harms))))
    alone = dict(zip(space.order, harms, strict=True))
    case = Case(
        lambda candidate: drop, tolerance, space, lambda candidate: alone[next(iter(candidate.int8), "layer00")]
    )
    search = make_strategy("ranked", tolerance).search(space.all_int8)
    ask = next(search)
    while not is_decision(ask):
        ask = search.send([answer(request, case) for request in ask.wanted])
    [first] = ask.wanted
    assert isinstance(first, Decide)
    assert first.candidate.fp32_layers == space.order[:length]


def is_decision(ask: Ask) -> bool:
    return isinstance(ask.wanted[0], Decide)


@pytest.mark.parametrize("seed", range(30))
def test_ranked_survives_verdicts_that_were_wrong(seed: int) -> None:
    """Verdicts on a part of the data may be wrong; what is returned was measured on all of it."""
    case = random_case(seed, SPACE, 3, noise=0.25)
    random = np.random.RandomState(seed)

    def answers(asked: Sequence[Request]) -> list[Answer]:
        found = []
        for request in asked:
            said = answer(request, case)
            if isinstance(said, Verdict) and random.uniform() < 0.3:
                said = replace(said, meets=not said.meets)
            found.append(said)
        return found

    done = drive(make_strategy("ranked", case.tolerance).search(SPACE.all_int8), answers)
    assert case.drop(done.winner) <= case.tolerance
    assert done.winner in done.measured


@pytest.mark.parametrize("seed", range(10))
def test_ranked_needs_no_score_of_what_is_lost(seed: int) -> None:
    """A verdict on the all-INT8 net, with about what it loses, leads to the same set."""
    case = random_case(seed, WIDE, 5, noise=0.0)

    def answers(asked: Sequence[Request]) -> list[Answer]:
        return [answer_unless_lost(request, case) for request in asked]

    done = drive(make_strategy("ranked", case.tolerance).search(WIDE.all_int8), answers)
    assert done.winner == run("ranked", case).winner
    assert [r.candidate for r in done.requests if isinstance(r, Measure)] == [WIDE.all_int8, done.winner]


def answer_unless_lost(request: Request, case: Case) -> Answer:
    """As where a confidence is asked for."""
    drop = 0.0 if isinstance(request, Rank) else case.drop(request.candidate)
    if isinstance(request, Measure) and request.unless_lost and drop > case.tolerance:
        return Verdict(request.candidate, False, 1.1 * drop)
    return answer(request, case)


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_ranked_that_may_move_nothing_returns_what_was_measured(drop: float) -> None:
    """Though the first answer was no score."""
    case = Case(lambda candidate: drop, 0.5, replace(SPACE, kept_int8=frozenset(NAMES)))
    search = make_strategy("ranked", case.tolerance).search(case.space.all_int8)
    done = drive(search, lambda asked: [answer_unless_lost(request, case) for request in asked])
    assert done.winner == case.space.all_int8
    assert done.requests[-1] == Measure(case.space.all_int8, unless_lost=drop == 0.0)


def test_ranked_prefers_less_work_among_equals() -> None:
    case = Case(lambda candidate: 0.0 if {"b", "c"} & set(candidate.fp32_layers) else 0.5, 0.0)
    assert run("ranked", case).winner.fp32_layers == ("c",)  # b takes d and g along


def test_ranked_ranks_the_all_int8_candidate_once() -> None:
    done = run("ranked", CASES["two_layers"])
    assert [request for request in done.requests if isinstance(request, Rank)] == [Rank(tuple(NAMES))]


def test_ranked_that_may_move_nothing_delivers_all_int8() -> None:
    case = replace(CASES["every_layer"], space=replace(SPACE, kept_int8=frozenset(NAMES)))
    assert run("ranked", case).winner == SPACE.all_int8


def test_ranked_that_cannot_meet_the_tolerance_delivers_the_most_fp32() -> None:
    case = replace(CASES["every_layer"], space=replace(SPACE, kept_int8=frozenset("c")))
    assert run("ranked", case).winner.int8_layers == ("c",)
