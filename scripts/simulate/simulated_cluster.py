"""The one cluster that is no Ray: the real fleet, calls, dispatcher and collector run on it unchanged.

The driver is one thread, so each call that it makes moves the clock by `task_seconds`; an actor works through its calls
one after the other from the moment they were made.  Waiting moves the clock to the next result.  What may go wrong in
earnest can be made to go wrong here: actors that hang, die or fail, nodes that are lost, answers in any order.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Any, Protocol

from distcalib.actors import Enough, Job, JobResult, Placement, Worker
from distcalib.actors.actor import Outcome
from distcalib.actors.cluster import ActorLost
from distcalib.actors.execution import Call
from distcalib.actors.fleet import Fleet
from distcalib.errors import DistcalibError, MeasureError

PATIENCE_SECONDS = 1000.0  # of the clock, without any answer: nobody will give one any more


class Engine(Protocol):
    """What a program costs and gives."""

    def compile_seconds(self, spec: object) -> float:
        """To make the program."""
        ...

    def load_seconds(self, spec: object) -> float:
        """To import it, in the actor that made it too."""
        ...

    def run(self, spec: object, iterations: Sequence[int]) -> tuple[Sequence[object], float]:
        """A row an iteration, and the seconds for all."""
        ...


def no_worker(*_: object) -> Worker:
    """The WorkerFactory of simulated actors, which have an Engine in its place."""
    raise AssertionError("a simulated actor makes no worker")


@dataclass(frozen=True)
class Hang:
    """The actor does not answer this call, nor any after it, before SimulatedCluster.release."""


Fault = ActorLost | DistcalibError | Hang
"""What may happen in a call: the process dies, the worker raises, or nothing comes back."""

Faults = Callable[[int, str, Sequence[Any]], Fault | None]
"""faults(number, method, arguments): what goes wrong in a call of the process that was started as number so and so."""


def no_faults(number: int, method: str, arguments: Sequence[Any]) -> None:
    """All goes well."""


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled program is its spec; it lies on the node of the actor that compiled it, until it is kept."""

    spec: object
    node: str


@dataclass(eq=False)
class Ref:
    """A result that is there from `at` on, by the simulated clock; inf: its actor hangs."""

    actor: "SimulatedActor"
    at: float
    value: Outcome | ActorLost
    seconds: float = 0.0
    """Of the actor."""


class SimulatedCluster:
    """A Cluster of `nodes`, what a person calls them by id, the driver's first.

    `seed`: answers come in an order drawn from it, whatever they take; None: each at its time.
    """

    def __init__(
        self,
        engine: Engine,
        task_seconds: float = 0.0,
        nodes: Mapping[str, str] | None = None,
        seed: int | None = None,
        faults: Faults = no_faults,
    ) -> None:
        self.engine = engine
        self.task_seconds = task_seconds
        self.nodes = dict(nodes or {"home": "this machine"})
        self.home = next(iter(self.nodes))
        self.silent: set[str] = set()  # nodes that do not answer, though nobody has given them up yet
        self.faults = faults
        self.oom_kills = 0  # as actors see it that start
        self.clock = 0.0
        self.busy_seconds = 0.0  # of all actors
        self.log: list[tuple[int, str]] = []  # number of the process in the order of starting, and what was called
        self.actors: list[SimulatedActor] = []  # all that were ever started
        self.most_waiting = 0  # tasks of one actor whose answers the driver had not taken
        self._random = None if seed is None else Random(seed)
        self._idle_since = 0.0

    @property
    def started(self) -> list[str]:
        """The node of each actor that was ever started, by number."""
        return [actor.node for actor in self.actors]

    def put(self, value: object) -> Any:
        """As it is: no data travels."""
        return value

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> "SimulatedActor":
        """In no time: what starting takes is not looked into."""
        self.actors.append(SimulatedActor(self, len(self.actors), node or self.home))
        return self.actors[-1]

    def live_nodes(self) -> Mapping[str, str]:
        """All `nodes`."""
        return dict(self.nodes)

    def answering_nodes(self) -> Mapping[str, str]:
        """Those that are not silent."""
        return {node: name for node, name in self.nodes.items() if node not in self.silent}

    def lose(self, node: str) -> None:
        """Cut `node` off: its actors are dead, and what lay there is gone."""
        self.silent.add(node)
        for actor in self.actors:
            if actor.node == node:
                actor.die(ActorLost(f"{node} was cut off"))

    def release(self) -> None:
        """From now on actors that hang work on."""
        for actor in self.actors:
            actor.release()

    def keep(self, ref: Program) -> Program:
        """A copy on the driver's node, if there are others."""
        if len(self.nodes) == 1:
            return ref
        if ref.node in self.silent:
            raise ActorLost(f"the program was on {ref.node}")
        return Program(ref.spec, self.home)

    def get(self, ref: Ref) -> Outcome:
        """The outcome; by then it is its time."""
        assert ref.at < inf, "waits for ever: the actor hangs"
        self.clock = max(self.clock, ref.at)
        ref.actor.n_waiting -= 1
        if isinstance(ref.value, ActorLost):
            raise ref.value
        return ref.value

    def wait(self, refs: Sequence[Ref], seconds: float) -> list[Ref]:
        """Until one is there, at most `seconds`, then all that are, or those that the seed chooses."""
        if self._random is None:
            self.clock = max(self.clock, min(self.clock + seconds, *(ref.at for ref in refs)))
            ready = [ref for ref in refs if ref.at <= self.clock]
        else:
            coming = [ref for ref in refs if ref.at < inf]
            self._random.shuffle(coming)
            ready = coming[: self._random.randint(1, len(coming))] if coming else []
            self.clock = max(self.clock, *(ref.at for ref in ready)) if ready else self.clock + seconds
        if ready:
            self._idle_since = self.clock
        assert self.clock - self._idle_since < PATIENCE_SECONDS, "waits for actors that hang, for ever"
        return ready


class SimulatedActor:
    """One process: knows its programs, and when it will have done all that it was told."""

    def __init__(self, cluster: SimulatedCluster, number: int, node: str) -> None:
        self.node = node
        self.n_waiting = 0
        self._cluster = cluster
        self._number = number
        self._programs: dict[str, object] = {}
        self._free_at = 0.0
        self._under_way: deque[Ref] = deque()
        self._lost: ActorLost | None = None

    def call(self, method: str, *args: Any, n_returns: int = 1) -> Any:
        """Queue a call: one reference, or a list of `n_returns`."""
        cluster = self._cluster
        cluster.log.append((self._number, method))
        fault = self._lost or cluster.faults(self._number, method, args)
        self.n_waiting += 1
        if method in ("prepare", "make_worker"):
            return self._answer(Outcome(oom_kills=cluster.oom_kills if method == "prepare" else 0), fault)
        cluster.most_waiting = max(cluster.most_waiting, self.n_waiting)
        cluster.clock += cluster.task_seconds
        try:
            outcome = self._outcome(method, *args) if self._lost is None else Outcome()
        except ActorLost as error:
            outcome, fault = Outcome(), error
        cluster.busy_seconds += outcome.seconds
        ref = self._answer(outcome, fault)
        return ref if n_returns == 1 else [Program(args[2], self.node), ref]

    def kill(self) -> None:
        """End the process."""
        self._cluster.log.append((self._number, "kill"))
        self.die(ActorLost("it was killed"))

    def die(self, lost: ActorLost) -> None:
        """From now on nothing comes back."""
        self._lost = self._lost or lost
        for ref in self._under_way:
            if ref.at > self._cluster.clock:
                ref.at, ref.value = self._cluster.clock, self._lost
        self._under_way.clear()

    def release(self) -> None:
        """Work on, if it hangs."""
        if self._free_at == inf:
            self._free_at = self._cluster.clock
            for ref in self._under_way:
                if ref.at == inf:
                    self._free_at += ref.seconds
                    ref.at = self._free_at

    def _answer(self, outcome: Outcome, fault: Fault | None) -> Ref:
        """What comes back of a call that is made now, and when."""
        clock = self._cluster.clock
        while self._under_way and self._under_way[0].at <= clock:
            self._under_way.popleft()
        self._free_at = inf if isinstance(fault, Hang) else max(self._free_at, clock) + outcome.seconds
        value: Outcome | ActorLost = outcome
        if isinstance(fault, ActorLost):
            self._lost = value = fault
        elif isinstance(fault, DistcalibError):
            value = Outcome(error=fault)
        ref = Ref(self, self._free_at, value, outcome.seconds)
        self._under_way.append(ref)
        return ref

    def _outcome(self, method: str, *args: Any) -> Outcome:
        if method == "clear":
            self._programs.clear()
            return Outcome()
        key, _, *given, drop = args
        for name in drop:
            self._programs.pop(name, None)
        if method == "run":
            return _guarded(lambda: self._run(key, *given))
        loaded = _guarded(lambda: self._load(key, given[0], method == "compile"))
        if method != "load_and_run":
            return loaded
        if loaded.error is not None:
            return replace(loaded, not_loaded=True)
        return replace(_guarded(lambda: self._run(key, given[1])), load_seconds=loaded.load_seconds)

    def _run(self, key: str, iterations: Sequence[int]) -> Outcome:
        if key not in self._programs:
            raise MeasureError(f"{key}: is not loaded")
        rows, seconds = self._cluster.engine.run(self._programs[key], iterations)
        return Outcome(rows=rows, run_seconds=seconds)

    def _load(self, key: str, given: object, compiles: bool) -> Outcome:
        """Of a program, or of the spec of one."""
        if isinstance(given, Program) and given.node in self._cluster.silent:
            raise ActorLost(f"the program was on {given.node}")
        spec = given.spec if isinstance(given, Program) else given
        engine = self._cluster.engine
        compile_seconds = engine.compile_seconds(spec) if compiles else 0.0
        load_seconds = engine.load_seconds(spec)
        self._programs[key] = spec
        return Outcome(compile_seconds=compile_seconds, load_seconds=load_seconds)


def _guarded(call: Callable[[], Outcome]) -> Outcome:
    """An error as an outcome, as ActorProcess gives it."""
    try:
        return call()
    except DistcalibError as error:
        return Outcome(error=error)


class SimulatedPool:
    """What ActorPool is to a session."""

    def __init__(self, engine: Engine, n_actors: int, task_seconds: float) -> None:
        self.cluster = SimulatedCluster(engine, task_seconds)
        self._fleet = Fleet(self.cluster, [Placement(i, (i,)) for i in range(n_actors)], no_worker, None, {})
        self._pace: float | None = None

    def run(self, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """As ActorPool.run."""
        call = Call(self._fleet, jobs, None, enough, self._pace, clock=lambda: self.cluster.clock)
        results = call.run()
        self._fleet.clear()
        self._pace = call.seconds_per_iteration
        return results

    def settle(self) -> float:
        """As ActorPool.settle."""
        return self._fleet.settle()
