"""One call of ActorPool.run: the loop between the dispatcher, which decides, and the fleet, which works.

When an actor is late with its shards, others that would idle do them as well: rows are the same whoever makes them, so
the first answer counts. Nodes may join meanwhile: `look`, asked every few seconds, may lengthen the fleet.

When an actor dies its tasks go to others and a new actor takes its place; the loop waits meanwhile, which costs the
other actors nothing for as long as their second task lasts.

A call ends when nobody waits for a row any more, not when its last task does: what is in flight for jobs that were
stopped or failed is left to its actor, and the next call starts with that actor busy. So nothing is killed, and a
loaded program that is dropped comes after the task that uses it. Rows that come back later are handed
out all the same, for a journal; nobody else sees them."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from distcalib.actors.actor import Outcome
from distcalib.actors.cluster import ActorLost, Ref
from distcalib.actors.collector import Collector
from distcalib.actors.dispatcher import FEW, Dispatcher, Kind, Task
from distcalib.actors.feeder import IN_FLIGHT, Feeder
from distcalib.actors.fleet import Fleet, Left, error_of
from distcalib.actors.jobs import Enough, Job, JobResult, OnRows, Progress
from distcalib.actors.stragglers import LOOK_SECONDS, Lateness
from distcalib.actors.timeline import Timeline
from distcalib.errors import DataError, DistcalibError, MeasureError

NODES_SECONDS = 3.0  # how often `look` is asked
AT_ONCE = 32  # tasks given out before the driver looks for answers: 1,000 take it a second, in which programs get ready


@dataclass(frozen=True)
class _Flying:
    task: Task | None  # None: left by an earlier call
    left: Left
    """What it is to the next call."""

    @property
    def outcome(self) -> Ref:
        return self.left.outcome


class Call:
    """Jobs on their way through a fleet. `run` once; if it raises, `drain` before the fleet is used again."""

    def __init__(
        self,
        fleet: Fleet,
        jobs: Sequence[Job],
        on_progress: Callable[[Progress], None] | None = None,
        enough: Enough | None = None,
        seconds_per_iteration: float | None = None,
        in_flight: int = IN_FLIGHT,
        look: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_rows: OnRows | None = None,
        check: Callable[[], None] | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        _check_jobs(jobs)
        self._fleet = fleet
        self._jobs = jobs
        self._on_progress = on_progress
        self._enough = enough
        self._on_rows = on_rows
        self._check = check
        self._timeline = timeline
        self._dispatcher = Dispatcher(jobs, len(fleet), seconds_per_iteration, stoppable=enough is not None)
        self._collectors = [Collector(job) for job in jobs]
        self._ended_early: dict[int, DistcalibError | None] = {}  # jobs that were stopped (None) or failed
        self._specs: dict[int, Ref] = {}  # both by job and freed with it: a hundred programs would fill the store
        self._blobs: dict[int, Ref] = {}
        self._flying = [deque(_Flying(None, left) for left in fleet.take_left(actor)) for actor in range(len(fleet))]
        if enough is not None and len(fleet) <= FEW and all(job.may_stop for job in jobs):
            in_flight = 1
        self._feeder = Feeder(self._dispatcher, [len(flying) for flying in self._flying], in_flight)
        for actor in filter(fleet.is_retired, range(len(fleet))):
            self._feeder.lost(actor, retired=True)
        self._lateness = Lateness(self._dispatcher)
        self._look, self._clock = look, clock
        self._looked = self._watched = clock()
        self._n_done = 0
        self._n_total = sum(job.size for job in jobs)

    @property
    def seconds_per_iteration(self) -> float | None:
        """The last measured pace, for the next call."""
        return self._dispatcher.seconds_per_iteration

    def run(self) -> list[JobResult]:
        """Until nobody waits for a row any more; results in the order of the jobs. Leaves the rest to the fleet."""
        while not self._dispatcher.finished:
            if self._check is not None:
                self._check()
            n_given = 0
            for actor, task in islice(self._feeder.feed(), AT_ONCE):
                n_given += 1
                self._flying[actor].append(_Flying(task, Left(self._submit(actor, task), self._keeper(actor, task))))
                if len(self._flying[actor]) == 1:
                    self._lateness.begun(actor, task, self._clock())
            # An actor answers in order, so the oldest task of each is all there is to wait for.
            oldest = {flying[0].outcome: actor for actor, flying in enumerate(self._flying) if flying}
            if not oldest:
                raise MeasureError("the dispatcher has work left and gives none out; this is a fault of distcalib")
            for ref in self._fleet.cluster.wait(list(oldest), LOOK_SECONDS if n_given < AT_ONCE else 0.0):
                self._collect(oldest[ref])
            self._watch()
        for actor, flying in enumerate(self._flying):
            self._fleet.leave(actor, [one.left for one in flying])
        return [
            collector.result(partial=place in self._ended_early, error=self._ended_early.get(place))
            for place, collector in enumerate(self._collectors)
        ]

    def _watch(self) -> None:
        """From time to time: who is late, and who is new."""
        now = self._clock()
        if now - self._watched >= LOOK_SECONDS:
            self._watched = now
            for actor in self._lateness.late(now):
                self._dispatcher.late([one.task for one in self._flying[actor] if one.task is not None])
                self._feeder.ask_again()
        if self._look is not None and now - self._looked >= NODES_SECONDS:
            self._look()
            self._looked = self._clock()
            n_actors = len(self._fleet)
            if n_actors > len(self._flying):
                self._dispatcher.grow(n_actors)
                self._feeder.grow(n_actors)
                self._flying += [deque() for _ in range(n_actors - len(self._flying))]

    def drain(self) -> None:
        """Wait for what is in flight and hand out its rows; a shard is short, so this takes about a second."""
        for actor, flying in enumerate(self._flying):
            try:
                while flying:
                    left = flying.popleft().left
                    self._settle(left, self._fleet.cluster.get(left.outcome))
            except ActorLost as error:
                flying.clear()
                self._fleet.replace(actor, error.for_memory)

    def rescue(self, seconds: float) -> None:
        """Hand out the rows of the shards that come back within `seconds`; after that the fleet can only be killed."""
        end = self._clock() + seconds
        waiting = {flying[0].outcome: flying[0].left for flying in self._flying if flying}
        while waiting and (rest := end - self._clock()) > 0.0:
            for ref in self._fleet.cluster.wait(list(waiting), rest):
                left = waiting.pop(ref)
                with suppress(ActorLost):
                    self._settle(left, self._fleet.cluster.get(ref))

    def _settle(self, left: Left, outcome: Outcome) -> None:
        """Errors of what comes after the end are not reported: one has been already."""
        with suppress(DistcalibError):
            self._fleet.settle_one(left, outcome)

    def _keeper(self, actor: int, task: Task) -> Callable[[Outcome], None]:
        """What hands out the rows of `task` if they come after the end, and enters what it took."""
        enter = self._entering(actor, task)
        if task.kind is not Kind.RUN or self._on_rows is None:
            return enter
        numbers = self._jobs[task.job].iterations_at(task.positions)
        return partial(_keep, self._on_rows, task.job, numbers, enter)

    def _entering(self, actor: int, task: Task) -> Callable[[Outcome], None]:
        """What enters what a task took into the timeline; it holds nothing else of the call."""
        job = self._jobs[task.job]
        n_iterations = job.size_of(task.positions) if task.kind is Kind.RUN else 0
        return partial(_enter, self._timeline, actor, job.label, n_iterations)

    def _submit(self, actor: int, task: Task) -> Ref:
        job = self._jobs[task.job]
        drops = self._dispatcher.drops(actor)
        iterations = job.iterations_at(task.positions)
        if task.loads:
            program = self._blobs[task.job]
            return self._fleet.call(actor, "load_and_run", job.key, job.label, program, iterations, drops)
        if task.kind is Kind.RUN:
            return self._fleet.call(actor, "run", job.key, job.label, iterations, drops)
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
        task = flying[0].task
        left = flying[0].left
        try:
            outcome = self._fleet.cluster.get(left.outcome)
            if task is not None and task.kind is Kind.COMPILE and task.job in self._blobs and outcome.error is None:
                self._blobs[task.job] = self._fleet.cluster.keep(self._blobs[task.job])
        except ActorLost as error:
            self._replace(actor, error.for_memory)
            return
        except Exception:
            flying.popleft()
            raise
        flying.popleft()
        if task is not None:
            self._entering(actor, task)(outcome)
        self._feeder.freed(actor)
        self._lateness.begun(actor, flying[0].task if flying else None, self._clock())
        if task is None:
            self._fleet.settle_one(left, outcome)
        elif self._dispatcher.is_answered(task) and not outcome.not_loaded:  # its actor is to run more of the program
            self._collectors[task.job].add_again(outcome)
            self._dispatcher.done(task, outcome.seconds)
        elif outcome.error is not None:
            self._failed(task.job, error_of(outcome, self._fleet.node_of(actor)))
        else:
            self._succeeded(task, outcome)

    def _replace(self, actor: int, for_memory: bool) -> None:
        flying = self._flying[actor]
        under_way = flying[0].task
        tasks = [one.task for one in flying if one.task is not None]
        flying.clear()
        self._lateness.begun(actor, None, self._clock())
        self._fleet.replace(actor, for_memory)
        error = self._dispatcher.lost(actor, tasks, blame=under_way is not None)
        self._feeder.lost(actor, retired=self._fleet.is_retired(actor))
        if error is not None and under_way is not None:
            self._failed(under_way.job, error)

    def _failed(self, place: int, error: DistcalibError) -> None:
        """Raise `error`, or set the job aside if it may fail; of a job that nobody waits for it is no news.

        Data that cannot be read is no fault of the program that asked for it: every other would meet it as well.
        """
        if self._dispatcher.is_closed(place):
            return
        if not self._jobs[place].may_fail or isinstance(error, DataError):
            raise error
        self._end(place, error)
        self._tell(place)

    def _succeeded(self, task: Task, outcome: Outcome) -> None:
        job, collector = self._jobs[task.job], self._collectors[task.job]
        collector.add(task, outcome)
        if task.kind is Kind.RUN and self._on_rows:
            self._on_rows(task.job, job.iterations_at(task.positions), outcome.rows, outcome.run_seconds)
        was_closed = self._dispatcher.is_closed(task.job)
        loads = task.loads or task.kind is Kind.COMPILE
        self._dispatcher.done(task, outcome.seconds, outcome.load_seconds if loads else None)
        if task.kind is Kind.RUN:
            size = job.size_of(task.positions)
            self._n_done += size
            if was_closed:
                self._n_total += size
            if self._enough and not was_closed and self._enough(task.job, collector.rows):
                self._end(task.job, None)
            self._tell(task.job)
        if self._dispatcher.is_closed(task.job):
            self._free(task.job)

    def _end(self, place: int, error: DistcalibError | None) -> None:
        """Ask for nothing more of a job."""
        self._ended_early[place] = error
        self._dispatcher.close(place)
        self._free(place)
        self._n_total -= self._jobs[place].size - self._collectors[place].size

    def _free(self, place: int) -> None:
        """A task of the job may still come back, as a load that found nothing left to help with."""
        self._specs.pop(place, None)
        self._blobs.pop(place, None)

    def _tell(self, place: int) -> None:
        if self._on_progress:
            label, n_actors = self._jobs[place].label, len(self._flying)
            n_busy = n_actors - self._feeder.n_idle - self._fleet.n_retired
            self._on_progress(Progress(label, self._n_done, self._n_total, n_busy, n_actors))


def _keep(
    on_rows: OnRows, place: int, numbers: Sequence[int], enter: Callable[[Outcome], None], outcome: Outcome
) -> None:
    enter(outcome)
    on_rows(place, numbers, outcome.rows, outcome.run_seconds)


def _enter(timeline: Timeline | None, actor: int, label: str, n_iterations: int, outcome: Outcome) -> None:
    if timeline is not None and outcome.error is None:
        timeline.take(
            actor,
            label,
            run_seconds=outcome.run_seconds,
            compile_seconds=outcome.compile_seconds,
            load_seconds=outcome.load_seconds,
            n_iterations=n_iterations,
        )


def _check_jobs(jobs: Sequence[Job]) -> None:
    keys = [job.key for job in jobs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise MeasureError(f"jobs {', '.join(repeated)}: given more than once in a call; give each its own key")
    empty = sorted(job.label for job in jobs if job.n_iterations < 1)
    if empty:
        raise MeasureError(f"{', '.join(empty)}: no iterations to run; a job needs at least one")
    disordered = [job.label for job in jobs if not _has_order(job)]
    if disordered:
        raise MeasureError(f"{', '.join(disordered)}: order must have n_iterations numbers, all different")
    missized = [job.label for job in jobs if not _has_sizes(job)]
    if missized:
        raise MeasureError(f"{', '.join(missized)}: row_sizes must be a number >= 1 for each row")
    astray = [job.label for job in jobs if not _has_homes(job)]
    if astray:
        raise MeasureError(f"{', '.join(astray)}: homes and ranks must be of n_iterations positions")


def _has_sizes(job: Job) -> bool:
    return job.row_sizes is None or (len(job.row_sizes) == job.n_iterations and min(job.row_sizes) >= 1)


def _has_order(job: Job) -> bool:
    return job.order is None or len(job.order) == len(set(job.order)) == job.n_iterations


def _has_homes(job: Job) -> bool:
    of_all = job.homes is None or sum(job.homes) == job.n_iterations
    return of_all and (job.ranks is None or len(job.ranks) == job.n_iterations)
