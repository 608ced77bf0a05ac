"""A call against a simulated cluster: whatever order results come back in, and whatever goes wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from distcalib.actors import Job, Placement, Progress
from distcalib.actors.cluster import ActorLost
from distcalib.actors.dispatcher import FEW
from distcalib.actors.execution import Call
from distcalib.actors.fleet import Fleet, Left
from distcalib.actors.timeline import Timeline
from distcalib.errors import MeasureError, OutputError
from scripts.simulate.simulated_cluster import Faults, Hang, SimulatedCluster
from tests.actors.echo import ROW_SECONDS, Echo, echo_cluster, fleet_on
from tests.every import every

JOBS = [Job(key=key, spec=key, n_iterations=n, label=key) for key, n in (("a", 9), ("b", 4), ("c", 1))]


def two_actors(seed: int | None = None) -> tuple[SimulatedCluster, Fleet]:
    """On one machine."""
    cluster = echo_cluster(seed=seed)
    return cluster, fleet_on(cluster, "", "")


def clocked(cluster: SimulatedCluster) -> Callable[..., Call]:
    """A call by the simulated clock."""
    return partial(Call, clock=lambda: cluster.clock)


def hanging(*numbers: int) -> Faults:
    """Those actors never answer a shard."""
    shards = ("run", "load_and_run")
    return lambda number, method, arguments: Hang() if number in numbers and method in shards else None


def n_ran(cluster: SimulatedCluster) -> int:
    """How many rows were made, those of no use included."""
    assert isinstance(cluster.engine, Echo)
    return len(cluster.engine.ran)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_call_gives_an_actor_no_more_tasks_than_it_may_have(in_flight: int) -> None:
    cluster, fleet = two_actors(seed=0)
    results = Call(fleet, JOBS, in_flight=in_flight).run()
    assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]
    assert cluster.most_waiting == in_flight


@pytest.mark.parametrize(
    ("n_actors", "may_stop", "asks", "most"),
    [
        (2, (True, True), True, 1),
        (2, (True, False), True, 2),
        (2, (True, True), False, 2),
        (FEW, (True, True), True, 1),
        (FEW + 1, (True, True), True, 2),
    ],
)
def test_nothing_waits_at_few_actors_where_all_jobs_may_stop(
    n_actors: int, may_stop: tuple[bool, bool], asks: bool, most: int
) -> None:
    """What waits when a job is stopped is lost."""
    cluster = echo_cluster(seed=0)
    fleet = fleet_on(cluster, *[""] * n_actors)
    jobs = [Job(name, None, 400, name, may_stop=one) for name, one in zip("ab", may_stop, strict=True)]
    results = Call(fleet, jobs, enough=(lambda *_: False) if asks else None).run()
    assert [result.rows for result in results] == [tuple(range(400))] * 2
    assert cluster.most_waiting == most


@pytest.mark.parametrize("first_seed", range(0, 500, 100))
def test_call_gives_all_rows_in_any_order_of_completion(first_seed: int) -> None:
    """A load that came back after its job's last row once ended the call with a KeyError."""
    for seed in range(first_seed, first_seed + 100):
        _, fleet = two_actors(seed)
        results = Call(fleet, JOBS).run()
        assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]


def test_call_reports_progress_in_row_sizes() -> None:
    seen: list[Progress] = []
    _, fleet = two_actors(seed=0)
    jobs = [Job("a", None, 3, "ranges", row_sizes=(16, 16, 5)), Job("b", None, 4, "FP32")]
    Call(fleet, jobs, seen.append).run()
    assert {progress.n_total for progress in seen} == {41}
    assert seen[-1].n_done == 41


@pytest.mark.parametrize("seed", range(50))
def test_call_stops_a_job_and_leaves_what_is_in_flight(seed: int) -> None:
    asked: list[tuple[int, int]] = []

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        asked.append((place, len(rows)))
        return place == 0 and len(rows) >= 3

    _, fleet = two_actors(seed)
    jobs = [Job("a", None, 500, "a", order=tuple(range(1000, 500, -1))), Job("b", None, 5, "b")]
    stopped, other = Call(fleet, jobs, enough=enough).run()
    assert not stopped.complete
    assert stopped.rows == tuple(stopped.iterations)
    assert list(stopped.iterations) == sorted(stopped.iterations, reverse=True)
    assert other.rows == (0, 1, 2, 3, 4)
    assert sum(place == 0 and n >= 3 for place, n in asked) == 1, "not asked again"
    assert len([*fleet.take_left(0), *fleet.take_left(1)]) <= 4


def leave_busy(fleet: Fleet, number: int, seconds: float) -> None:
    """Have an actor work on a row of an earlier call that nobody waits for."""
    fleet.call(number, "load", "old", "old", seconds, ())
    fleet.leave(number, [Left(fleet.call(number, "run", "old", "old", [0], ()))])


def test_call_waits_for_an_actor_that_an_earlier_call_left_busy() -> None:
    cluster, fleet = two_actors()
    leave_busy(fleet, 0, 3.0)
    fleet.leave(0, [Left(fleet.call(0, "run", "never loaded", "of an error that nobody wants to know", [0], ()))])
    [result] = Call(fleet, [Job("a", None, 9000, "a")]).run()
    assert result.rows == tuple(range(9000))
    assert 4.5 < cluster.clock < 9.0, "first one actor, then both"
    assert fleet.settle() == 3.0


def test_call_hands_over_an_error_of_enough() -> None:
    def fail(place: int, rows: Mapping[int, object]) -> bool:
        raise OSError("disk is full")

    _, fleet = two_actors(seed=0)
    with pytest.raises(OSError, match="disk"):
        Call(fleet, JOBS, enough=fail).run()


def test_call_does_without_an_actor_that_has_no_memory() -> None:
    def no_memory(number: int, method: str, arguments: Sequence[Any]) -> ActorLost | None:
        return ActorLost("no memory", for_memory=True) if (number, method) == (1, "run") else None

    cluster = echo_cluster(faults=no_memory)
    fleet = fleet_on(cluster, "", "")
    for _ in range(2):
        results = Call(fleet, JOBS).run()
        assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]
    assert [fleet.is_retired(number) for number in range(2)] == [False, True]
    assert len(cluster.started) == 2, "no other takes its place"
    assert sum(number == 1 for number, _ in cluster.log) < 8


@pytest.mark.parametrize("seed", range(20))
def test_call_has_the_tasks_of_a_dead_actor_done_again(seed: int) -> None:
    cluster, fleet = two_actors(seed)

    def dies(number: int, method: str, arguments: Sequence[Any]) -> ActorLost | None:
        return ActorLost("crash") if number == 1 and cluster.log.count((1, "run")) == 2 else None

    cluster.faults = dies
    [result] = Call(fleet, [Job("a", None, 500, "a")], None, None, ROW_SECONDS).run()
    assert result.rows == tuple(range(500))
    assert len(cluster.started) == 3


def test_call_blames_no_task_that_was_not_under_way() -> None:
    """Two actors die, one after the other, on what an earlier call left to them with the same task behind it, and a
    third on that task."""

    def no_memory(number: int, method: str, arguments: Sequence[Any]) -> ActorLost | None:
        deadly = (method, arguments[0]) == ("run", "old") if number < 2 else (number, method) == (2, "compile")
        return ActorLost("no memory", for_memory=True) if deadly else None

    cluster = echo_cluster(faults=no_memory)
    fleet = fleet_on(cluster, *[""] * 4)
    for number in range(4):
        leave_busy(fleet, number, 1.0 + number)
    [result] = Call(fleet, [Job("a", None, 4, "a")]).run()
    assert result.rows == tuple(range(4))
    assert [(n, method) for n, method in cluster.log if method == "compile"] == [(n, "compile") for n in range(4)]


def test_call_has_another_actor_do_what_one_is_late_with() -> None:
    cluster = echo_cluster(faults=hanging(1))
    fleet = fleet_on(cluster, "", "")
    seen: list[Progress] = []
    [result] = clocked(cluster)(fleet, [Job("a", None, 400, "a")], seen.append, None, 0.01).run()
    assert result.rows == tuple(range(400))
    assert (1, "run") in cluster.log
    assert cluster.clock < 5.0
    assert len(fleet.take_left(1)) == 2, "it is left to its actor"
    assert fleet.take_left(0) == []
    assert seen[-1].n_done == seen[-1].n_total == 400


def test_call_counts_the_slower_answer_as_time_alone() -> None:
    """Both answers to a late shard come back while the call still waits for another row, of ten seconds."""
    cluster = echo_cluster(faults=hanging(2))
    fleet = fleet_on(cluster, "", "", "")

    def look() -> None:  # after three seconds
        cluster.faults = hanging()
        cluster.release()

    jobs = [Job("a", None, 400, "a"), Job("b", 10.0, 1, "b")]
    short, long = clocked(cluster)(fleet, jobs, None, None, 0.01, look=look).run()
    assert (short.rows, long.rows) == (tuple(range(400)), (0,))
    assert n_ran(cluster) > 401
    assert short.run_seconds == pytest.approx((n_ran(cluster) - 1) * ROW_SECONDS)
    assert short.run_seconds > 401 * ROW_SECONDS


def test_call_uses_actors_that_join() -> None:
    cluster, fleet = two_actors()

    def look() -> None:
        fleet.extend([Placement(0, (2,)), Placement(1, (3,))] if len(fleet) == 2 else [], grows=True)

    [result] = clocked(cluster)(fleet, [Job("a", None, 40_000, "a")], None, None, ROW_SECONDS, look=look).run()
    assert result.rows == tuple(range(40_000))
    assert {actor for actor, method in cluster.log if method == "run"} == {0, 1, 2, 3}
    assert cluster.clock < 13.0, "3 s with two actors, 8.5 s with four"


def test_call_keeps_a_program_whose_node_is_lost() -> None:
    """It was compiled on that node, and is not compiled again."""
    cluster = echo_cluster("a", "b")
    fleet = fleet_on(cluster, "b", "a")

    def lose(number: int, method: str, arguments: Sequence[Any]) -> None:
        if (number, method) == (1, "load_and_run"):
            cluster.lose("b")

    cluster.faults = lose
    [result] = Call(fleet, [Job("a", None, 400, "a")], None, None, ROW_SECONDS).run()
    assert result.rows == tuple(range(400))
    assert fleet.placements[0].node == "a"
    assert [method for _, method in cluster.log if method == "compile"] == ["compile"]
    assert len(cluster.started) == 3, "the actor that loads it lives on"


@pytest.mark.parametrize("seed", range(20))
def test_call_hands_out_rows_before_enough_sees_them(seed: int) -> None:
    handed: dict[int, dict[int, object]] = {0: {}, 1: {}, 2: {}}
    seconds = []

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        assert handed[place].keys().isdisjoint(numbers)
        handed[place].update(zip(numbers, rows, strict=True))
        seconds.append(run_seconds)

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        assert handed[place] == rows
        return False

    _, fleet = two_actors(seed)
    jobs = [replace(JOBS[0], order=tuple(range(90, 0, -10))), *JOBS[1:]]
    results = Call(fleet, jobs, enough=enough, on_rows=on_rows).run()
    assert handed == {place: result.by_number for place, result in enumerate(results)}
    assert every(number == row for rows in handed.values() for number, row in rows.items())
    assert sum(seconds) == pytest.approx(sum(result.run_seconds for result in results))


@pytest.mark.parametrize("seed", range(20))
def test_call_hands_out_rows_that_nobody_waited_for(seed: int) -> None:
    """Those of a job that was stopped come in the next call, or with what is left after the last."""
    cluster, fleet = two_actors(seed)
    handed: list[int] = []

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        assert [*rows] == [*numbers]
        handed.extend(numbers)

    job = Job("x", "x", 500, "x", order=tuple(range(1000, 500, -1)))
    stop = partial(Call, fleet, [job], enough=lambda place, rows: len(rows) >= 3)
    [first] = stop(on_rows=on_rows).run()
    Call(fleet, JOBS).run()
    fleet.settle()
    assert isinstance(cluster.engine, Echo)
    made = [iteration for spec, iteration in cluster.engine.ran if spec == "x"]
    assert sorted(handed) == sorted(made)
    assert len(handed) == len(set(handed))
    assert set(first.rows) <= set(handed)


def test_call_that_failed_hands_out_what_was_in_flight() -> None:
    handed: list[int] = []

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        handed.extend(numbers)
        if len(handed) == 1:
            raise OSError("an error of something else")
        raise OutputError("the disk is full")  # not what is told

    cluster, fleet = two_actors(seed=0)
    call = Call(fleet, [Job("a", None, 500, "a")], on_rows=on_rows)
    with pytest.raises(OSError, match="something else"):
        call.run()
    call.drain()
    assert len(handed) == len(set(handed)) == n_ran(cluster) > 1


def test_call_that_was_interrupted_hands_out_what_comes_in_time() -> None:
    cluster = echo_cluster(faults=hanging(1))
    fleet = fleet_on(cluster, "", "")
    handed: list[int] = []

    def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], run_seconds: float) -> None:
        handed.extend(numbers)
        if len(handed) == len(numbers):
            raise KeyboardInterrupt

    call = clocked(cluster)(fleet, [Job("a", None, 40_000, "a")], None, None, ROW_SECONDS, on_rows=on_rows)
    with pytest.raises(KeyboardInterrupt):
        call.run()
    before, begun = len(handed), cluster.clock
    call.rescue(0.6)
    assert len(handed) > before, "of the actor that has answered by now"
    assert cluster.clock - begun == pytest.approx(0.6), "it does not wait for ever"


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([JOBS[0], JOBS[0]], "^jobs a: given more than once"),
        ([Job("a", None, 0, "none")], "^none: no iterations to run"),
        ([Job("a", None, 2, "twice", order=(3, 3))], "^twice: order must have"),
        ([Job("a", None, 2, "sizes", row_sizes=(1, 0))], "^sizes: row_sizes must be"),
        ([Job("a", None, 2, "homes", homes=(1, 2))], "^homes: homes and ranks must be"),
    ],
)
def test_call_refuses_jobs_that_contradict_themselves(jobs: list[Job], said: str) -> None:
    _, fleet = two_actors()
    with pytest.raises(MeasureError, match=said):
        Call(fleet, jobs)


@pytest.mark.parametrize("seed", range(20))
def test_call_enters_all_work_into_the_timeline_whenever_it_comes_back(seed: int) -> None:
    timeline = Timeline()
    _, fleet = two_actors(seed)
    jobs = [Job("a", None, 500, "stopped", row_sizes=(2,) * 500), Job("b", None, 5, "whole")]
    stopped, whole = Call(fleet, jobs, enough=_three_of_the_first, timeline=timeline).run()
    fleet.settle()
    found = {phase.name: phase for phase in timeline.phases}
    assert found["whole"].n_iterations == 5
    assert found["whole"].run_seconds == pytest.approx(whole.run_seconds)
    assert found["stopped"].n_iterations >= stopped.size
    assert found["stopped"].n_iterations % 2 == 0
    assert found["stopped"].run_seconds >= stopped.run_seconds > 0.0
    assert found["stopped"].compile_seconds >= stopped.compile_seconds


def _three_of_the_first(place: int, rows: Mapping[int, object]) -> bool:
    return place == 0 and len(rows) >= 3
