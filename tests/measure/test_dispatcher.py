"""The dispatcher behind a simulated clock: actors that take a known time for each task, deaths at chosen moments."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import pytest

from distcalib.errors import MeasureError
from distcalib.measure.call import IN_FLIGHT
from distcalib.measure.dispatcher import MAX_DEATHS, TARGET_SECONDS, Dispatcher, Kind, Task, describe
from distcalib.measure.jobs import Job

SECONDS = {Kind.COMPILE: 0.5, Kind.LOAD: 0.1}


def jobs(*n_iterations: int) -> list[Job]:
    return [Job(f"key{i}", spec=i, n_iterations=n, label=f"job {i}") for i, n in enumerate(n_iterations)]


class Simulation:
    """Drive a dispatcher as call.py does; `dies(actor, n-th task of that actor, task)` kills the actor on that task."""

    def __init__(
        self,
        jobs: Sequence[Job],
        n_actors: int,
        seconds: float = 0.02,
        dies: Callable[[int, int, Task], bool] = lambda actor, n, task: False,
        slow: Mapping[int, float] | None = None,
    ) -> None:
        self.dispatcher = Dispatcher(jobs, n_actors)
        self.jobs = jobs
        self.n_actors = n_actors
        self.seconds = seconds
        self.dies = dies
        self.slow = slow or {}
        self.done: list[tuple[int, Task]] = []
        self.programs: list[set[str]] = [set() for _ in range(n_actors)]
        self.clock = 0.0

    def run(self) -> "Simulation":
        flying: list[deque[Task]] = [deque() for _ in range(self.n_actors)]
        events: list[tuple[float, int]] = []
        counts: Counter[int] = Counter()
        while not self.dispatcher.finished:
            for depth in range(IN_FLIGHT):
                for actor, queue in enumerate(flying):
                    task = self.dispatcher.next_task(actor) if len(queue) == depth else None
                    if task is None:
                        continue
                    self.programs[actor] -= set(self.dispatcher.drops(actor))
                    queue.append(task)
                    if len(queue) == 1:
                        heapq.heappush(events, (self.clock + self.duration(actor, task), actor))
            assert events, "work left and nobody busy"
            self.clock, actor = heapq.heappop(events)
            task = flying[actor][0]
            counts[actor] += 1
            if self.dies(actor, counts[actor], task):
                lost = list(flying[actor])
                flying[actor].clear()
                self.programs[actor].clear()
                self.dispatcher.lost(actor, lost)
                continue
            flying[actor].popleft()
            self.finish(actor, task)
            if flying[actor]:
                heapq.heappush(events, (self.clock + self.duration(actor, flying[actor][0]), actor))
        return self

    def finish(self, actor: int, task: Task) -> None:
        key = self.jobs[task.job].key
        if task.kind is Kind.RUN:
            assert key in self.programs[actor], "runs a program that it does not have"
        else:
            self.programs[actor].add(key)
        self.done.append((actor, task))
        self.dispatcher.done(task, self.duration(actor, task))

    def duration(self, actor: int, task: Task) -> float:
        return SECONDS.get(task.kind, self.seconds * len(task.iterations)) * self.slow.get(actor, 1.0)

    def count(self, kind: Kind) -> int:
        return sum(task.kind is kind for _, task in self.done)

    def iterations(self, job: int) -> list[int]:
        return sorted(i for _, task in self.done if task.job == job for i in task.iterations)


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
    assert simulation.count(Kind.LOAD) <= 4, "jobs of equal size need help at the end only"


def test_dispatcher_starts_with_single_iterations_and_grows_to_the_target() -> None:
    sizes = [len(task.iterations) for _, task in Simulation(jobs(2000), 1).run().done if task.kind is Kind.RUN]
    assert sizes[0] == 1
    assert max(sizes) == TARGET_SECONDS / 0.02


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
    mine = [i for actor, task in simulation.done if actor == 0 for i in task.iterations]
    assert sum(i < 50 for i in mine) / len(mine) > 0.9


def test_dispatcher_does_not_load_for_less_work_than_loading_costs() -> None:
    dispatcher = Dispatcher(jobs(4), 2, seconds_per_iteration=0.01)
    compiling = dispatcher.next_task(0)
    assert compiling is not None
    assert dispatcher.next_task(1) is None, "nothing to load while it compiles"
    dispatcher.done(compiling, 0.5)
    helping = dispatcher.next_task(1)
    assert helping == Task(Kind.LOAD, 0)
    dispatcher.done(helping, 1.0)
    dispatcher.lost(1, [])
    assert dispatcher.next_task(1) is None, "0.04 s of work, 1 s to load"


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
