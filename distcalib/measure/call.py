"""One call of ActorPool.run: the loop between the dispatcher, which decides, and the fleet, which works.

Each actor has at most IN_FLIGHT tasks: one that runs and one that waits beside it, so that it never idles for the
driver, and no more, so that work stays where it can still be balanced. Where an iteration takes seconds, one is right:
a task that waits there is one that an idle actor could have.

When an actor dies its tasks go to others and a new actor takes its place; the loop waits meanwhile, which costs the
other actors nothing for as long as their second task lasts."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distcalib.errors import MeasureError
from distcalib.measure.cluster import ActorLost, Ref
from distcalib.measure.dispatcher import Dispatcher, Kind, Task
from distcalib.measure.fleet import Fleet, check
from distcalib.measure.jobs import Job, JobResult, Progress
from distcalib.measure.results import Collector

IN_FLIGHT = 2  # tasks an actor


@dataclass(frozen=True)
class _Flying:
    task: Task
    outcome: Ref


class Call:
    """Jobs on their way through a fleet. `run` once; if it raises, `drain` before the fleet is used again."""

    def __init__(
        self,
        fleet: Fleet,
        jobs: Sequence[Job],
        on_progress: Callable[[Progress], None] | None,
        seconds_per_iteration: float | None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        _check_jobs(jobs)
        self._fleet = fleet
        self._jobs = jobs
        self._on_progress = on_progress
        self._in_flight = in_flight
        self._dispatcher = Dispatcher(jobs, len(fleet), seconds_per_iteration)
        self._collectors = [Collector(job) for job in jobs]
        self._specs: dict[int, Ref] = {}  # both by job and freed with it: a hundred programs would fill the store
        self._blobs: dict[int, Ref] = {}
        self._flying: list[deque[_Flying]] = [deque() for _ in range(len(fleet))]
        self._n_done = 0
        self._n_total = sum(job.size for job in jobs)

    @property
    def seconds_per_iteration(self) -> float | None:
        """The last measured pace, for the next call."""
        return self._dispatcher.seconds_per_iteration

    def run(self) -> list[JobResult]:
        """Until all is done; results in the order of the jobs."""
        while not self._dispatcher.finished:
            self._feed()
            # An actor answers in order, so the oldest task of each is all there is to wait for.
            oldest = {flying[0].outcome: actor for actor, flying in enumerate(self._flying) if flying}
            if not oldest:
                raise MeasureError("the dispatcher has work left and gives none out; this is a fault of distcalib")
            for ref in self._fleet.cluster.wait(list(oldest)):
                self._collect(oldest[ref])
        return [collector.result() for collector in self._collectors]

    def drain(self) -> None:
        """Wait for what is in flight and forget it; a shard is short, so this takes about a second."""
        for actor, flying in enumerate(self._flying):
            try:
                while flying:
                    self._fleet.cluster.get(flying.popleft().outcome)
            except ActorLost:
                flying.clear()
                self._fleet.replace(actor)

    def _feed(self) -> None:
        """Give each actor its next tasks, first to those that have none."""
        for depth in range(self._in_flight):
            for actor, flying in enumerate(self._flying):
                task = self._dispatcher.next_task(actor) if len(flying) == depth else None
                if task is not None:
                    flying.append(_Flying(task, self._submit(actor, task)))

    def _submit(self, actor: int, task: Task) -> Ref:
        job = self._jobs[task.job]
        drops = self._dispatcher.drops(actor)
        if task.kind is Kind.RUN:
            return self._fleet.call(actor, "run", job.key, job.label, task.iterations, drops)
        if task.kind is Kind.LOAD:
            return self._fleet.call(actor, "load", job.key, job.label, self._blobs[task.job], drops)
        if task.job not in self._specs:
            self._specs[task.job] = self._fleet.cluster.put(job.spec)
        spec = self._specs[task.job]
        self._blobs[task.job], outcome = self._fleet.call(
            actor, "compile", job.key, job.label, spec, drops, n_returns=2
        )
        return outcome

    def _collect(self, actor: int) -> None:
        """Take the oldest result of an actor; if it died, give its tasks back and replace it."""
        flying = self._flying[actor]
        try:
            outcome = check(self._fleet.cluster.get(flying[0].outcome))
        except ActorLost:
            tasks = [one.task for one in flying]
            flying.clear()
            self._fleet.replace(actor)
            self._dispatcher.lost(actor, tasks)
            return
        except Exception:
            flying.popleft()
            raise
        task = flying.popleft().task
        self._collectors[task.job].add(task, outcome)
        self._dispatcher.done(task, outcome.seconds)
        if self._collectors[task.job].complete:
            # A load for an actor that wanted to help may come back after the last row; it finds nothing left.
            self._specs.pop(task.job, None)
            self._blobs.pop(task.job, None)
        if task.kind is Kind.RUN:
            job = self._jobs[task.job]
            self._n_done += job.size_of(task.iterations)
            if self._on_progress:
                self._on_progress(Progress(job.label, self._n_done, self._n_total))


def _check_jobs(jobs: Sequence[Job]) -> None:
    keys = [job.key for job in jobs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise MeasureError(f"jobs {', '.join(repeated)}: given more than once in a call; give each its own key")
    empty = sorted(job.label for job in jobs if job.n_iterations < 1)
    if empty:
        raise MeasureError(f"{', '.join(empty)}: no iterations to run; a job needs at least one")
    missized = [job.label for job in jobs if not _has_sizes(job)]
    if missized:
        raise MeasureError(f"{', '.join(missized)}: row_sizes must be a number >= 1 for each row")


def _has_sizes(job: Job) -> bool:
    return job.row_sizes is None or (len(job.row_sizes) == job.n_iterations and min(job.row_sizes) >= 1)
