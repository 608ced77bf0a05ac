"""The pool of pinned actors: what the rest of distcalib sees of parallelism.

One machine is a cluster of one: there is no serial path beside it, a pool of one actor is that. What a worker computes
is none of its business; how work is dealt out is in dispatcher.py, how results come back in execution.py."""

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Thread
from types import TracebackType

from distcalib.actors.execution import Call
from distcalib.actors.feeder import IN_FLIGHT
from distcalib.actors.fleet import Fleet
from distcalib.actors.jobs import Cargo, Enough, Job, JobResult, OnRows, Progress, WorkerFactory
from distcalib.actors.machines import LOST, Source
from distcalib.actors.nodes import NodeInfo, describe_this_node, is_shared, place_on_nodes
from distcalib.actors.signals import interrupt_held
from distcalib.actors.timeline import Timeline
from distcalib.actors.topology import Placement
from distcalib.errors import DistcalibError, MeasureError

_LOG = logging.getLogger(__name__)
_FREE_SECONDS, _FREE_PAUSE_SECONDS = 3.0, 0.2  # Ray counts the CPUs of a killed actor as free a moment later
_N_TRIALS, _PAUSE_SECONDS = 20, 3.0  # a minute, which is what Ray takes at the most to give a lost node up
_RESCUE_SECONDS = 0.5  # a shard takes no longer, unless an iteration does

Environment = Callable[[Sequence[NodeInfo]], Mapping[str, str]]


class ActorPool:
    """Pinned actor processes, each with a worker made by `factory(shared, placement)`; a context manager.

    `n_actors` None: one for every `cores_per_actor` usable physical cores. More than there are cores for share them,
    and `oversubscribed` says so. `cores_per_actor` None: as few as the memory of each machine allows, where an actor
    needs `actor_bytes` and all on a machine together `shared_bytes`. `env`, or what it returns for the nodes, is in
    each actor's environment before the factory is even imported there; it may refuse the nodes.
    `shared` is stored once for all actors; arrays in it arrive as read-only views. `cargo` is what is too large for
    that: its pieces are stored one after the other, once `env` has agreed to the nodes, and live as long as the pool.
    `in_flight`: tasks that an actor is given at a time, see feeder.py.
    `still`: asked when an actor has died, see Fleet.
    `source`: of the machines; actors run on all nodes of a cluster that it joins, and nodes that join are used within
    seconds. What it starts for this pool, `close` ends.
    Raises OptionError for counts that cannot be met, MeasureError when actors do not start, and what the factory
    raises.
    """

    def __init__(
        self,
        factory: WorkerFactory,
        source: Source,
        *,
        n_actors: int | None = None,
        cores_per_actor: int | None = 1,
        actor_bytes: int = 0,
        shared_bytes: int = 0,
        env: Mapping[str, str] | Environment | None = None,
        shared: object = None,
        cargo: Cargo | None = None,
        in_flight: int = IN_FLIGHT,
        still: Callable[[], None] = lambda: None,
    ) -> None:
        self._in_flight = in_flight
        self._place = partial(
            place_on_nodes, cores_per_actor=cores_per_actor, actor_bytes=actor_bytes, shared_bytes=shared_bytes
        )
        self._grows, self._fits = n_actors is None, cores_per_actor is None
        self._unwelcome: set[str] = set()
        self._pace: float | None = None
        self._fleet: Fleet | None = None
        self._placed: tuple[Placement, ...] = ()
        self._n_retired = 0
        self._closing: Thread | None = None
        self._is_closed = False
        self.timeline = Timeline()
        """What the actors did when, in all calls."""
        self._spread = source.joins
        self.nodes: tuple[NodeInfo, ...] = () if self._spread else (describe_this_node(),)
        placements = () if self._spread else self._place(self.nodes, n_actors)
        self._cluster = source.open(n_cpus=len(placements))
        try:
            if self._spread:
                self.nodes = self._ask_free()
                placements = self._place(self.nodes, n_actors)
            self.nodes = self._with_stores(self.nodes)
            self._agree = env if callable(env) else None
            self._env = self._agree(self.nodes) if self._agree else dict(env or {})  # type: ignore[arg-type]
            pieces = [] if cargo is None else [self._cluster.put(piece) for piece in cargo.pieces(self.nodes)]
            self._fleet = Fleet(self._cluster, placements, factory, shared, self._env, pieces, still)
        except BaseException:
            self.close()
            raise

    @property
    def n_actors(self) -> int:
        """Actors of the pool; one that dies is replaced, unless it did for lack of memory."""
        return len(self.placements) - self.n_retired

    @property
    def n_retired(self) -> int:
        """Actors that were given up because their nodes ran out of memory."""
        return self._n_retired if self._fleet is None else self._fleet.n_retired

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where each actor runs now, or ran when the pool was closed."""
        return self._placed if self._fleet is None else self._fleet.placements

    @property
    def narrowed(self) -> bool:
        """True when actors have more cores each because their machine has not the memory for more actors."""
        return self._fits and any(placement.n_threads > 1 for placement in self.placements)

    @property
    def oversubscribed(self) -> bool:
        """True when actors share cores or a CPU quota: results hold, times do not."""
        wanted = Counter({node.node_id: 0 for node in self.nodes})
        for placement in self.placements:
            wanted[placement.node] += len(placement.cpus)
        return any(wanted[node.node_id] > node.topology.n_usable for node in self.nodes)

    def run(
        self,
        jobs: Sequence[Job],
        on_progress: Callable[[Progress], None] | None = None,
        enough: Enough | None = None,
        on_rows: OnRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[JobResult]:
        """Run all jobs, results in the order of `jobs`; the same rows for any number of actors.

        `on_rows`, `enough` and `on_progress` are called in this thread whenever a shard is finished, in this order;
        `check`, which may raise, some times a second.
        When `enough` says so, no more of that job is handed out. The call ends when every job is complete,
        stopped or set aside; it does not wait for tasks of the latter two, and the rows of those that came in time are
        kept. So which rows such a job has depends on timing and on the number of actors: `enough` must be
        content with any.

        A DistcalibError of a worker is raised here as it was, any other of its exceptions as a MeasureError, unless
        its job may fail; the pool can be used again after either. What is no Exception (Ctrl-C) closes the pool, once
        `on_rows` was given what came back within half a second.
        """
        if self._fleet is None:
            raise MeasureError("the actor pool is closed; make a new one")
        if self._spread:
            self._welcome(self._fleet)
        look = partial(self._welcome, self._fleet, meanwhile=True) if self._spread else None
        call = Call(
            self._fleet,
            jobs,
            on_progress,
            enough,
            self._pace,
            self._in_flight,
            look,
            on_rows=on_rows,
            check=check,
            timeline=self.timeline,
        )
        try:
            results = self._run(self._fleet, call)
        except Exception:
            raise
        except BaseException:  # nobody waits long for a shard after Ctrl-C
            try:
                with suppress(DistcalibError):
                    call.rescue(_RESCUE_SECONDS)
            finally:
                self.close()
            raise
        self._pace = call.seconds_per_iteration
        return results

    def _ask(self) -> tuple[NodeInfo, ...]:
        """All nodes of the cluster; this machine alone is not asked by a task, which would take a second."""
        if list(self._cluster.live_nodes()) == [self._cluster.home]:
            return (describe_this_node(self._cluster.home),)
        survey = self._cluster.survey()
        for _ in range(_N_TRIALS):  # Ray lists a node that has just died for a while: to be gone is no reason to refuse
            if LOST not in survey.silent.values():
                break
            time.sleep(_PAUSE_SECONDS)
            survey = self._cluster.survey()
        if survey.silent:
            raise MeasureError("; ".join(f"{label}: {reason}" for label, reason in survey.silent.items()))
        return survey.nodes

    def _with_stores(self, nodes: Sequence[NodeInfo]) -> tuple[NodeInfo, ...]:
        """The nodes with what Ray alone knows: the sizes of their object stores, and in a cluster what is reserved."""
        stores = self._cluster.store_bytes()
        return tuple(replace(node, store_bytes=stores.get(node.node_id or self._cluster.home, 0)) for node in nodes)

    def _ask_free(self) -> tuple[NodeInfo, ...]:
        """All nodes of the cluster, once the actors of a run that has just ended are gone; those of others stay."""
        end = time.monotonic() + _FREE_SECONDS
        while True:
            nodes = self._with_cpus(self._ask())
            if not any(map(is_shared, nodes)) or time.monotonic() >= end:
                return nodes
            time.sleep(_FREE_PAUSE_SECONDS)

    def _with_cpus(self, nodes: Sequence[NodeInfo]) -> tuple[NodeInfo, ...]:
        """Of a cluster that others may use, too: what is reserved there."""
        cpus = self._cluster.cpus() if self._cluster.reserves else {}
        return tuple(replace(node, ray_cpus=cpus.get(node.node_id or self._cluster.home)) for node in nodes)

    def _welcome(self, fleet: Fleet, meanwhile: bool = False) -> None:
        """Use nodes that have joined since, if they are as the others; else say why not, once. `meanwhile`, in a call,
        no actor can move: that waits for the end of it."""
        if meanwhile and not (self._grows and fleet.is_at_home):
            return
        known = {node.node_id for node in self.nodes} | self._unwelcome
        if self._cluster.live_nodes().keys() <= known:
            return
        survey = self._cluster.survey(known)
        if survey.silent:  # asking again and again would hold up all others
            self._unwelcome.update(self._cluster.live_nodes().keys() - known - {node.node_id for node in survey.nodes})
            for label, reason in survey.silent.items():
                _LOG.warning("%s joined and is not used: %s", label, reason)
        for node in self._with_cpus(self._with_stores(survey.nodes)):
            placements: tuple[Placement, ...] = ()
            try:
                alike = self._agree is None or self._agree((*self.nodes, node)) == self._env
                reason = "its CPU is another kind than those that the run began with"
                if alike:
                    placements = self._place((node,), None)
            except DistcalibError as error:
                alike, reason = False, str(error)
            if alike:
                try:
                    fleet.extend(placements, self._grows)
                except DistcalibError as error:  # of data that are not there, or actors that die
                    alike, reason = False, str(error)
            if not alike:
                self._unwelcome.add(node.node_id)
                _LOG.warning("%s joined and is not used: %s", node.label, reason)
                continue
            _LOG.warning("%s joined and is used", node.label)
            self.nodes = (*self.nodes, node)

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

    def begin_close(self) -> None:
        """Kill the actors, and end in a thread what was started for this pool, which takes 0.4 s of a local Ray; to be
        followed by `close`, which does what could not be done here."""
        if self._closing is not None or self._is_closed:
            return
        closing = Thread(target=self._cluster.close, name="distcalib-close")
        with suppress(Exception), interrupt_held():  # such as where no thread can be made
            self._kill()
            # What an actor that died has left holds references to results in cycles.  Ray ends the process, without a
            # word to Python, if one is let go of while it shuts down in the other thread.
            gc.collect()
            closing.start()
            self._closing = closing

    def close(self) -> None:
        """Kill the actors, and end what was started for this pool; twice does no harm."""
        self._kill()
        self._is_closed = True
        if self._closing is not None:
            with interrupt_held():
                self._closing.join()
        self._cluster.close()

    def _kill(self) -> None:
        if self._fleet is not None:
            self._placed, self._n_retired = self._fleet.placements, self._fleet.n_retired
            self._fleet.kill()
            self._fleet = None

    def __enter__(self) -> "ActorPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
