"""The pool of pinned actors: what the rest of distcalib sees of parallelism.

One machine is a cluster of one: there is no serial path beside it, a pool of one actor is that. What a worker computes
is none of its business; how work is dealt out is in dispatcher.py, how results come back in call.py."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from distcalib.errors import MeasureError
from distcalib.measure.call import Call
from distcalib.measure.cluster import Cluster
from distcalib.measure.feeding import IN_FLIGHT
from distcalib.measure.fleet import Fleet
from distcalib.measure.jobs import Enough, Job, JobResult, Progress, WorkerFactory
from distcalib.measure.topology import Placement, Topology, place_actors, read_topology


class ActorPool:
    """Pinned actor processes, each with a worker made by `factory(shared, placement)`; a context manager.

    `n_actors` None: one for every `cores_per_actor` usable physical cores. More than there are cores for share them,
    and `oversubscribed` says so. `env` is in each actor's environment before the factory is even imported there.
    `shared` is stored once for all actors; arrays in it arrive as read-only views.
    `in_flight`: tasks that an actor is given at a time, see feeding.py.
    `address`: of a Ray cluster; None: the Ray already used in this process, else RAY_ADDRESS, else a local Ray, which
    `close` ends. Actors run on the driver's machine.
    Raises OptionError for counts that cannot be met, MeasureError when actors do not start, and what the factory
    raises.
    """

    def __init__(
        self,
        factory: WorkerFactory,
        *,
        n_actors: int | None = None,
        cores_per_actor: int = 1,
        env: Mapping[str, str] | None = None,
        address: str | None = None,
        shared: object = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._in_flight = in_flight
        self.topology: Topology = read_topology()
        self.placements: tuple[Placement, ...] = place_actors(self.topology, n_actors, cores_per_actor)
        self._pace: float | None = None
        self._fleet: Fleet | None = None
        self._cluster = Cluster(address, n_cpus=self.n_actors)
        try:
            self._fleet = Fleet(self._cluster, self.placements, factory, shared, env or {})
        except BaseException:
            self.close()
            raise

    @property
    def n_actors(self) -> int:
        """Actors of the pool; one that dies is replaced."""
        return len(self.placements)

    @property
    def oversubscribed(self) -> bool:
        """True when actors share cores or a CPU quota: results hold, times do not."""
        return sum(len(placement.cpus) for placement in self.placements) > self.topology.n_usable

    def run(
        self,
        jobs: Sequence[Job],
        on_progress: Callable[[Progress], None] | None = None,
        enough: Enough | None = None,
    ) -> list[JobResult]:
        """Run all jobs, results in the order of `jobs`; the same rows for any number of actors.

        `on_progress` and `enough` are called in this thread whenever a shard is finished. When `enough` says so, no
        more of that job is handed out. The call ends when every job that is not optional is complete, stopped or set
        aside; it does not wait for tasks of any other, and the rows of those that came in time are kept. So which rows
        such a job has depends on timing and on the number of actors: `enough` must be content with any.

        A DistcalibError of a worker is raised here as it was, any other of its exceptions as a MeasureError, unless
        its job may fail; the pool can be used again after either. What is no Exception (Ctrl-C) closes the pool at
        once.
        """
        if self._fleet is None:
            raise MeasureError("the actor pool is closed; make a new one")
        call = Call(self._fleet, jobs, on_progress, enough, self._pace, self._in_flight)
        try:
            results = self._run(self._fleet, call)
        except Exception:
            raise
        except BaseException:  # nobody waits for a shard after Ctrl-C
            self.close()
            raise
        self._pace = call.seconds_per_iteration
        return results

    @staticmethod
    def _run(fleet: Fleet, call: Call) -> list[JobResult]:
        """Run the call and have the actors drop their programs, whether it went well or not."""
        try:
            results = call.run()
        except Exception:
            call.drain()
            fleet.clear()
            raise
        fleet.clear()
        return results

    def settle(self) -> float:
        """Wait for the tasks that calls did not wait for; actor-seconds of all these since this was last asked, which
        no JobResult has."""
        return 0.0 if self._fleet is None else self._fleet.settle()

    def close(self) -> None:
        """Kill the actors, and end Ray if this pool started it; twice does no harm."""
        if self._fleet is not None:
            self._fleet.kill()
            self._fleet = None
        self._cluster.close()

    def __enter__(self) -> "ActorPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
