"""Decide which actor does what next: all of the scheduling, none of the running.

No clock, no Ray, no randomness: it is told how long a task took and answers with the next one, so the pool drives it in
earnest and a simulation can drive the same code. Nothing here can change a result, for rows depend on the iteration
alone and are put in order by whoever collects them.

Every job's iterations are first cut into one stretch an actor, its home: an actor takes shards from the front of its
own stretch and, when that is used up, from the back of the longest other one. So in every job the same actor meets
mostly the same batches (which its worker may keep decoded), and each shard is a forward run through the database."""

import enum
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distcalib.errors import MeasureError
from distcalib.measure.jobs import Job

TARGET_SECONDS = 0.5  # a shard this long shows progress twice a second and makes 1.5 ms of Ray overhead 0.3 %
LEAST_SECONDS = 0.03  # halving stops here: shorter tail shards would cost more overhead than balance they bring
MAX_DEATHS = 3  # of actors on the same task, before it and not the machine is taken for the culprit


class Kind(enum.Enum):
    """What an actor does in one task."""

    COMPILE = "compiling"
    LOAD = "loading"
    RUN = "running"


@dataclass(frozen=True)
class Task:
    """One unit for one actor; `job` is the position in the call's list, `iterations` are empty unless it runs."""

    kind: Kind
    job: int
    iterations: range = range(0)


@dataclass
class _JobState:
    job: Job
    stretches: list[range]  # iterations not handed out yet, by home actor
    redo: deque[range] = field(default_factory=deque)  # shards of actors that died; handed out again as they were
    compiled: bool = False
    holders: set[int] = field(default_factory=set)  # actors that have the program, or a task that brings it
    n_done: int = 0
    run_seconds: float = 0.0

    @property
    def n_waiting(self) -> int:
        return sum(map(len, self.stretches)) + sum(map(len, self.redo))

    def take(self, actor: int, target: int, least: int, parts: int) -> range:
        """The next shard: a `parts`-th of a stretch, but at least `least` and at most `target` iterations of it."""
        if self.redo:
            return self.redo.popleft()
        longest = max(range(len(self.stretches)), key=lambda i: len(self.stretches[i]))
        home = actor if self.stretches[actor] else longest
        stretch = self.stretches[home]
        n = min(len(stretch), max(least, min(target, math.ceil(len(stretch) / parts))))
        cut = n if home == actor else len(stretch) - n
        front, back = stretch[:cut], stretch[cut:]
        shard, self.stretches[home] = (front, back) if home == actor else (back, front)
        return shard


class Dispatcher:
    """The state of one call: `next_task` hands out, `done` and `lost` say what became of it."""

    def __init__(self, jobs: Sequence[Job], n_actors: int, seconds_per_iteration: float | None = None) -> None:
        """`seconds_per_iteration`: what an earlier call measured, for the length of the first shards; None: unknown."""
        self._states = [_JobState(job, _stretches(job.n_iterations, n_actors)) for job in jobs]
        self._unstarted = deque(range(len(jobs)))
        self._held: list[list[int]] = [[] for _ in range(n_actors)]  # jobs by actor, in the order it got them
        self._to_drop: list[list[str]] = [[] for _ in range(n_actors)]
        self._deaths: Counter[Task] = Counter()
        self._n_open = len(jobs)
        self._pace = seconds_per_iteration
        self._load_seconds = 0.0

    @property
    def finished(self) -> bool:
        """True when every iteration of every job is done."""
        return self._n_open == 0

    @property
    def seconds_per_iteration(self) -> float | None:
        """The last measured pace of any job, for the next call."""
        return self._pace

    def next_task(self, actor: int) -> Task | None:
        """What `actor` should do after all it was given; None: nothing now, ask again when something is done.

        It goes on with a job that it holds, else starts one, else helps the job with most work left.
        """
        for job in self._held[actor]:
            if self._states[job].n_waiting:
                return Task(Kind.RUN, job, self._shard(job, actor))
        if self._unstarted:
            job = self._unstarted.popleft()
            self._hold(actor, job)
            return Task(Kind.COMPILE, job)
        helped = self._most_work(actor)
        if helped is None:
            return None
        self._hold(actor, helped)
        return Task(Kind.LOAD, helped)

    def drops(self, actor: int) -> tuple[str, ...]:
        """Keys of finished jobs that `actor` still holds; asking hands the duty to drop them over."""
        keys = tuple(self._to_drop[actor])
        self._to_drop[actor].clear()
        return keys

    def done(self, task: Task, seconds: float) -> None:
        """`task` succeeded and took `seconds` of its actor."""
        state = self._states[task.job]
        if task.kind is Kind.COMPILE:
            state.compiled = True
        elif task.kind is Kind.LOAD:
            self._load_seconds = seconds
        else:
            state.n_done += len(task.iterations)
            state.run_seconds += seconds
            self._pace = state.run_seconds / state.n_done
            if state.n_done == state.job.n_iterations:
                self._close(task.job)

    def lost(self, actor: int, tasks: Sequence[Task]) -> None:
        """`actor` died with `tasks` given and not done, the first of them under way; all go back to be done again.

        Raises MeasureError when the first one has now killed MAX_DEATHS actors.
        """
        for job in self._held[actor]:
            self._states[job].holders.discard(actor)
        self._held[actor].clear()
        self._to_drop[actor].clear()
        for task in tasks:
            if task.kind is Kind.COMPILE:
                self._unstarted.appendleft(task.job)
            elif task.kind is Kind.RUN:
                self._states[task.job].redo.append(task.iterations)
        for task in tasks[:1]:
            self._deaths[task] += 1
            if self._deaths[task] >= MAX_DEATHS:
                raise MeasureError(
                    f"{describe(self._states[task.job].job, task)}: {MAX_DEATHS} actors died on it, one after the "
                    "other; the kernel's log (dmesg) tells a lack of memory from a crash of the engine"
                )

    def _shard(self, job: int, actor: int) -> range:
        """Halving the stretch evens out the end; until a job's pace is known, small bites keep a wrong guess cheap."""
        state = self._states[job]
        if state.n_done:
            pace = max(state.run_seconds / state.n_done, 1e-9)
            return state.take(actor, max(1, int(TARGET_SECONDS / pace)), max(1, int(LEAST_SECONDS / pace)), parts=2)
        guess = max(self._pace or TARGET_SECONDS, 1e-9)
        return state.take(actor, max(1, int(TARGET_SECONDS / guess)), least=1, parts=4)

    def _most_work(self, actor: int) -> int | None:
        """The compiled job with most seconds not handed out, if these are more than it costs to load its program."""
        open_jobs = (job for job, s in enumerate(self._states) if s.compiled and s.n_waiting)
        best = max(open_jobs, key=self._seconds_waiting, default=None)
        if best is None or (self._pace is not None and self._seconds_waiting(best) <= self._load_seconds):
            return None
        return best

    def _seconds_waiting(self, job: int) -> float:
        state = self._states[job]
        pace = state.run_seconds / state.n_done if state.n_done else self._pace or 1.0
        return state.n_waiting * pace

    def _hold(self, actor: int, job: int) -> None:
        self._states[job].holders.add(actor)
        self._held[actor].append(job)

    def _close(self, job: int) -> None:
        self._n_open -= 1
        state = self._states[job]
        for actor in sorted(state.holders):
            self._held[actor].remove(job)
            self._to_drop[actor].append(state.job.key)
        state.holders.clear()


def describe(job: Job, task: Task) -> str:
    """Where an error happened, for the first part of its sentence."""
    if task.kind is not Kind.RUN:
        return f"{job.label}: {task.kind.value} its program"
    return f"{job.label}, {describe_iterations(task.iterations)}"


def describe_iterations(iterations: Iterable[int]) -> str:
    """A non-empty run of iterations in words: "iteration 3" or "iterations 3-7"."""
    numbers = list(iterations)
    return f"iteration {numbers[0]}" if len(numbers) == 1 else f"iterations {numbers[0]}-{numbers[-1]}"


def _stretches(n_iterations: int, n_actors: int) -> list[range]:
    bounds = [n_iterations * actor // n_actors for actor in range(n_actors + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]
