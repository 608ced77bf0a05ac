"""The machines of a cluster: what each is, and which of them an actor runs on.

All is pure but `describe_this_node`, which is called in a task on each machine. The laying out looks at nothing that
changes from second to second, so a cluster gets the same actors each time."""

import heapq
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from math import floor
from pathlib import Path

from distcalib.actors.affinity import pinned_by_others
from distcalib.actors.machine import ISA_VARIABLE, cpu_model, memory, read_text, usable_isas
from distcalib.actors.topology import Placement, Topology, check_counts, place_actors, read_topology
from distcalib.errors import MeasureError
from distcalib.version import __version__

_MEMORY_SHARE = 0.8  # of a machine's: the rest is the system's, Ray's and that of the page cache which holds the data


@dataclass(frozen=True)
class NodeInfo:
    """A machine as its own processes see it. `node_id`: Ray's, in hex; "" for the driver's machine without a cluster.

    `isas`: oneDNN's names of the instruction sets it may use there, widest first. `versions`: of distcalib, of what
    decides its results, of Ray and Python; "missing" for one that is not there. `memory_bytes`: what all processes
    there may have together; `free_bytes`: what was left when the node was asked; `shm_bytes`: of /dev/shm, where Ray's
    object store is; `store_bytes`: of that store, 0 until a pool has asked Ray. `load`: processes that want a core,
    averaged over a minute. `address`: its IP address in the cluster. `machine`: the same for nodes that are only
    containers on one machine.  `taken`: logical CPUs that actors of other runs are pinned to; `ray_cpus`: how many Ray
    has there for all and how many are free, None where nothing is reserved.
    """

    node_id: str
    host: str
    topology: Topology
    isas: tuple[str, ...]
    memory_bytes: int
    versions: Mapping[str, str]
    free_bytes: int = 0
    shm_bytes: int = 0
    cpu: str = ""
    address: str = ""
    load: float = 0.0
    machine: str = ""
    store_bytes: int = 0
    taken: tuple[int, ...] = ()
    ray_cpus: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The node as a sentence names it: hosts made from one image may all have the same name."""
        return f"{self.host} ({self.address})" if self.address else self.host


def describe_this_node(node_id: str = "", address: str = "", root: Path = Path("/")) -> NodeInfo:
    """The machine that this is called on; `root`: of a recorded tree. It uses neither Ray nor OpenVINO."""
    cpuinfo = read_text(root / "proc/cpuinfo")
    total, free = memory(root)
    return NodeInfo(
        node_id=node_id,
        host=socket.gethostname(),
        topology=read_topology(root / "sys"),
        isas=usable_isas(cpuinfo, os.environ.get(ISA_VARIABLE, "")),
        memory_bytes=total,
        versions=_versions(),
        free_bytes=free,
        shm_bytes=_size(root / "dev/shm"),
        cpu=cpu_model(cpuinfo),
        address=address,
        load=float((read_text(root / "proc/loadavg").split() or ["0"])[0]),
        machine=read_text(root / "proc/sys/kernel/random/boot_id").strip(),
        taken=pinned_by_others(root),
    )


def place_on_nodes(
    nodes: Sequence[NodeInfo],
    n_actors: int | None,
    cores_per_actor: int | None,
    actor_bytes: int = 0,
    shared_bytes: int = 0,
) -> tuple[Placement, ...]:
    """Lay `n_actors` (None: as many as there are cores for) on the machines, `cores_per_actor` cores each (None: as few
    as the memory of each machine allows for actors of `actor_bytes`, beside `shared_bytes` that all of them share).

    Machines get actors in proportion to what they can hold; one with fewer cores than an actor wants gets none.
    Numbers follow the host names, then the nodes' ids; on a machine they follow `place_actors`.
    Of a cluster that others use, too, as many cores as are free, and each actor reserves its part of the CPUs.
    Raises OptionError when no machine can hold an actor, or for numbers below one, MeasureError where no core is free.
    """
    nodes = [_with_less(node, shared_bytes) for node in sorted(nodes, key=lambda node: (node.host, node.node_id))]
    shares_of = {node.node_id: _cpus_per_core(node) for node in nodes}
    nodes = _free(nodes)
    usable = [node.topology.n_usable for node in nodes]
    check_counts(n_actors, 1 if cores_per_actor is None else cores_per_actor, sum(usable), max(usable, default=0))
    sizes = [
        cores_per_actor or cores_for_memory(node.topology.n_usable, node.memory_bytes, actor_bytes) for node in nodes
    ]
    holds = [n // size for n, size in zip(usable, sizes, strict=True)]
    shares = holds if n_actors is None else share_out(n_actors, holds)
    placed = [
        replace(
            placement,
            node=node.node_id,
            spare_bytes=spare_bytes(node, share, actor_bytes),
            reserved=shares_of[node.node_id] * size if share * size <= node.topology.n_usable else 0.0,
        )
        for node, size, share in zip(nodes, sizes, shares, strict=True)
        if share
        for placement in place_actors(node.topology, share, size)
    ]
    return tuple(replace(placement, actor=number) for number, placement in enumerate(placed))


def is_shared(node: NodeInfo) -> bool:
    """Whether others use cores of the machine now."""
    return node.ray_cpus is not None and node.ray_cpus[1] < node.ray_cpus[0]


def _cpus_per_core(node: NodeInfo) -> float:
    """What a physical core counts for Ray, so that all cores that may be used are all CPUs; 0: nothing is reserved."""
    return 0.0 if node.ray_cpus is None else floor(1e4 * node.ray_cpus[0] / max(node.topology.n_usable, 1)) / 1e4


def _free(nodes: Sequence[NodeInfo]) -> list[NodeInfo]:
    """The machines with as many cores as nobody has reserved, those first that no actor is pinned to; without those
    that have none."""
    available = []
    for node in nodes:
        if node.ray_cpus is None:
            available.append(node)
            continue
        per_core = _cpus_per_core(node)
        n_most = floor((node.ray_cpus[1] + 1e-6) / per_core) if per_core else 0
        free = replace(node, topology=node.topology.beside(node.taken, n_most))
        if free.topology.cores:
            available.append(free)
    if not available:
        used = ", ".join(f"{node.label}: {node.topology.n_usable} core(s)" for node in nodes)
        raise MeasureError(
            f"no core of the cluster is free, others have reserved them ({used}); wait until they are done, or "
            "add nodes"
        )
    return available


def cores_for_memory(n_cores: int, memory_bytes: int, actor_bytes: int) -> int:
    """Cores an actor so that as many actors as possible of a machine with `n_cores` fit into its memory.

    Fewer and fatter actors share weights and programs among their threads. Where not even one fits, it is one all the
    same, on all cores: the estimate may be too high, and only trying tells. `actor_bytes` 0: not known, one core.
    """
    fits = int(_MEMORY_SHARE * memory_bytes) // actor_bytes if actor_bytes else n_cores
    cores = next((cores for cores in range(1, n_cores) if n_cores // cores <= fits), n_cores)
    return n_cores // (n_cores // cores)  # no core idle that could widen every actor


def spare_bytes(node: NodeInfo, n_actors: int, actor_bytes: int) -> int:
    """An actor's part of half the memory that is left once `n_actors` of `actor_bytes` run on a machine."""
    left = min(int(_MEMORY_SHARE * node.memory_bytes), node.free_bytes) - n_actors * actor_bytes
    return max(0, left) // 2 // n_actors


def share_out(n_actors: int, holds: Sequence[int]) -> list[int]:
    """`n_actors` over machines in proportion to what each `holds`; ties go to the first."""
    shares = [0] * len(holds)
    loads = [(Fraction(1, hold), i) for i, hold in enumerate(holds) if hold]  # as they would be with one actor more
    heapq.heapify(loads)
    for _ in range(n_actors):
        _, i = loads[0]
        shares[i] += 1
        heapq.heapreplace(loads, (Fraction(shares[i] + 1, holds[i]), i))
    return shares


def _with_less(node: NodeInfo, n_bytes: int) -> NodeInfo:
    """The machine as it is once so many bytes of its memory are taken."""
    free = max(0, node.free_bytes - n_bytes)
    return replace(node, memory_bytes=max(0, node.memory_bytes - n_bytes), free_bytes=free)


def _versions() -> dict[str, str]:
    versions = {"distcalib": __version__}
    for name in ("openvino", "opencv-python-headless", "numpy", "ray"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions | {"python": platform.python_version()}


def _size(folder: Path) -> int:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return 0
    return stat.f_frsize * stat.f_blocks
