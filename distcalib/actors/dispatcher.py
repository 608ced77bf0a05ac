"""Decide which actor does what next: all of the scheduling, none of the running.

No clock, no Ray, no randomness: it is told how long a task took and answers with the next one, so the pool drives it in
earnest and a simulation can drive the same code. Nothing here can change a row, for rows depend on the iteration alone
and are put in order by whoever collects them.

A task names positions in its job, not iterations: what these stand for is Job.order, and no business of scheduling."""

import enum
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from distcalib.actors.jobs import Job, describe_iterations
from distcalib.actors.shards import Stretches
from distcalib.errors import MeasureError

TARGET_SECONDS = 0.5  # a shard this long shows progress twice a second and makes 1.5 ms of Ray overhead 0.3 %
SHORT_SECONDS = 0.05  # of a job that may be stopped: what is then in flight is lost; 0.75 ms of overhead are 1.5 %
LEAST_SECONDS = 0.03  # halving stops here: shorter tail shards would cost more overhead than balance they bring
DRIVER_SECONDS = 0.001  # a task costs the driver less (scripts/bench/bench_dispatch.py); 1,000 actors must not swamp it
FEW = 32  # actors that the driver is never too slow for
MAX_COPIES = 3  # of one shard under way at a time, where those who have it are late
MAX_DEATHS = 3  # of actors on the same task, before it and not the machine is taken for the culprit


class Kind(enum.Enum):
    """What an actor does in one task."""

    COMPILE = "compiling"
    LOAD = "loading"
    RUN = "running"


@dataclass(frozen=True)
class Task:
    """One unit for one actor; `job` is the place in the call's list, `positions` are empty unless it runs.

    `loads`: the actor loads the program before it runs, in one call, since each call costs the driver DRIVER_SECONDS. A
    shard is the same shard whoever has to load for it.
    """

    kind: Kind
    job: int
    positions: range = range(0)
    loads: bool = field(default=False, compare=False)


@dataclass
class _JobState:
    job: Job
    supply: Stretches
    row_size: float  # the mean
    target_seconds: float
    compiled: bool = False
    closed: bool = False
    holders: set[int] = field(default_factory=set)  # actors that have the program, or a task that brings it
    n_loading: int = 0  # of these, those that are still to load it, without a shard, and then want work
    loaded: bool = False  # by an actor that did not compile it
    n_done: int = 0
    run_seconds: float = 0.0


class Dispatcher:
    """The state of one call: `next_task` hands out, `done`, `lost` and `close` say what became of it."""

    def __init__(
        self,
        jobs: Sequence[Job],
        n_actors: int,
        seconds_per_iteration: float | None = None,
        stoppable: bool = False,
    ) -> None:
        """`seconds_per_iteration`: what an earlier call measured, for the length of the first shards; None: unknown.
        `stoppable`: any job may be closed early, so shards are short."""

        def n_stretches(job: Job) -> int:
            pace = seconds_per_iteration
            return n_actors if pace is None else n_useful(job.size * pace, n_actors)

        self._states = [
            _JobState(
                job,
                Stretches(job.n_iterations, n_stretches(job), job.in_order, job.homes, job.ranks),
                row_size=job.size / job.n_iterations,
                target_seconds=max(SHORT_SECONDS if stoppable else TARGET_SECONDS, n_actors * DRIVER_SECONDS),
            )
            for job in jobs
        ]
        self._unstarted = deque(range(len(jobs)))
        self._helpable: dict[int, None] = {}  # jobs that are compiled and have work left, in the order of compiling
        self._held: list[list[int]] = [[] for _ in range(n_actors)]  # jobs by actor, in the order it got them
        self._to_drop: list[list[str]] = [[] for _ in range(n_actors)]
        self._late: dict[Task, None] = {}  # shards whose answer is overdue, the longest first: anybody may do them too
        self._copies: dict[Task, int] = {}  # of shards that were ever late: how many actors have them
        self._answered: set[Task] = set()  # of these, those that one of them has done
        self._deaths: Counter[Task] = Counter()
        self._n_open = len(jobs)
        self._pace = seconds_per_iteration
        self._load_seconds = 0.0

    @property
    def finished(self) -> bool:
        """True when every job is complete or closed."""
        return self._n_open == 0

    @property
    def seconds_per_iteration(self) -> float | None:
        """The last measured pace of any job, for the next call."""
        return self._pace

    def is_closed(self, job: int) -> bool:
        """True when the job is complete or was closed: nobody waits for a task of it."""
        return self._states[job].closed

    def next_task(self, actor: int, idle: bool = True) -> Task | None:
        """What `actor` should do after all it was given; None: nothing now, ask again when something is done.

        It goes on with a job that it holds, else starts one, else helps where most work is left. An `idle` actor, one
        that has nothing to do, gets its first shard along with the program that it is to load; one that still works
        gets the program alone, since others may do the shard meanwhile. Where no work is left, an idle one does again
        what others are late with.
        """
        for job in self._held[actor]:
            if self._states[job].supply.n_waiting:
                return Task(Kind.RUN, job, self._shard(job, actor))
        if self._unstarted:
            return self._bring(actor, Task(Kind.COMPILE, self._unstarted.popleft()))
        helped = self._most_work()
        if helped is None:
            return self._overdue(actor) if idle else None
        if not idle:
            return self._load(actor, helped)
        return self._bring(actor, Task(Kind.RUN, helped, self._shard(helped, actor), loads=True))

    def has_offer(self) -> bool:
        """True when next_task would give something to any actor, whatever it holds."""
        return bool(self._unstarted) or self._most_work() is not None

    def drops(self, actor: int) -> tuple[str, ...]:
        """Keys of closed jobs that `actor` still holds; asking hands the duty to drop them over."""
        keys = tuple(self._to_drop[actor])
        self._to_drop[actor].clear()
        return keys

    def expected_seconds(self, task: Task) -> float | None:
        """How long an actor like the others takes; None: not known, as it never is of compiling.

        What another program takes tells nothing: with -r one is run by a process of its own.
        """
        if task.kind is Kind.LOAD:
            return self._load_seconds
        if task.kind is Kind.COMPILE:
            return None
        state = self._states[task.job]
        if not state.n_done:
            return None
        return len(task.positions) * state.run_seconds / state.n_done + (self._load_seconds if task.loads else 0.0)

    def late(self, tasks: Sequence[Task]) -> None:
        """An actor should long have answered one of `tasks`, all that it has: actors that would idle do its shards too,
        as they are, and the first answer counts. So nobody waits for the slowest; ask all actors again."""
        for task in tasks:
            if task.kind is Kind.RUN and self._is_wanted(task) and self._copies.get(task, 1) < MAX_COPIES:
                self._copies.setdefault(task, 1)
                self._late[task] = None

    def is_answered(self, task: Task) -> bool:
        """True when another actor was faster with the same shard."""
        return task in self._answered

    def grow(self, n_actors: int) -> None:
        """From now on there are `n_actors`, more than before; the new ones are numbered after the others."""
        for state in self._states:
            state.supply.grow(n_actors)
        while len(self._held) < n_actors:
            self._held.append([])
            self._to_drop.append([])

    def done(self, task: Task, seconds: float, load_seconds: float | None = None) -> None:
        """`task` succeeded and took `seconds` of its actor, `load_seconds` of them to load the program that it compiled
        or then ran."""
        state = self._states[task.job]
        self._late.pop(task, None)
        if task in self._copies:
            self._copies[task] -= 1
            if task in self._answered:
                return
            self._answered.add(task)
        if load_seconds is not None:
            self._load_seconds = load_seconds
        if task.kind is Kind.COMPILE:
            state.compiled = True
        elif task.kind is Kind.LOAD:
            state.n_loading -= 1
            state.loaded = True
            self._load_seconds = seconds
        else:
            state.loaded = state.loaded or task.loads
            state.n_done += len(task.positions)
            state.run_seconds += seconds - (load_seconds or 0.0)
            self._pace = state.run_seconds / (state.n_done * state.row_size)
            if state.n_done == state.job.n_iterations:
                self.close(task.job)
        self._note_helpable(task.job)

    def lost(self, actor: int, tasks: Sequence[Task], blame: bool = True) -> MeasureError | None:
        """`actor` died with `tasks` given and not done; all of open jobs go back to be done again.

        `blame`: the first of them was under way. The error says that it has now killed MAX_DEATHS actors; it still
        goes back, and only closing its job keeps it from the next actor.
        """
        for job in self._held[actor]:
            self._states[job].holders.discard(actor)
        self._held[actor].clear()
        self._to_drop[actor].clear()
        for task in tasks:
            state = self._states[task.job]
            if task.kind is Kind.LOAD:
                state.n_loading -= 1
            elif not state.closed and task.kind is Kind.COMPILE:
                self._unstarted.appendleft(task.job)
            elif self._is_wanted(task) and not self._has_other(task):
                state.supply.give_back(task.positions)
                self._note_helpable(task.job)
        return self._blamed(tasks[0]) if tasks and blame else None

    def close(self, job: int) -> None:
        """Hand out nothing more of `job`, complete or not, and have its program dropped; twice does no harm."""
        state = self._states[job]
        if state.closed:
            return
        state.closed = True
        state.supply.clear()
        for task in [task for task in self._late if task.job == job]:
            del self._late[task]
        self._note_helpable(job)
        if job in self._unstarted:
            self._unstarted.remove(job)
        self._n_open -= 1
        for actor in sorted(state.holders):
            self._held[actor].remove(job)
            self._to_drop[actor].append(state.job.key)
        state.holders.clear()

    def _blamed(self, task: Task) -> MeasureError | None:
        """Note a death on `task`. Where it was to load, too, that may be what the actor died of, whatever the shard,
        unless the program has been loaded elsewhere."""
        state = self._states[task.job]
        suspects = [task, Task(Kind.LOAD, task.job)] if task.loads and not state.loaded else [task]
        self._deaths.update(suspects)
        culprits = [describe(state.job, one) for one in suspects if self._deaths[one] >= MAX_DEATHS]
        if not culprits or state.closed:
            return None
        return MeasureError(
            f"{', or '.join(culprits)}: {MAX_DEATHS} actors died on it, one after the other; the kernel's log (dmesg) "
            "tells a lack of memory from a crash of the engine"
        )

    def _is_wanted(self, task: Task) -> bool:
        return not self._states[task.job].closed and task not in self._answered

    def _has_other(self, task: Task) -> bool:
        """Whether, with one actor of it lost, another still does `task`."""
        if task not in self._copies:
            return False
        self._copies[task] -= 1
        if self._copies[task]:
            return True
        del self._copies[task]
        self._late.pop(task, None)
        return False

    def _overdue(self, actor: int) -> Task | None:
        """A shard that others are late with, or the program that it needs; as many programs as there are shards."""
        held = self._held[actor]
        for task in self._late:
            if task.job in held:
                del self._late[task]
                self._copies[task] += 1
                return replace(task, loads=False)
        for job, n_late in Counter(task.job for task in self._late).items():
            if self._states[job].n_loading < n_late:
                return self._load(actor, job)
        return None

    def _load(self, actor: int, job: int) -> Task:
        """The program alone."""
        self._states[job].n_loading += 1
        return self._bring(actor, Task(Kind.LOAD, job))

    def _bring(self, actor: int, task: Task) -> Task:
        """`task`, with which `actor` gets the program."""
        self._states[task.job].holders.add(actor)
        self._held[actor].append(task.job)
        return task

    def _shard(self, job: int, actor: int) -> range:
        """Halving the stretch evens out the end; until a job's pace is known, small bites keep a wrong guess cheap."""
        state = self._states[job]
        if state.n_done:
            pace = max(state.run_seconds / state.n_done, 1e-9)
            target, least, parts = int(state.target_seconds / pace), int(LEAST_SECONDS / pace), 2
        else:
            guess = TARGET_SECONDS if self._pace is None else max(self._pace * state.row_size, 1e-9)
            target, least, parts = int(state.target_seconds / guess), 1, 4
        shard = state.supply.take(actor, max(1, target), max(1, least), parts)
        self._note_helpable(job)
        return shard

    def _most_work(self) -> int | None:
        """The compiled job with most seconds not handed out for each of its actors, of those where one more helps.

        That is where the others need longer for the rest than it takes to load the program, and where each actor on
        its way finds a row. A job without actors, for all have died, needs one whatever it costs."""
        best, most = None, 0.0
        for job in self._helpable:
            state = self._states[job]
            n_waiting, n_holders = state.supply.n_waiting, len(state.holders)
            if n_waiting <= state.n_loading:
                continue
            if not n_holders:
                return job
            row_seconds = state.run_seconds / state.n_done if state.n_done else (self._pace or 1.0) * state.row_size
            share = n_waiting * row_seconds / n_holders
            price = max(self._load_seconds, n_holders * DRIVER_SECONDS)
            if share > most and (share > price or self._pace is None):
                best, most = job, share
        return best

    def _note_helpable(self, job: int) -> None:
        state = self._states[job]
        if state.compiled and state.supply.n_waiting:
            self._helpable[job] = None
        else:
            self._helpable.pop(job, None)


def n_useful(work_seconds: float, n_actors: int) -> int:
    """How many actors are worth their part of a job: n of them take work / n, and n * DRIVER_SECONDS, for each must be
    called once; both together are least where the two are equal. FEW are no burden, and what the work takes may be a
    wrong guess."""
    return min(n_actors, max(FEW, math.ceil(math.sqrt(work_seconds / DRIVER_SECONDS))))


def describe(job: Job, task: Task) -> str:
    """Where an error happened, for the first part of its sentence."""
    if task.kind is not Kind.RUN:
        return f"{job.label}: {task.kind.value} its program"
    return f"{job.label}, {describe_iterations(job.iterations_at(task.positions))}"
