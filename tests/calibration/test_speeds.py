"""Which nets are timed, and that one which cannot be run costs no result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distcalib.actors import Job
from distcalib.calibration.looks import look
from distcalib.calibration.pareto import LayerTimes
from distcalib.calibration.results import SearchResult
from distcalib.calibration.speeds import Speeds, speeds
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.timing import REST, TimingSpec
from distcalib.errors import EngineError
from distcalib.quantize.candidate import Candidate, Space

SPACE = Space(("conv1", "conv2"))
START, SOME, FP32 = SPACE.all_int8, SPACE.candidate(["conv1"]), SPACE.candidate([])
SECONDS = {b"fp32": 0.5, b"conv1 conv2": 0.125, b"conv1": 0.25}


class Searched:
    """A search that is over, on actors that take SECONDS for the fastest iteration."""

    def __init__(self, failed: Sequence[Candidate] = (), broken: bytes = b"", root: Path | None = None) -> None:
        self.notes: list[str] = []
        self.jobs: list[Job] = []
        self._broken = broken
        self.programs = SimpleNamespace(start=START, spec=lambda c: NetSpec(" ".join(c.int8_layers).encode(), "net"))
        self.failed = dict.fromkeys(failed, "no kernel")
        self.goal = SimpleNamespace(options=SimpleNamespace(root=root), ranked=(0, 2, 4, 6))
        self.learned: list[tuple[float, float]] = []
        self.meter = SimpleNamespace(
            session=SimpleNamespace(batch=10, run=self.run),
            note=self.notes.append,
            learn_speeds=lambda fp32, int8: self.learned.append((fp32, int8)),
        )

    def run(self, phase: str, jobs: Sequence[Job]) -> list[Any]:
        self.jobs += jobs
        return [self.result(job) for job in jobs]

    def result(self, job: Job) -> Any:
        assert isinstance(job.spec, TimingSpec)
        net = job.spec.net.net
        if net == self._broken:
            return SimpleNamespace(error=EngineError("cannot compile"), rows=[])
        times = [SECONDS[net] * factor for factor in (3, 1, 2)]
        by_layer = [{"conv1": one, REST: 1.0 - one} for one in (0.5, SECONDS[net], 0.25)]
        pairs = zip(times, by_layer, strict=True)
        return SimpleNamespace(error=None, rows=[Row({}, (), {}, whole_seconds=t, seconds=s) for t, s in pairs])

    def found(self, winner: Candidate, times: LayerTimes | None = None, n_cores: int = 1) -> Speeds:
        result = SearchResult(winner, failed=self.failed)
        looks = speeds(self, NetSpec(b"fp32", "net"), result, times, n_cores)  # type: ignore[arg-type]
        [found] = look(self.meter.session, "speeds", looks)
        assert isinstance(found, Speeds)
        return found


@pytest.mark.parametrize(
    ("searched", "winner", "expected"),
    [
        pytest.param(Searched(), SOME, {"FP32": 20.0, "all INT8": 80.0, "delivered": 40.0}, id="some"),
        pytest.param(Searched(), START, {"FP32": 20.0, "all INT8": 80.0, "delivered": 80.0}, id="all INT8"),
        pytest.param(Searched(), FP32, {"FP32": 20.0, "all INT8": 80.0, "delivered": 20.0}, id="FP32"),
        pytest.param(Searched([START]), SOME, {"FP32": 20.0, "delivered": 40.0}, id="all INT8 cannot be run"),
        pytest.param(Searched(broken=b"conv1"), SOME, {"FP32": 20.0, "all INT8": 80.0}, id="cannot be timed"),
        pytest.param(Searched(root=Path("build")), SOME, {}, id="of Caffe"),
    ],
)
def test_speeds_of_the_nets(searched: Searched, winner: Candidate, expected: dict[str, float]) -> None:
    assert searched.found(winner).rates == expected


def test_a_net_is_timed_once_on_three_iterations_and_told() -> None:
    searched = Searched()
    searched.found(START)
    assert [(job.key, job.order, job.may_fail) for job in searched.jobs] == [
        ("speed/FP32", (0, 2, 4), True),
        ("speed/all INT8", (0, 2, 4), True),
    ]
    assert searched.notes == ["images/s of one core: FP32 20, all INT8 80, delivered 80 (4.00 times FP32)"]
    assert searched.learned == [(20.0, 80.0)]


def test_speeds_are_those_of_one_of_several_cores() -> None:
    assert Searched().found(SOME, n_cores=2).rates["delivered"] == 20.0


TIMES = LayerTimes({"conv1": 3.0, REST: 1.0}, {"conv1": 2.0, REST: 0.5})


@pytest.mark.parametrize(
    ("searched", "times", "expected"),
    [
        pytest.param(Searched(), None, {"conv1": (0.25, 0.125), REST: (0.5, 0.5)}, id="the fastest"),
        pytest.param(Searched(), TIMES, {"conv1": (3.0, 2.0), REST: (1.0, 0.5)}, id="known"),
        pytest.param(Searched([START]), None, {}, id="cannot be run"),
        pytest.param(Searched(broken=b"conv1 conv2"), None, {}, id="cannot be timed"),
        pytest.param(Searched(root=Path("build")), None, {}, id="a build of Caffe's"),
    ],
)
def test_layers_are_timed_in_both_nets(
    searched: Searched, times: LayerTimes | None, expected: Mapping[str, tuple[float, float]]
) -> None:
    assert searched.found(SOME, times).layers == expected
    assert {job.order for job in searched.jobs} <= {(0, 2, 4)}


def test_a_net_is_not_run_twice_for_its_layers() -> None:
    searched = Searched()
    searched.found(SOME)
    assert [job.key for job in searched.jobs] == ["speed/FP32", "speed/all INT8", "speed/delivered"]
