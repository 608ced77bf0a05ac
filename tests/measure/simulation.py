"""The dispatcher behind a simulated clock: actors that take a known time for each task, and what may go wrong."""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from distcalib.measure.dispatcher import Dispatcher, Kind, Task
from distcalib.measure.feeding import Feeder
from distcalib.measure.jobs import Job

SECONDS = {Kind.COMPILE: 0.5, Kind.LOAD: 0.1}


def jobs(*n_iterations: int) -> list[Job]:
    return [Job(f"key{i}", spec=i, n_iterations=n, label=f"job {i}") for i, n in enumerate(n_iterations)]


class Simulation:
    """Drive a dispatcher as call.py does.

    `dies(actor, n-th task of that actor, task)` kills the actor on that task, `fails(task)` is an error of its worker
    and ends a job that may fail; `enough(job, positions done)` ends one that has enough.
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
    ) -> None:
        self.dispatcher = Dispatcher(jobs, n_actors, stoppable=enough is not None)
        self.feeder = Feeder(self.dispatcher, [0] * n_actors)
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
        flying: list[deque[tuple[Task, tuple[str, ...]]]] = [deque() for _ in range(self.n_actors)]
        events: list[tuple[float, int]] = []
        counts: Counter[int] = Counter()
        while not self.dispatcher.finished:
            for actor, task in self.feeder.feed():
                self.given.append((self.clock, actor, task))
                flying[actor].append((task, self.dispatcher.drops(actor)))
                if len(flying[actor]) == 1:
                    heapq.heappush(events, (self.clock + self.duration(actor, task), actor))
            assert events, "work left and nobody busy"
            self.clock, actor = heapq.heappop(events)
            task, drops = flying[actor][0]
            counts[actor] += 1
            if self.dies(actor, counts[actor], task):
                lost = [task for task, _ in flying[actor]]
                flying[actor].clear()
                self.die(actor, lost)
                continue
            flying[actor].popleft()
            self.programs[actor] -= set(drops)
            self.feeder.freed(actor)
            self.finish(actor, task)
            if flying[actor]:
                heapq.heappush(events, (self.clock + self.duration(actor, flying[actor][0][0]), actor))
        return self

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
        if self.fails(task):
            self.fail(task.job)
            return
        key = self.jobs[task.job].key
        if task.kind is Kind.RUN:
            assert key in self.programs[actor], "runs a program that it does not have"
            assert not self.positions[task.job] & set(task.positions), "done twice"
            self.positions[task.job] |= set(task.positions)
        else:
            self.programs[actor].add(key)
        self.done.append((actor, task))
        was_closed = self.dispatcher.is_closed(task.job)
        self.dispatcher.done(task, self.duration(actor, task))
        if self.enough and not was_closed and self.enough(task.job, self.positions[task.job]):
            self.stopped[task.job] = self.clock
            self.dispatcher.close(task.job)

    def fail(self, job: int) -> None:
        assert self.jobs[job].may_fail
        self.failed[job] = self.clock
        self.dispatcher.close(job)

    def duration(self, actor: int, task: Task) -> float:
        return SECONDS.get(task.kind, self.seconds * len(task.positions)) * self.slow.get(actor, 1.0)

    def count(self, kind: Kind) -> int:
        return sum(task.kind is kind for _, task in self.done)

    def iterations(self, job: int) -> list[int]:
        return sorted(i for _, task in self.done if task.job == job for i in task.positions)
