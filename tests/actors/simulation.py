"""The dispatcher behind a simulated clock: actors that take a known time for each task, and what may go wrong."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from distcalib.actors.dispatcher import Dispatcher, Kind, Task
from distcalib.actors.feeder import Feeder
from distcalib.actors.jobs import Job
from distcalib.actors.stragglers import LOOK_SECONDS, Lateness

HANG_SECONDS = 60.0
SECONDS = {Kind.COMPILE: 0.5, Kind.LOAD: 0.1}


def jobs(*n_iterations: int) -> list[Job]:
    return [Job(f"key{i}", spec=i, n_iterations=n, label=f"job {i}") for i, n in enumerate(n_iterations)]


class Simulation:
    """Drive a dispatcher as execution.py does.

    `dies(actor, n-th task of that actor, task)` kills the actor on that task, `fails(task)` is an error of its worker
    and ends a job that may fail; `enough(job, positions done)` ends one that has enough. `hangs(actor, n-th task)`: its
    machine is cut off, which shows HANG_SECONDS later only, as a death. `joins`: at which times an actor more is there.
    `pace`: what an iteration took in an earlier call.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        n_actors: int,
        seconds: float = 0.02,
        dies: Callable[[int, int, Task], bool] = lambda actor, n, task: False,
        slow: Mapping[int, float] | None = None,
        fails: Callable[[Task], bool] = lambda task: False,
        enough: Callable[[int, set[int]], bool] | None = None,
        hangs: Callable[[int, int], bool] = lambda actor, n: False,
        joins: Sequence[float] = (),
        pace: float | None = None,
    ) -> None:
        self.dispatcher = Dispatcher(jobs, n_actors, pace, stoppable=enough is not None)
        self.feeder = Feeder(self.dispatcher, [0] * n_actors)
        self.lateness = Lateness(self.dispatcher)
        self.hangs = hangs
        self.joins = deque(sorted(joins))
        self.n_late: Counter[Task] = Counter()  # how often it was said that they are
        self.n_again = 0  # shards that another actor had done before
        self.jobs = jobs
        self.n_actors = n_actors
        self.seconds = seconds
        self.dies = dies
        self.slow = slow or {}
        self.fails = fails
        self.enough = enough
        self.given: list[tuple[float, int, Task]] = []  # clock, actor, task
        self.done: list[tuple[int, Task]] = []
        self.lost: list[Task] = []
        self.stopped: dict[int, float] = {}  # when, by job
        self.failed: dict[int, float] = {}
        self.positions: list[set[int]] = [set() for _ in jobs]
        self.programs: list[set[str]] = [set() for _ in range(n_actors)]
        self.clock = 0.0

    def run(self) -> "Simulation":
        self.flying: list[deque[tuple[Task, tuple[str, ...]]]] = [deque() for _ in range(self.n_actors)]
        self.events: list[tuple[float, int]] = []
        self.counts: Counter[int] = Counter()
        looked = 0.0
        while not self.dispatcher.finished:
            for actor, task in self.feeder.feed():
                self.given.append((self.clock, actor, task))
                self.flying[actor].append((task, self.dispatcher.drops(actor)))
                if len(self.flying[actor]) == 1:
                    self.begin(actor)
            assert self.events, "work left and nobody busy"
            if self.events[0][0] > looked + LOOK_SECONDS:
                self.clock = looked = looked + LOOK_SECONDS
                self.look()
                continue
            self.clock, actor = heapq.heappop(self.events)
            self.answer(actor)
        return self

    def begin(self, actor: int) -> None:
        """The oldest task of an actor is under way."""
        self.counts[actor] += 1
        task = self.flying[actor][0][0]
        self.lateness.begun(actor, task, self.clock)
        seconds = HANG_SECONDS if self.hangs(actor, self.counts[actor]) else self.duration(actor, task)
        heapq.heappush(self.events, (self.clock + seconds, actor))

    def look(self) -> None:
        """Who is late, and who is new."""
        for actor in self.lateness.late(self.clock):
            late = [task for task, _ in self.flying[actor]]
            self.n_late.update(late)
            self.dispatcher.late(late)
            self.feeder.ask_again()
        while self.joins and self.joins[0] <= self.clock:
            self.joins.popleft()
            self.n_actors += 1
            self.flying.append(deque())
            self.programs.append(set())
            self.dispatcher.grow(self.n_actors)
            self.feeder.grow(self.n_actors)

    def answer(self, actor: int) -> None:
        task, drops = self.flying[actor][0]
        if self.dies(actor, self.counts[actor], task) or self.hangs(actor, self.counts[actor]):
            lost = [task for task, _ in self.flying[actor]]
            self.flying[actor].clear()
            self.lateness.begun(actor, None, self.clock)
            self.die(actor, lost)
            return
        self.flying[actor].popleft()
        self.programs[actor] -= set(drops)
        self.feeder.freed(actor)
        self.lateness.begun(actor, None, self.clock)
        self.finish(actor, task)
        if self.flying[actor]:
            self.begin(actor)

    def die(self, actor: int, lost: list[Task]) -> None:
        self.programs[actor].clear()
        self.lost += lost
        error = self.dispatcher.lost(actor, lost)
        self.feeder.lost(actor)
        if error is not None:
            if not self.jobs[lost[0].job].may_fail:
                raise error
            self.fail(lost[0].job)

    def finish(self, actor: int, task: Task) -> None:
        if self.dispatcher.is_closed(task.job) and self.failed.keys() & {task.job}:
            return  # a shard behind a compilation that failed fails too
        if self.dispatcher.is_answered(task):
            self.n_again += 1
            self.tell_done(actor, task)
            return
        if self.fails(task):
            self.fail(task.job)
            return
        key = self.jobs[task.job].key
        if task.kind is not Kind.RUN or task.loads:
            self.programs[actor].add(key)
        if task.kind is Kind.RUN:
            assert key in self.programs[actor], "runs a program that it does not have"
            assert not self.positions[task.job] & set(task.positions), "done twice"
            self.positions[task.job] |= set(task.positions)
        self.done.append((actor, task))
        was_closed = self.dispatcher.is_closed(task.job)
        self.tell_done(actor, task)
        if self.enough and not was_closed and self.enough(task.job, self.positions[task.job]):
            self.stopped[task.job] = self.clock
            self.dispatcher.close(task.job)

    def fail(self, job: int) -> None:
        assert self.jobs[job].may_fail
        self.failed[job] = self.clock
        self.dispatcher.close(job)

    def tell_done(self, actor: int, task: Task) -> None:
        load_seconds = self.load_seconds(actor) if task.loads else None
        self.dispatcher.done(task, self.duration(actor, task), load_seconds)

    def duration(self, actor: int, task: Task) -> float:
        """Of all that a task is."""
        own = SECONDS.get(task.kind, self.seconds * len(task.positions)) * self.slow.get(actor, 1.0)
        return own + self.load_seconds(actor) if task.loads else own

    def load_seconds(self, actor: int) -> float:
        return SECONDS[Kind.LOAD] * self.slow.get(actor, 1.0)

    def count(self, kind: Kind) -> int:
        return sum(task.kind is kind for _, task in self.done)

    @property
    def n_loads(self) -> int:
        """How often a program was loaded that another actor had compiled, with a first shard or without."""
        return self.count(Kind.LOAD) + sum(task.loads for _, task in self.done)

    def iterations(self, job: int) -> list[int]:
        return sorted(i for _, task in self.done if task.job == job for i in task.positions)
