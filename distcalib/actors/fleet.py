"""The actors of a pool as processes: start, pin, replace, kill. What they work on is the business of execution.py."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distcalib.actors.actor import Outcome
from distcalib.actors.cluster import Actor, ActorLost, Cluster, Ref
from distcalib.actors.dispatcher import MAX_DEATHS
from distcalib.actors.jobs import WorkerFactory
from distcalib.actors.topology import Placement
from distcalib.errors import DataError, DistcalibError, MeasureError

_LOG = logging.getLogger(__name__)


class RemoteTraceback(Exception):
    """The cause of an error that happened in an actor: its traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Left:
    """A task that an actor has from a call that is over."""

    outcome: Ref
    keep: Callable[[Outcome], None] | None = None
    """Takes its rows all the same."""


class Fleet:
    """One actor process for each placement, numbered alike; all are pinned and have their worker when this returns."""

    def __init__(
        self,
        cluster: Cluster,
        placements: Sequence[Placement],
        factory: WorkerFactory,
        shared: object,
        env: Mapping[str, str],
        pieces: Sequence[Ref] = (),
        still: Callable[[], None] = lambda: None,
    ) -> None:
        """`still` is asked whenever an actor has died, and raises DataError if that may be the fault of a file."""
        self._still = still
        self.cluster = cluster
        self._placements = list(placements)
        self._moved: dict[int, None] = {}  # actors whose node was lost, and that share the cores of others since
        self._retired: dict[int, None] = {}  # actors for which there was no memory
        self._oom_kills: dict[str, int] = {}  # by node, as its last new actor saw it
        self._env = dict(env)
        self._pieces = tuple(pieces)
        self._left: list[list[Left]] = [[] for _ in placements]
        self._used: dict[int, None] = {}  # actors that may hold a program; as keys, for sets have no order
        self._abandoned_seconds = 0.0
        self._actors: list[Actor] = [cluster.start_actor(place.node, place.reserved) for place in placements]
        try:
            self._factory = cluster.put(factory)  # while the actors start
            self._shared = cluster.put(shared)
            for number, refs in enumerate([self._begin(number) for number in range(len(placements))]):
                self._finish(number, refs)
        except BaseException:
            self.kill()
            raise

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where each actor runs."""
        return tuple(self._placements)

    @property
    def is_at_home(self) -> bool:
        """True when no actor shelters from a lost node beside another."""
        return not self._moved

    def node_of(self, number: int) -> str:
        """What a person calls the node of actor `number`, if it is another machine than the driver's; else ""."""
        node = self._placements[number].node
        return "" if not node or node == self.cluster.home else self.cluster.live_nodes().get(node, node)

    def __len__(self) -> int:
        return len(self._placements)

    def call(self, number: int, method: str, *args: object, n_returns: int = 1) -> Any:
        """Queue a call on actor `number`: a reference, or a list of `n_returns`."""
        self._used[number] = None
        return self._actors[number].call(method, *args, n_returns=n_returns)

    @property
    def n_retired(self) -> int:
        """Actors that were not replaced because their nodes ran out of memory."""
        return len(self._retired)

    def is_retired(self, number: int) -> bool:
        """True when actor `number` works no more."""
        return number in self._retired

    def replace(self, number: int, for_memory: bool = False) -> None:
        """Put a new process in the place of a dead one, pinned alike, or, if its node is lost, to the cores of another.
        Where one died `for_memory`, or the kernel has killed a process of its node for that meanwhile, there is one
        actor less from now on; the last one of all is replaced whatever it died of.
        Raises MeasureError if the new one dies too, and DataError if a file of the run is not what it was: an actor
        that reads a file which is cut while it is mapped is killed (SIGBUS)."""
        self._still()
        node = self._placements[number].node
        known = self._oom_kills.get(node)
        can_spare = len(self) - self.n_retired > 1
        if not (for_memory and can_spare):
            self._restart(number)
            self._finish(number, self._begin(number))
            killed = self._placements[number].node == node and known is not None and self._oom_kills[node] > known
            if not (killed and can_spare):
                _LOG.warning("actor %d died; a new one takes its place and its work is done again", number)
                return
        self._actors[number].kill()
        self._retired[number] = None
        self._moved.pop(number, None)
        self._used.pop(number, None)
        _LOG.warning("memory ran out where actor %d ran; it is not replaced and others do its work", number)

    def leave(self, number: int, tasks: Sequence[Left]) -> None:
        """Remember what actor `number` still works on, oldest first, though nobody waits for it."""
        self._left[number].extend(tasks)

    def take_left(self, number: int) -> list[Left]:
        """What actor `number` still works on; each one that comes back goes to `settle_one`."""
        left, self._left[number] = self._left[number], []
        return left

    def settle_one(self, task: Left, outcome: Outcome) -> None:
        """Count the seconds of a task that nobody waited for, and hand on its rows. Its error, if any, is nobody's
        business."""
        self._abandoned_seconds += outcome.seconds
        if task.keep is not None and outcome.error is None:
            task.keep(outcome)

    def extend(self, placements: Sequence[Placement], grows: bool) -> None:
        """Use a new node: actors whose node was lost move there; if it `grows`, others start. In a call only
        while all are at home. Raises DistcalibError if one cannot start there; then it and the others that were to
        start are as before."""
        free = list(placements)
        for number in list(self._moved):
            if free:
                shelter = self._placements[number]
                try:
                    self._place(number, free.pop(0))
                except DistcalibError:
                    self._place(number, shelter)
                    raise
                del self._moved[number]
        first = len(self._placements)
        added = [replace(placement, actor=first + i) for i, placement in enumerate(free)] if grows else []
        self._placements += added
        self._left += [[] for _ in added]
        self._actors += [self.cluster.start_actor(placement.node, placement.reserved) for placement in added]
        try:
            for placement, refs in [(placement, self._begin(placement.actor)) for placement in added]:
                self._finish(placement.actor, refs)
        except DistcalibError:
            for number in range(first, len(self)):
                self._actors[number].kill()
                self._moved.pop(number, None)
            del self._placements[first:], self._left[first:], self._actors[first:]
            raise

    def settle(self) -> float:
        """Wait for all that is left; the seconds of all such tasks since this was last asked."""
        for number in range(len(self)):
            try:
                for task in self.take_left(number):
                    self.settle_one(task, self.cluster.get(task.outcome))
            except ActorLost as error:
                self.replace(number, error.for_memory)
        seconds, self._abandoned_seconds = self._abandoned_seconds, 0.0
        return seconds

    def clear(self) -> None:
        """Have every actor drop all its programs; an actor that dies over it is replaced. One that still works on what
        was left to it drops them afterwards: nothing is waited for. Those that were given nothing since are left in
        peace: with 4,096 actors, to ask them all took longer than a pass."""
        used, self._used = list(self._used), {}
        clearing = [(number, self._actors[number].call("clear")) for number in used]
        for number, ref in clearing:
            if self._left[number]:
                self.leave(number, [Left(ref)])
                continue
            try:
                check(self.cluster.get(ref))
            except ActorLost as error:
                self.replace(number, error.for_memory)

    def kill(self) -> None:
        """End all processes at once, and let go of the pieces."""
        self._pieces = ()
        for actor in self._actors:
            actor.kill()
        self._actors.clear()

    def _begin(self, number: int) -> list[Ref]:
        placement = self._placements[number]
        return [
            self._actors[number].call("prepare", placement, self._env),
            self._actors[number].call("make_worker", self._factory, self._shared, *self._pieces),
        ]

    def _finish(self, number: int, refs: list[Ref]) -> None:
        """Wait until the actor is ready; one that dies while starting gets MAX_DEATHS trials."""
        for trial in range(MAX_DEATHS):
            try:
                prepared, *_ = [check(self.cluster.get(ref)) for ref in refs]
                self._oom_kills[self._placements[number].node] = prepared.oom_kills
                return
            except ActorLost as error:
                self._still()
                if trial + 1 == MAX_DEATHS:
                    cpus = ",".join(map(str, self._placements[number].cpus))
                    raise MeasureError(
                        f"actor {number} on CPU {cpus}: it died {MAX_DEATHS} times while starting; "
                        "the kernel's log (dmesg) tells a lack of memory from a crash of the engine"
                    ) from error
                self._restart(number)
                refs = self._begin(number)

    def _restart(self, number: int) -> None:
        """A new process for an actor, elsewhere if its node does not answer. It spares memory: the lack of that may be
        what the old one died of."""
        placement = replace(self._placements[number], spare_bytes=0)
        if placement.node:
            answering = self.cluster.answering_nodes()
            if placement.node not in answering:
                placement = self._shelter(number, answering)
        self._actors[number].kill()
        self._placements[number] = placement
        self._actors[number] = self.cluster.start_actor(placement.node, placement.reserved)

    def _place(self, number: int, placement: Placement) -> None:
        """Move an actor that has nothing under way."""
        self._left[number].clear()
        self._used.pop(number, None)
        self._actors[number].kill()
        self._placements[number] = replace(placement, actor=number)
        self._actors[number] = self.cluster.start_actor(placement.node, placement.reserved)
        self._finish(number, self._begin(number))

    def _shelter(self, number: int, answering: Mapping[str, str]) -> Placement:
        """The cores with the fewest actors on the nodes that answer."""
        loads = Counter((place.node, place.cpus) for place in self._placements if place.node in answering)
        if not loads:
            raise MeasureError("no node answers that had actors; see whether Ray still runs there")
        node, cpus = min(loads, key=lambda place: loads[place])
        self._moved[number] = None
        _LOG.warning("the node of actor %d is lost; it goes on at %s, beside another", number, answering[node])
        return Placement(number, cpus, node)


def check(outcome: Outcome) -> Outcome:
    """The outcome, if it is none of an error; else raises that error, with the actor's traceback as its cause."""
    if outcome.error is not None:
        raise error_of(outcome)
    return outcome


def error_of(outcome: Outcome, node: str = "") -> DistcalibError:
    """The error of a failed outcome, with the actor's traceback as its cause.

    One of the data names the `node` that it happened on: another may well open what is at the same path there.
    """
    error = outcome.error
    assert error is not None, "it did not fail"
    if node and isinstance(error, DataError):
        error = type(error)(f"on {node}: {error}")
    error.__cause__ = RemoteTraceback(outcome.trace)
    return error
