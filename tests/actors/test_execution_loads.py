"""A call whose actors load a program and run a shard of it in one: whatever goes wrong in either part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from distcalib.actors import Job
from distcalib.actors.cluster import ActorLost
from distcalib.actors.dispatcher import MAX_DEATHS
from distcalib.actors.execution import Call
from distcalib.actors.fleet import Fleet
from distcalib.actors.timeline import Timeline
from distcalib.errors import EngineError, MeasureError
from scripts.simulate.simulated_cluster import Fault, Hang, SimulatedCluster
from tests.actors.echo import LOAD_SECONDS, ROW_SECONDS, Echo, fleet_on

LONG = Job("a", None, 4000, "job a")
OTHER = Job("b", "b", 30, "job b")


@dataclass
class RefusesToLoad(Echo):
    """Only the actor that compiled the program of the spec `refused` can load it."""

    refused: object = None
    n_loads: int = 0

    def load_seconds(self, spec: object) -> float:
        self.n_loads += spec == self.refused
        if spec == self.refused and self.n_loads > 1:
            raise EngineError("cannot be loaded")
        return LOAD_SECONDS


@dataclass
class RefusesToRun(Echo):
    """Iteration 4 cannot be run the first time."""

    refused: bool = False

    def run(self, spec: object, iterations: Sequence[int]) -> tuple[Sequence[object], float]:
        if 4 in iterations and not self.refused:
            self.refused = True
            raise EngineError("cannot be run")
        return super().run(spec, iterations)


def in_first(number: int, fault: Fault) -> Callable[[int, str, Sequence[Any]], Fault | None]:
    """It happens where that actor runs along with a load."""
    return lambda who, method, arguments: fault if (who, method) == (number, "load_and_run") else None


def made(engine: Echo, n_actors: int = 2) -> tuple[SimulatedCluster, Fleet]:
    cluster = SimulatedCluster(engine, task_seconds=1e-6)
    return cluster, fleet_on(cluster, *[""] * n_actors)


def call(cluster: SimulatedCluster, fleet: Fleet, *jobs: Job, **options: Any) -> Call:
    return Call(fleet, jobs, seconds_per_iteration=ROW_SECONDS, clock=lambda: cluster.clock, **options)


def test_call_brings_program_and_first_shard_at_once() -> None:
    cluster, fleet = made(Echo(), 8)
    seconds: list[float] = []
    timeline = Timeline(clock=lambda: cluster.clock)

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        assert list(rows) == list(numbers)
        seconds.append(run_seconds)

    [result] = call(cluster, fleet, LONG, on_rows=on_rows, timeline=timeline).run()
    assert result.rows == tuple(range(4000))
    called = [method for _, method in cluster.log]
    assert (called.count("load"), called.count("load_and_run"), called.count("compile")) == (0, 7, 1)
    assert result.load_seconds == pytest.approx(8 * LOAD_SECONDS)
    assert sum(seconds) == pytest.approx(result.run_seconds) == pytest.approx(4000 * ROW_SECONDS)
    [phase] = timeline.phases
    assert phase.n_iterations == 4000
    assert phase.load_seconds == pytest.approx(8 * LOAD_SECONDS)
    assert phase.run_seconds == pytest.approx(4000 * ROW_SECONDS)


def test_call_measures_the_pace_without_the_load() -> None:
    @dataclass
    class SlowToLoad(Echo):
        def load_seconds(self, spec: object) -> float:
            return 0.3

    cluster, fleet = made(SlowToLoad())
    running = call(cluster, fleet, replace(LONG, n_iterations=40_000))
    running.run()
    assert (1, "load_and_run") in cluster.log
    assert running.seconds_per_iteration == pytest.approx(ROW_SECONDS)


@pytest.mark.parametrize("may_fail", [False, True])
@pytest.mark.parametrize("part", ["load", "run"])
def test_call_ends_a_job_by_an_error_in_either_part(part: str, may_fail: bool) -> None:
    cluster, fleet = made(RefusesToLoad() if part == "load" else Echo(), 3)
    if part == "run":
        cluster.faults = in_first(2, EngineError("cannot be run"))
    running = call(cluster, fleet, replace(LONG, may_fail=may_fail), OTHER)
    said = "cannot be loaded" if part == "load" else "cannot be run"
    if may_fail:
        failed, other = running.run()
        assert (str(failed.error), failed.complete) == (said, False)
        assert other.rows == tuple(range(30))
    else:
        with pytest.raises(EngineError, match=f"^{said}$"):
            running.run()
        running.drain()
    fleet.clear()
    cluster.faults = in_first(9, Hang())
    [again] = call(cluster, fleet, OTHER).run()
    assert again.rows == tuple(range(30))


def test_call_does_the_shard_of_an_actor_that_died_over_it_again() -> None:
    cluster, fleet = made(Echo())
    cluster.faults = in_first(1, ActorLost("crash"))
    [result] = call(cluster, fleet, LONG).run()
    assert result.rows == tuple(range(4000))
    assert [number for number, method in cluster.log if method == "load_and_run"] == [1, 2], "the new one in its place"


def test_call_gives_up_a_program_that_no_other_actor_survives() -> None:
    cluster, fleet = made(Echo(), 3)

    def dies(number: int, method: str, arguments: Sequence[Any]) -> ActorLost | None:
        return ActorLost("crash") if method == "load_and_run" else None

    cluster.faults = dies
    with pytest.raises(MeasureError, match=f"job a: loading its program: {MAX_DEATHS} actors died on it"):
        call(cluster, fleet, replace(LONG, n_iterations=400_000)).run()


@pytest.mark.parametrize("part", ["load", "run"])
def test_call_minds_an_error_of_a_late_answer_where_the_program_is_missing(part: str) -> None:
    """Another actor has done the shard; this one would be given more of them, and cannot run any."""
    cluster, fleet = made(RefusesToLoad(refused=1.0) if part == "load" else RefusesToRun(), 3)
    cluster.faults = lambda number, method, arguments: Hang() if number and method == "load_and_run" else None

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        if 4 in numbers:
            cluster.actors[1].release()

    job = Job("a", 1.0, 12, "job a")
    running = Call(fleet, [job], None, None, 1.0, clock=lambda: cluster.clock, on_rows=on_rows)
    if part == "load":
        with pytest.raises(EngineError, match=r"^cannot be loaded$"):
            running.run()
    else:
        [result] = running.run()
        assert result.rows == tuple(range(12))


@pytest.mark.parametrize("seed", range(20))
def test_call_hands_out_rows_of_a_first_shard_that_nobody_waits_for(seed: int) -> None:
    cluster = SimulatedCluster(Echo(), seed=seed)
    fleet = fleet_on(cluster, "", "", "")
    handed: list[int] = []

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        handed.extend(numbers)

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        return True

    call(cluster, fleet, LONG, enough=enough, on_rows=on_rows).run()
    fleet.clear()
    [other] = call(cluster, fleet, OTHER).run()
    fleet.settle()
    assert other.rows == tuple(range(30))
    assert isinstance(cluster.engine, Echo)
    assert sorted(handed) == sorted(iteration for spec, iteration in cluster.engine.ran[: len(handed)])
    assert len(handed) == len(set(handed))
