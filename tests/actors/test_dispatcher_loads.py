"""The dispatcher hands out a program along with the first shard, so that an actor more costs the driver one call."""

import pytest

from distcalib.actors.dispatcher import MAX_DEATHS, Dispatcher, Kind, Task
from tests.actors.simulation import Simulation, jobs

PACE = 0.1


def compiled(n_iterations: int, n_actors: int) -> Dispatcher:
    """That has one job, which actor 0 has compiled and loaded."""
    dispatcher = Dispatcher(jobs(n_iterations), n_actors, PACE)
    compiling = dispatcher.next_task(0)
    assert compiling == Task(Kind.COMPILE, 0)
    dispatcher.done(compiling, 0.5, load_seconds=0.01)
    return dispatcher


def given(dispatcher: Dispatcher, actor: int, idle: bool = True) -> tuple[Task, bool]:
    """The next task, and whether the program goes along with it."""
    task = dispatcher.next_task(actor, idle)
    assert task is not None
    return task, task.loads


def test_dispatcher_gives_an_idle_actor_its_first_shard_with_the_program() -> None:
    dispatcher = compiled(100, 2)
    assert given(dispatcher, 1) == (Task(Kind.RUN, 0, range(50, 55)), True)
    assert given(dispatcher, 1, idle=False) == (Task(Kind.RUN, 0, range(55, 60)), False)
    assert given(dispatcher, 0) == (Task(Kind.RUN, 0, range(5)), False), "it compiled it"


def test_dispatcher_gives_a_busy_actor_the_program_alone() -> None:
    """Its shard would wait for what it works on, and others may do it meanwhile."""
    dispatcher = compiled(100, 2)
    assert given(dispatcher, 1, idle=False) == (Task(Kind.LOAD, 0), False)
    assert given(dispatcher, 1, idle=False) == (Task(Kind.RUN, 0, range(50, 55)), False)


def test_dispatcher_gives_nobody_a_shard_that_the_actors_on_their_way_will_take() -> None:
    dispatcher = compiled(1, 3)
    assert given(dispatcher, 1, idle=False) == (Task(Kind.LOAD, 0), False)
    assert dispatcher.next_task(2) is None
    assert not dispatcher.has_offer()
    dispatcher.lost(1, [Task(Kind.LOAD, 0)])
    assert given(dispatcher, 2) == (Task(Kind.RUN, 0, range(1)), True)


def test_dispatcher_tells_loading_from_running_in_one_task() -> None:
    dispatcher = compiled(100, 2)
    task, _ = given(dispatcher, 1)
    assert dispatcher.expected_seconds(task) is None, "what it takes to run is not known yet"
    dispatcher.done(task, 5 * 0.3 + 0.7, load_seconds=0.7)
    assert dispatcher.seconds_per_iteration == pytest.approx(0.3)
    assert dispatcher.expected_seconds(Task(Kind.LOAD, 0)) == 0.7
    assert dispatcher.expected_seconds(Task(Kind.RUN, 0, range(10))) == pytest.approx(3.0)
    assert dispatcher.expected_seconds(Task(Kind.RUN, 0, range(10), loads=True)) == pytest.approx(3.7)


def test_dispatcher_gives_the_shard_of_a_dead_actor_with_the_program_to_who_needs_it() -> None:
    dispatcher = compiled(100, 3)
    shard, loads = given(dispatcher, 1)
    assert loads
    assert dispatcher.lost(1, [shard]) is None
    assert given(dispatcher, 0) == (shard, False)
    assert dispatcher.lost(0, [shard]) is None
    assert given(dispatcher, 2) == (shard, True)


def test_dispatcher_lets_a_late_shard_be_done_without_loading_where_the_program_is() -> None:
    dispatcher = compiled(2, 2)
    own, _ = given(dispatcher, 0)
    late, loads = given(dispatcher, 1)
    assert loads
    dispatcher.done(own, 0.1)
    dispatcher.late([late])
    assert given(dispatcher, 0) == (late, False)
    dispatcher.done(late, 0.1)
    assert dispatcher.finished
    assert dispatcher.is_answered(late)
    assert dispatcher.drops(1) == ("key0",)


def test_dispatcher_blames_a_load_for_deaths_on_any_shard() -> None:
    """Another actor does each shard afterwards, so no shard is met three times."""
    dispatcher = compiled(100, 2)
    for n in range(1, MAX_DEATHS + 1):
        shard, loads = given(dispatcher, 1)
        assert loads
        error = dispatcher.lost(1, [shard])
        again, _ = given(dispatcher, 0)
        assert again == shard
        dispatcher.done(again, 0.5)
        assert (error is not None) == (n == MAX_DEATHS)
    assert str(error).startswith(f"job 0: loading its program: {MAX_DEATHS} actors died on it")


def test_dispatcher_blames_no_load_that_went_well_elsewhere() -> None:
    dispatcher = compiled(1000, 3)
    loaded, _ = given(dispatcher, 2)
    dispatcher.done(loaded, 0.6, load_seconds=0.1)
    for _ in range(2 * MAX_DEATHS):
        shard, loads = given(dispatcher, 1)
        assert loads
        assert dispatcher.lost(1, [shard]) is None
        again, _ = given(dispatcher, 0)
        dispatcher.done(again, 0.5)


def test_dispatcher_names_both_where_it_cannot_tell() -> None:
    dispatcher = compiled(100, 2)
    for _ in range(MAX_DEATHS):
        shard, _ = given(dispatcher, 1)
        error = dispatcher.lost(1, [shard])
    assert str(error).startswith(f"job 0, iterations 50-54, or job 0: loading its program: {MAX_DEATHS} actors died")


def test_dispatcher_calls_each_helper_once_where_there_is_a_row_for_each() -> None:
    simulation = Simulation(jobs(64), 64, seconds=1.0).run()
    assert simulation.count(Kind.LOAD) == 0
    assert simulation.n_loads >= 60
    assert len(simulation.given) <= 1 + 64
