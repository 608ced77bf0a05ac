"""Actors that take simulated time: the real fleet, calls, dispatcher and collector run on them unchanged.

The driver is one thread, so each call that it makes moves the clock by `task_seconds`; an actor works through its calls
one after the other from the moment they were made.  Waiting moves the clock to the next result.  No data travels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from distcalib.actors import Enough, Job, JobResult, Placement
from distcalib.actors.actor import Outcome
from distcalib.actors.execution import Call
from distcalib.actors.fleet import Fleet
from distcalib.actors.ray_cluster import Cluster
from distcalib.errors import DistcalibError, MeasureError


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


@dataclass(frozen=True, eq=False)
class Ref:
    """A result that is there from `at` on, by the simulated clock."""

    at: float
    outcome: Outcome


class SimulatedCluster:
    """What Cluster is to Fleet and Call."""

    def __init__(self, engine: Engine, task_seconds: float) -> None:
        self.engine = engine
        self.task_seconds = task_seconds
        self.clock = 0.0
        self.busy_seconds = 0.0  # of all actors

    def put(self, value: object) -> object:
        """As it is."""
        return value

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> "SimulatedActor":
        """In no time: what starting takes is not looked into."""
        return SimulatedActor(self)

    def keep(self, ref: Any) -> Any:
        """One machine."""
        return ref

    def get(self, ref: Ref) -> Outcome:
        """The outcome; by then it is its time."""
        self.clock = max(self.clock, ref.at)
        return ref.outcome

    def wait(self, refs: Sequence[Ref], seconds: float) -> list[Ref]:
        """Until one is there, at most `seconds`, then all that are."""
        self.clock = max(self.clock, min(self.clock + seconds, *(ref.at for ref in refs)))
        return [ref for ref in refs if ref.at <= self.clock]


class SimulatedActor:
    """What an actor's handle is to Fleet; knows its programs, and when it will have done all that it was told."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._programs: dict[str, object] = {}
        self._free_at = 0.0

    def call(self, method: str, *args: Any, n_returns: int = 1) -> Any:
        """Queue a call: one reference, or a list of `n_returns`."""
        cluster = self._cluster
        if method in ("prepare", "make_worker"):
            return Ref(cluster.clock, Outcome())
        cluster.clock += cluster.task_seconds
        try:
            outcome = self._outcome(method, *args)
        except DistcalibError as error:
            outcome = Outcome(error=error)
        cluster.busy_seconds += outcome.seconds
        self._free_at = max(self._free_at, cluster.clock) + outcome.seconds
        ref = Ref(self._free_at, outcome)
        return ref if n_returns == 1 else [args[2], ref]  # a compiled program is its spec

    def _outcome(self, method: str, *args: Any) -> Outcome:
        engine = self._cluster.engine
        if method == "clear":
            self._programs.clear()
            return Outcome()
        key, _, given, drop = args
        for name in drop:
            self._programs.pop(name, None)
        if method == "run" and key not in self._programs:
            raise MeasureError(f"{key}: is not loaded")
        if method == "run":
            rows, seconds = engine.run(self._programs[key], given)
            return Outcome(rows=rows, run_seconds=seconds)
        compile_seconds = engine.compile_seconds(given) if method == "compile" else 0.0
        load_seconds = engine.load_seconds(given)
        self._programs[key] = given
        return Outcome(compile_seconds=compile_seconds, load_seconds=load_seconds)


class SimulatedPool:
    """What ActorPool is to a session."""

    def __init__(self, engine: Engine, n_actors: int, task_seconds: float) -> None:
        self.cluster = SimulatedCluster(engine, task_seconds)
        placements = [Placement(i, (i,)) for i in range(n_actors)]
        self._fleet = Fleet(cast(Cluster, self.cluster), placements, cast(Any, None), None, {})
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
