"""What a fleet and its calls need of whatever runs actors: Ray in earnest (ray_cluster.py), a clock in a simulation.

Small on purpose: what connects, asks nodes what they are and counts their CPUs is for the pool alone, machines.py."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Ref = Any  # what stands for a value that may not be there yet: hashable by identity; Ray's type parameter is lost


class ActorLost(Exception):
    """An actor's process is gone, or the node that had the call's result is.

    `for_memory`: it was ended because its node ran short of memory."""

    def __init__(self, reason: str, for_memory: bool = False) -> None:
        super().__init__(reason)
        self.for_memory = for_memory


class Actor(Protocol):
    """A handle of one actor process, which works through its calls one after the other."""

    def call(self, method: str, *args: object, n_returns: int = 1) -> Any:
        """Queue a call of ActorProcess and return at once: one reference, or a list of `n_returns`."""
        ...

    def kill(self) -> None:
        """End the process without waiting until it is gone: a call given right afterwards may still come back."""
        ...


class Cluster(Protocol):
    """Nodes that actors run on, and what travels between them."""

    @property
    def home(self) -> str:
        """The id of the driver's node."""
        ...

    def put(self, value: object) -> Ref:
        """Store once for all actors."""
        ...

    def keep(self, ref: Ref) -> Ref:
        """The same value on the driver's machine, so that it outlives the node that made it; on one machine itself.

        Raises ActorLost if it is too late.
        """
        ...

    def get(self, ref: Ref) -> Any:
        """The value; raises ActorLost if its actor died, MeasureError if it cannot be had for another reason."""
        ...

    def wait(self, refs: Sequence[Ref], seconds: float) -> Sequence[Ref]:
        """Wait until one is there, at most `seconds`, then return all that are."""
        ...

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> Actor:
        """Start an actor process on `node` ("": the driver's) that reserves `n_cpus` there."""
        ...

    def live_nodes(self) -> Mapping[str, str]:
        """The nodes that were not given up, by id: what a person calls them."""
        ...

    def answering_nodes(self) -> Mapping[str, str]:
        """Of the live nodes those that answer now: up to a minute may pass until a lost one is given up."""
        ...
