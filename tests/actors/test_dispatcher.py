"""What the dispatcher hands out, and when: single decisions, then whole calls behind a simulated clock."""

from collections import Counter
from dataclasses import replace

import pytest

from distcalib.actors.dispatcher import (
    FEW,
    LEAST_SECONDS,
    MAX_COPIES,
    MAX_DEATHS,
    SHORT_SECONDS,
    TARGET_SECONDS,
    Dispatcher,
    Kind,
    Task,
    describe,
    n_useful,
)
from distcalib.errors import MeasureError
from tests.actors.simulation import HANG_SECONDS, SECONDS, Simulation, jobs


def loads(task: Task | None) -> bool:
    """Whether it is a shard along with its program, which tasks that are equal need not tell."""
    return task is not None and task.kind is Kind.RUN and task.loads


@pytest.mark.parametrize("n_actors", [1, 2, 7, 64])
@pytest.mark.parametrize("sizes", [(1,), (100,), (3, 50, 1), (10,) * 20], ids=str)
def test_dispatcher_gives_out_every_iteration_once(sizes: tuple[int, ...], n_actors: int) -> None:
    simulation = Simulation(jobs(*sizes), n_actors).run()
    for job, n in enumerate(sizes):
        assert simulation.iterations(job) == list(range(n))
    assert simulation.count(Kind.COMPILE) == len(sizes)


@pytest.mark.parametrize(("n_actors", "efficiency"), [(1, 0.99), (2, 0.97), (8, 0.90)])
def test_dispatcher_keeps_actors_busy_with_one_job(n_actors: int, efficiency: float) -> None:
    simulation = Simulation(jobs(2000), n_actors).run()
    ideal = SECONDS[Kind.COMPILE] + 2000 * 0.02 / n_actors
    assert simulation.clock <= ideal / efficiency


def test_dispatcher_balances_a_slow_actor() -> None:
    simulation = Simulation(jobs(2000), 2, slow={1: 4.0}).run()
    assert simulation.clock <= (0.5 + 2000 * 0.02 / 1.25) * 1.05


def test_dispatcher_runs_many_jobs_side_by_side() -> None:
    simulation = Simulation(jobs(*[50] * 16), 4).run()
    assert simulation.clock <= 1.1 * 4 * (0.5 + 50 * 0.02)
    assert simulation.n_loads <= 4, "jobs of equal size need help at the end only"


def test_dispatcher_starts_with_single_iterations_and_grows_to_the_target() -> None:
    sizes = [len(task.positions) for _, task in Simulation(jobs(2000), 1).run().done if task.kind is Kind.RUN]
    assert sizes[0] == 1
    assert max(sizes) == TARGET_SECONDS / 0.02


@pytest.mark.parametrize("n_actors", [1, 8])
def test_dispatcher_hands_out_in_order_where_beginnings_count(n_actors: int) -> None:
    [job] = jobs(500)
    simulation = Simulation([replace(job, in_order=True)], n_actors).run()
    starts = [task.positions.start for _, _, task in simulation.given if task.kind is Kind.RUN]
    assert starts == sorted(starts)
    assert simulation.iterations(0) == list(range(500))


def test_dispatcher_sends_no_help_that_would_load_longer_than_the_rest_takes() -> None:
    dispatcher = Dispatcher(jobs(10), 2, seconds_per_iteration=0.1)
    compiling = dispatcher.next_task(0)
    assert compiling == Task(Kind.COMPILE, 0)
    dispatcher.done(compiling, 6.0, load_seconds=5.0)
    assert dispatcher.next_task(1) is None
    dispatcher.done(compiling, 6.0, load_seconds=0.1)
    assert loads(dispatcher.next_task(1))


def test_dispatcher_knows_the_pace_of_an_earlier_call() -> None:
    dispatcher = Dispatcher(jobs(2000), 1, seconds_per_iteration=0.1)
    dispatcher.next_task(0)
    assert dispatcher.next_task(0) == Task(Kind.RUN, 0, range(5))


def test_dispatcher_does_not_give_all_away_on_a_wrong_guess() -> None:
    dispatcher = Dispatcher(jobs(40), 2, seconds_per_iteration=1e-6)
    dispatcher.next_task(0)
    assert dispatcher.next_task(0) == Task(Kind.RUN, 0, range(5))


def test_dispatcher_gives_an_actor_the_same_stretch_in_every_job() -> None:
    simulation = Simulation(jobs(100), 2)
    simulation.run()
    again = Simulation(jobs(100), 2)
    again.run()
    assert simulation.done == again.done
    mine = [i for actor, task in simulation.done if actor == 0 for i in task.positions]
    assert sum(i < 50 for i in mine) / len(mine) > 0.9


def test_dispatcher_does_not_load_for_less_work_than_loading_costs() -> None:
    dispatcher = Dispatcher(jobs(4), 2, seconds_per_iteration=0.01)
    compiling = dispatcher.next_task(0)
    assert compiling is not None
    assert dispatcher.next_task(1) is None, "nothing to load while it compiles"
    dispatcher.done(compiling, 0.5)
    helping = dispatcher.next_task(1)
    assert helping is not None
    assert loads(helping)
    dispatcher.done(helping, 1.01, load_seconds=1.0)
    dispatcher.lost(1, [])
    assert dispatcher.next_task(1) is None, "0.03 s of work, 1 s to load"


def test_dispatcher_drops_a_finished_job_where_it_is_held() -> None:
    simulation = Simulation(jobs(40, 400), 2).run()
    for actor in range(2):
        left = simulation.programs[actor] - set(simulation.dispatcher.drops(actor))
        assert left == set()


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
@pytest.mark.parametrize("n_actors", [1, 2, 3])
def test_dispatcher_does_the_tasks_of_a_dead_actor_again(n_actors: int, nth: int) -> None:
    simulation = Simulation(jobs(60, 30), n_actors, dies=lambda actor, n, task: n == nth).run()
    assert simulation.iterations(0) == list(range(60))
    assert simulation.iterations(1) == list(range(30))


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Kind.COMPILE, "job 1: compiling its program"), (Kind.RUN, "job 1, iteration")],
    ids=["compiling", "running"],
)
def test_dispatcher_stops_at_the_third_death_on_one_task(kind: Kind, said: str) -> None:
    culprit: list[Task] = []

    def dies(actor: int, n: int, task: Task) -> bool:
        if not culprit and task.kind is kind and task.job == 1:
            culprit.append(task)
        return task in culprit

    with pytest.raises(MeasureError, match=f"^{said}.*{MAX_DEATHS} actors died on it"):
        Simulation(jobs(20, 20), 2, dies=dies).run()


def test_dispatcher_blames_only_the_task_under_way() -> None:
    dispatcher = Dispatcher(jobs(10), 1)
    for _ in range(MAX_DEATHS - 1):
        first, second = dispatcher.next_task(0), dispatcher.next_task(0)
        assert first is not None
        assert second is not None
        dispatcher.lost(0, [first, second])
    compiling, running = dispatcher.next_task(0), dispatcher.next_task(0)
    assert compiling is not None
    assert running is not None
    dispatcher.done(compiling, 0.1)
    dispatcher.lost(0, [running])


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task(Kind.LOAD, 0), "job 0: loading its program"),
        (Task(Kind.RUN, 0, range(3, 4)), "job 0, iteration 3"),
        (Task(Kind.RUN, 0, range(3, 8)), "job 0, iterations 3-7"),
    ],
    ids=["load", "one", "many"],
)
def test_describe_names_job_and_iterations(task: Task, said: str) -> None:
    assert describe(jobs(9)[0], task) == said


def test_describe_names_iterations_in_the_order_of_the_job() -> None:
    job = replace(jobs(4)[0], order=(70, 3, 4, 9))
    assert describe(job, Task(Kind.RUN, 0, range(1, 3))) == "job 0, iterations 3-4"
    assert describe(job, Task(Kind.RUN, 0, range(0, 4))) == "job 0, iterations 70, 3, 4, 9"


def test_dispatcher_knows_the_pace_of_rows_of_several_iterations() -> None:
    of_blocks = [replace(jobs(20)[0], row_sizes=(10,) * 20)]
    dispatcher = Dispatcher(of_blocks, 1, seconds_per_iteration=0.025)
    dispatcher.next_task(0)
    shard = dispatcher.next_task(0)
    assert shard == Task(Kind.RUN, 0, range(2)), "0.25 s a row"
    dispatcher.done(shard, 1.0)
    assert dispatcher.seconds_per_iteration == 0.05


def test_dispatcher_makes_shards_short_that_nobody_may_want() -> None:
    simulation = Simulation(jobs(2000), 2, seconds=0.005, enough=lambda job, done: False).run()
    longest = max(len(task.positions) for _, task in simulation.done)
    assert LEAST_SECONDS <= longest * 0.005 <= SHORT_SECONDS


def test_dispatcher_spares_the_driver_of_many_actors() -> None:
    dispatcher = Dispatcher(jobs(2_250_000), 2000, seconds_per_iteration=0.001)
    dispatcher.next_task(0)
    first = dispatcher.next_task(0)
    assert first == Task(Kind.RUN, 0, range(375)), "a quarter of one stretch of 1,500; the driver could stand 2 s"


def test_dispatcher_sends_no_more_helpers_than_there_is_work() -> None:
    simulation = Simulation(jobs(100), 1000, seconds=0.5).run()
    assert 90 <= simulation.n_loads <= 100


def test_dispatcher_sends_no_more_helpers_than_the_driver_can_feed() -> None:
    simulation = Simulation(jobs(1250), 1000, seconds=0.03, pace=0.03).run()
    assert 100 <= simulation.n_loads <= n_useful(1250 * 0.03, 1000) < 200
    assert simulation.count(Kind.RUN) < 1000


@pytest.mark.parametrize(
    ("work", "n_actors", "expected"), [(1e-6, 8, 8), (1e-6, 100, FEW), (1e6, 100, 100), (2.5, 99, 50)]
)
def test_n_useful_is_all_of_few_actors_and_those_with_enough_to_do_of_many(
    work: float, n_actors: int, expected: int
) -> None:
    assert n_useful(work, n_actors) == expected


def test_dispatcher_finds_an_actor_for_a_job_whose_actors_all_died() -> None:
    dispatcher = Dispatcher(jobs(4, 1), 2, seconds_per_iteration=0.01)
    compiling = dispatcher.next_task(0)
    assert compiling is not None
    dispatcher.done(compiling, 0.5)
    assert dispatcher.next_task(1) == Task(Kind.COMPILE, 1)
    dispatcher.done(Task(Kind.LOAD, 0), 100.0)
    dispatcher.lost(0, [])
    helping = dispatcher.next_task(0)
    assert (loads(helping), helping) == (True, Task(Kind.RUN, 0, range(1))), "loading costs more than the work, and yet"


def test_dispatcher_closes_a_job_at_once() -> None:
    dispatcher = Dispatcher(jobs(100, 7), 1)
    compiling, shard = dispatcher.next_task(0), dispatcher.next_task(0)
    assert compiling is not None
    assert shard is not None
    dispatcher.done(compiling, 0.5)
    dispatcher.close(0)
    dispatcher.close(0)
    assert dispatcher.drops(0) == ("key0",)
    assert dispatcher.next_task(0) == Task(Kind.COMPILE, 1)
    assert dispatcher.lost(0, [shard, Task(Kind.COMPILE, 1)]) is None
    assert dispatcher.next_task(0) == Task(Kind.COMPILE, 1), "the shard is not done again"
    dispatcher.close(1)
    assert dispatcher.finished


@pytest.mark.parametrize("slowness", [20.0, 1e6], ids=["slow", "as good as lost"])
def test_dispatcher_waits_for_no_late_actor(slowness: float) -> None:
    simulation = Simulation(jobs(400), 4, slow={2: slowness}, dies=lambda actor, n, task: False)
    simulation.dispatcher._pace = 0.02
    simulation.run()
    assert simulation.iterations(0) == list(range(400))
    assert simulation.clock < SECONDS[Kind.COMPILE] + 400 * 0.02 / 3 + 3.5, "it would be 10 s, or for ever"


def test_dispatcher_goes_on_without_a_machine_that_is_cut_off() -> None:
    simulation = Simulation(jobs(400, 400), 6, hangs=lambda actor, n: actor >= 3 and n == 4).run()
    assert [simulation.iterations(job) for job in (0, 1)] == [list(range(400))] * 2
    assert simulation.clock < HANG_SECONDS / 4


def test_dispatcher_does_nothing_twice_where_nobody_is_late() -> None:
    simulation = Simulation(jobs(500, 20), 8, slow={i: 1.0 + i / 8 for i in range(8)}).run()
    assert not simulation.n_late
    assert sum(len(task.positions) for _, _, task in simulation.given) == 520


def test_dispatcher_lets_a_late_shard_be_done_by_another_as_it_is() -> None:
    dispatcher = Dispatcher(jobs(1), 3, seconds_per_iteration=0.1)
    compiling, shard = dispatcher.next_task(0), dispatcher.next_task(0)
    assert compiling is not None
    assert shard is not None
    dispatcher.done(compiling, 0.5, 0.1)
    assert dispatcher.next_task(1) is None
    dispatcher.late([shard])
    assert dispatcher.next_task(1, idle=False) is None, "busy itself"
    assert dispatcher.next_task(1) == Task(Kind.LOAD, 0)
    assert dispatcher.next_task(2) is None, "one helper a shard"
    dispatcher.done(Task(Kind.LOAD, 0), 0.1)
    assert dispatcher.next_task(1) == shard
    assert dispatcher.next_task(1) is None
    assert dispatcher.lost(0, [shard]) is None
    assert dispatcher.next_task(0) is None, "it is under way at the other one"
    assert dispatcher.lost(1, [shard]) is None
    again = dispatcher.next_task(2)
    assert (loads(again), again) == (True, shard), "nobody has it any more"
    dispatcher.done(shard, 0.1)
    assert dispatcher.finished
    assert dispatcher.is_answered(shard) == (dispatcher._copies != {})


def test_dispatcher_has_at_most_so_many_do_a_late_shard() -> None:
    dispatcher = Dispatcher(jobs(1), 9, seconds_per_iteration=0.1)
    compiling, shard = dispatcher.next_task(0), dispatcher.next_task(0)
    assert compiling is not None
    assert shard is not None
    dispatcher.done(compiling, 0.5, 0.1)
    found = [shard]
    for actor in range(1, 9):
        dispatcher.late([shard])
        if dispatcher.next_task(actor) is not None:
            dispatcher.done(Task(Kind.LOAD, 0), 0.1)
            task = dispatcher.next_task(actor)
            assert task == shard
            found.append(task)
    assert len(found) == MAX_COPIES
    dispatcher.done(shard, 9.0)
    assert dispatcher.finished
    assert dispatcher.is_answered(shard)
    dispatcher.done(shard, 9.0)
    assert dispatcher.lost(2, [shard]) is None


@pytest.mark.parametrize("in_order", [False, True])
def test_dispatcher_gives_work_to_actors_that_join(in_order: bool) -> None:
    [job] = jobs(2000)
    simulation = Simulation([replace(job, in_order=in_order)], 1, joins=[4.0] * 3).run()
    assert simulation.iterations(0) == list(range(2000))
    assert {actor for actor, _ in simulation.done} == {0, 1, 2, 3}
    assert simulation.clock <= 4.25 + (2000 * 0.02 - 3.5) / 4 * 1.1


def test_dispatcher_sets_aside_a_job_that_kills_its_actors() -> None:
    call = jobs(600, 60)
    call[1] = replace(call[1], may_fail=True)
    for deadly in (Task(Kind.COMPILE, 1), Task(Kind.RUN, 1, range(30, 31))):

        def dies(actor: int, n: int, task: Task, deadly: Task = deadly) -> bool:
            return (task.job, task.kind) == (1, deadly.kind) and set(deadly.positions) <= set(task.positions)

        simulation = Simulation(call, 2, dies=dies).run()
        assert simulation.iterations(0) == list(range(600))
        assert simulation.failed.keys() == {1}
        under_way = Counter(task for task in simulation.lost if dies(0, 0, task))
        assert max(under_way.values()) == MAX_DEATHS


def test_dispatcher_stays_fast_with_thousands_of_actors() -> None:
    """Counted, not timed: how often actors were asked for each task that was handed out. (With 53 jobs this takes
    2.5 s; asking all actors whenever one is done, and each for the longest of all stretches, took many minutes.)"""
    asked = 0

    class Counting(Simulation):
        def __init__(self) -> None:
            super().__init__(jobs(*[1000] * 13), 4096, seconds=0.58)
            next_task = self.dispatcher.next_task

            def counted(actor: int, idle: bool = True) -> Task | None:
                nonlocal asked
                asked += 1
                return next_task(actor, idle)

            self.dispatcher.next_task = counted  # type: ignore[method-assign]

    simulation = Counting().run()
    assert sum(len(positions) for positions in simulation.positions) == 13_000
    assert asked <= 3 * len(simulation.given) + 2 * 4096
    assert simulation.clock <= 1.5 * (SECONDS[Kind.COMPILE] + SECONDS[Kind.LOAD] + 13_000 * 0.58 / 4096)
