"""What follows from what was measured of candidates, without an actor."""

from collections.abc import Mapping
from math import inf

import pytest

from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.scoreboard import Scoreboard, decider_of
from distcalib.errors import EngineError
from distcalib.metrics import Partial
from distcalib.quantize.candidate import Space
from distcalib.search import Decide, Measure, Measurement, Verdict

N = 10
SPACE = Space(("conv2", "conv3"))
ALL, ONE, NONE = SPACE.all_int8, SPACE.all_int8.without("conv3"), SPACE.candidate([])
GOOD, BAD = Partial(8, 8), Partial(0, 8)


def board(tolerance: float = 0.05, hard_first: bool = False, stop_early: bool = True) -> Scoreboard:
    """One iteration of ten with all images wrong is more than a loss of 0.05, whatever the others are."""
    goal = Goal("top1", False, CalibrationOptions(iterations=N, accuracy_loss=tolerance))
    decider = decider_of(goal, Fp32Pass(1.0, [GOOD] * N), None)
    return Scoreboard(decider, hard_first, stop_early)


def values(n_bad: int, n: int = N) -> Mapping[int, Partial]:
    return {i: BAD if i < n_bad else GOOD for i in range(n)}


@pytest.mark.parametrize(
    ("n_lost", "request_of", "stops"),
    [
        pytest.param(0, Decide, False, id="nothing known"),
        pytest.param(1, Decide, True, id="lost"),
        pytest.param(1, Measure, False, id="its score is wanted"),
        pytest.param(1, lambda candidate: Measure(candidate, unless_lost=True), True, id="its score unless lost"),
    ],
)
def test_a_candidate_that_is_decided_is_not_measured_to_the_end(n_lost, request_of, stops) -> None:  # type: ignore[no-untyped-def]
    assert board(hard_first=True).suffices(request_of(ALL), values(n_lost, n_lost)) is stops
    assert not board(hard_first=True, stop_early=False).suffices(request_of(ALL), values(n_lost, n_lost))


@pytest.mark.parametrize(
    ("hard_first", "stop_early", "request_of", "may_stop"),
    [
        (True, True, Decide, True),
        (True, True, lambda candidate: Measure(candidate, unless_lost=True), True),
        (True, True, Measure, False),
        (False, True, Decide, False),
        (True, False, Decide, False),
    ],
)
def test_what_may_stop(hard_first, stop_early, request_of, may_stop) -> None:  # type: ignore[no-untyped-def]
    assert board(hard_first=hard_first, stop_early=stop_early).may_stop(request_of(ALL)) is may_stop


def test_one_that_meets_is_not_stopped_in_the_last_tenth() -> None:
    assert board(tolerance=0.25).suffices(Decide(ALL), values(0, 8))
    assert not board(tolerance=0.25).suffices(Decide(ALL), values(0, 9))


def test_what_was_measured_once_is_kept() -> None:
    found = board(tolerance=0.25)
    found.begin(ALL)
    assert found.wanted(Measure(ALL)) == tuple(range(N))
    found.take(ALL, values(0, 8), None)
    assert found.is_known(Decide(ALL))
    assert not found.is_known(Measure(ALL))
    assert found.answer(Decide(ALL)) == Verdict(ALL, True)
    assert (found.wanted(Measure(ALL)), found.shares) == ((8, 9), {ALL: 0.8})
    found.take(ALL, {8: GOOD, 9: BAD}, None)
    assert found.answer(Measure(ALL)) == Measurement(ALL, 0.9, 0.1)
    assert found.answered == {ALL: Measurement(ALL, 0.9, 0.1)}
    assert found.answer(Decide(ALL)) == Verdict(ALL, True)
    assert found.answered == {ALL: Measurement(ALL, 0.9, 0.1)}, "a score is more than a verdict"


def test_one_that_cannot_be_run_is_known_to_lose() -> None:
    found = board()
    found.begin(ALL)
    found.take(ALL, {}, EngineError("net: cannot be compiled"))
    assert found.is_known(Measure(ALL))
    assert found.is_known(Decide(ALL))
    assert found.answer(Decide(ALL)) == Verdict(ALL, False)
    assert found.measurement(ALL).drop == inf
    assert found.failed == {ALL: "net: cannot be compiled"}
    assert found.unfinished() == []


def test_fp32_needs_no_measurement() -> None:
    assert board().measurement(NONE) == Measurement(NONE, 1.0, 0.0)
    assert board().values(NONE) == [GOOD] * N


def test_the_best_meets_with_most_int8_layers_or_loses_least() -> None:
    found = board()
    for candidate, n_bad in ((ALL, 3), (ONE, 2)):
        found.take(candidate, values(n_bad), None)
        found.answer(Measure(candidate))
    assert (found.best(), found.best_measured()) == (ONE, Measurement(ONE, 0.8, 0.2))
    found.take(NONE, values(0), None)
    found.answer(Measure(NONE))
    assert found.best() == NONE
    assert found.is_minimal(NONE) is False, "not all of its layers were tried"


def test_a_winner_is_minimal_if_each_of_its_layers_was_shown_to_be_needed() -> None:
    found = board()
    found.take(ONE, values(0), None)
    found.answer(Measure(ONE))
    assert not found.is_minimal(ONE)
    found.take(ALL, values(1, 1), None)
    found.answer(Decide(ALL))
    assert found.is_minimal(ONE)
    assert not found.is_minimal(ALL)


def test_what_a_round_left_unfinished_is_named() -> None:
    found = board()
    assert found.best_measured() is None
    found.begin(ALL)
    found.take(ONE, values(0), None)
    assert found.unfinished() == [(ALL, tuple(range(N)))]
    assert found.best_measured() == Measurement(ONE, 1.0, 0.0)
