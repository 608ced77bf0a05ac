"""What a pool needs of the machines that its actors run on, beyond what a fleet does; Ray's in earnest, ray_cluster.py.

A pool is given a Source and opens it itself: a Ray of this machine's own is started for as many actors as the pool has
found cores for, and one that runs can be asked for its nodes only once it was joined."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from distcalib.actors.cluster import Cluster
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.surroundings import Lack

LOST = "was lost while it was asked; see whether Ray still runs there and the network is well"


@dataclass(frozen=True)
class Survey:
    """The nodes that answered, by host name, and why others did not and what would do, by their names.

    `lacks`: without a cluster, what stands in the way of a Ray of this machine's own.
    """

    nodes: tuple[NodeInfo, ...]
    silent: dict[str, str]
    lacks: tuple[Lack, ...] = ()


class Machines(Cluster, Protocol):
    """A Cluster that tells what its nodes are, and that somebody closes."""

    @property
    def reserves(self) -> bool:
        """Whether actors reserve CPUs, since others use the cluster, too."""
        ...

    def survey(self, known: Collection[str] = ()) -> Survey:
        """What each node is, but those whose ids are `known`."""
        ...

    def store_bytes(self) -> Mapping[str, int]:
        """The size of each node's object store, by id."""
        ...

    def cpus(self) -> Mapping[str, tuple[float, float]]:
        """The CPUs of each live node, and how many of them nobody has reserved, by id."""
        ...

    def close(self) -> None:
        """Disconnect, and end what was started for this pool; twice does no harm."""
        ...


class Source(Protocol):
    """Where machines are had from."""

    @property
    def joins(self) -> bool:
        """Whether `open` joins a cluster that runs, rather than start one on this machine."""
        ...

    def open(self, n_cpus: int) -> Machines:
        """Connect; what is started on this machine is for `n_cpus` actors. Raises MeasureError when that fails."""
        ...
