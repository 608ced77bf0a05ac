"""When a search must end."""

import time

import pytest

from distcalib.calibration.budget import Budget, BudgetSpent
from distcalib.calibration.options import CalibrationOptions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("options", "n_answered", "seconds", "said"),
    [
        pytest.param(CalibrationOptions(max_candidates=2), 1, 0.0, None, id="one left"),
        pytest.param(CalibrationOptions(max_candidates=2), 2, 0.0, "--max-candidates 2", id="none left"),
        pytest.param(CalibrationOptions(max_time=5.0), 1, 4.9, None, id="in time"),
        pytest.param(CalibrationOptions(max_time=5.0), 1, 5.0, "--max-time 5", id="too late"),
        pytest.param(CalibrationOptions(max_time=5.0), 0, 9.0, None, id="the first is always measured"),
        pytest.param(CalibrationOptions(), 1000, 1e6, None, id="without limits"),
    ],
)
def test_budget(
    clock: list[float], options: CalibrationOptions, n_answered: int, seconds: float, said: str | None
) -> None:
    budget = Budget(options)
    clock[0] += seconds
    assert budget.is_spent == ((said is not None and "time" in said) or n_answered == 0)
    if said is None:
        budget.check(n_answered)
    else:
        with pytest.raises(BudgetSpent, match=f"^{said}$"):
            budget.check(n_answered)
