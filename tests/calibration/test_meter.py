"""What a calibration costs in passes, by a unit that few iterations cannot tell."""

from types import SimpleNamespace
from typing import Any

import pytest

from distcalib.actors import Job, JobResult
from distcalib.calibration.meter import WARM, Meter
from distcalib.engine.spec import Row


def meter(n_actors: int = 2) -> Meter:
    session: Any = SimpleNamespace(n_actors=n_actors)
    return Meter(session)


def result(n_run: int, n: int = 1000, emulated: bool = False) -> JobResult:
    row = Row({}, (), None if emulated else {"conv1": "brgconv_avx512_I8"})
    return JobResult.of(Job("a", None, n, "a"), dict.fromkeys(range(n_run), row))


def test_passes_are_of_one_fp32_and_one_int8_pass() -> None:
    assert meter().passes is None
    one = meter()
    one.count(30.0)
    one.count_fp32(10.0)
    assert one.passes == 3.0
    one.count_int8(5.0, result(500))
    assert (one.unavoidable, one.passes) == (15.0, 2.0)


@pytest.mark.parametrize(
    ("ran", "unavoidable"),
    [
        pytest.param(result(1), 12.5, id="one iteration"),
        pytest.param(result(2 * WARM - 1), 12.5, id="few for two actors"),
        pytest.param(result(2 * WARM), 15.0, id="enough"),
        pytest.param(result(3, 3), 15.0, id="few, and all that there are"),
        pytest.param(result(3, emulated=True), 15.0, id="few, of another speed than what is timed"),
    ],
)
def test_a_pass_of_few_iterations_is_reckoned_from_speeds(ran: JobResult, unavoidable: float) -> None:
    one = meter()
    one.count_fp32(10.0)
    one.count_int8(5.0, ran)
    one.learn_speeds(100.0, 400.0)
    assert one.unavoidable == unavoidable
