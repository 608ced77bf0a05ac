"""Read which physical cores this process may use, and lay actors out on them.

Parsing is pure: everything is read below a root that stands for `/sys`, so a recorded tree tests it. The CPU *set* of
a container needs no parsing of its own, for sched_getaffinity already answers within it; the CPU *quota* does, because
a process limited to 1.5 CPUs still sees every core: two pinned actors would be stopped by turns, neither timed right.

Hyper-thread siblings share the multiply units, so a core counts once and only its first usable sibling gets work. An
actor's memory is that of its NUMA node because it is pinned before it allocates (docs/decisions/011)."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from distcalib.actors.machine import ancestors
from distcalib.errors import OptionError

MOST_A_CORE = 64  # actors: more would only wait, and each is a process of its own


@dataclass(frozen=True)
class Core:
    """One physical core; `cpus` are the logical CPUs of it that this process may use, ascending, never empty.

    `n_threads` counts all that are online, used by whom they may.
    """

    cpus: tuple[int, ...]
    package: int
    numa_node: int
    n_threads: int = 1


@dataclass(frozen=True)
class Topology:
    """The usable physical cores in the order of their first CPU, and the CPU quota in CPUs (None: no limit).

    `n_machine`: all physical cores that are online, usable or not; `offline`: logical CPUs that are present but not.
    """

    cores: tuple[Core, ...]
    quota: float | None
    n_machine: int = 0
    offline: tuple[int, ...] = ()

    def beside(self, taken: Collection[int], n_most: int) -> "Topology":
        """At most `n_most` of the cores, those first of which no CPU is `taken`."""
        used = set(taken)
        wanted = sorted(self.cores, key=lambda core: bool(used.intersection(core.cpus)))[:n_most]
        return replace(self, cores=tuple(sorted(wanted, key=lambda core: core.cpus)))

    @property
    def n_usable(self) -> int:
        """Cores that can be busy at a time: a quota of 1.5 CPUs is one; never less than one."""
        if self.quota is None:
            return len(self.cores)
        return max(1, min(len(self.cores), int(self.quota)))


@dataclass(frozen=True)
class Placement:
    """Where actor number `actor` runs: one logical CPU for each of its cores, ascending.

    `node` is the id in hex of the Ray node, "" for the driver's machine. `spare_bytes`: of memory there, which it may
    fill with what it would else have to make again.
    """

    actor: int
    cpus: tuple[int, ...]
    node: str = ""
    spare_bytes: int = 0
    reserved: float = 0.0
    """Of the CPUs of its node, as Ray counts them: what it keeps from others."""

    @property
    def n_threads(self) -> int:
        """Threads that the engine of this actor should have."""
        return len(self.cpus)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of the kernel's list format ("0-2,7" -> 0, 1, 2, 7), ascending; an empty text is no CPU."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus))


def read_topology(
    root: Path = Path("/sys"), affinity: Iterable[int] | None = None, cgroups: str | None = None
) -> Topology:
    """The cores below `root` that `affinity` (default: this process's) and the cgroup quota leave.

    `cgroups` is the text of /proc/self/cgroup (default: read). A CPU without a topology folder, as in some
    containers, is taken for a core of its own: too many cores is the kernel's default too.
    """
    usable = set(os.sched_getaffinity(0) if affinity is None else affinity)
    cpu_root = root / "devices/system/cpu"
    online = set(parse_cpu_list(_read(cpu_root / "online") or "")) or usable
    nodes = _numa_nodes(root / "devices/system/node")
    cores: list[Core] = []
    taken: set[int] = set()
    n_machine = 0
    for cpu in sorted(online):
        if cpu in taken:
            continue
        n_machine += 1
        folder = cpu_root / f"cpu{cpu}/topology"
        siblings = online & {cpu, *_siblings(folder)}
        taken |= siblings
        if mine := tuple(sorted(siblings & usable)):
            package = int(_read(folder / "physical_package_id") or 0)
            cores.append(Core(mine, package, nodes.get(mine[0], 0), len(siblings)))
    cores.sort(key=lambda core: core.cpus)
    present = set(parse_cpu_list(_read(cpu_root / "present") or ""))
    quota = _quota(root / "fs/cgroup", _own_cgroups() if cgroups is None else cgroups)
    return Topology(tuple(cores), quota, n_machine, tuple(sorted(present - online)))


def place_actors(topology: Topology, n_actors: int | None, cores_per_actor: int) -> tuple[Placement, ...]:
    """Lay `n_actors` (None: as many as there are usable cores for) on whole cores, `cores_per_actor` each.

    NUMA nodes are filled evenly, sockets first, and an actor lies in one of them wherever its cores fit into one.
    More actors than cores are allowed and then share them, wrapping round: results are the same, only slower.
    Raises OptionError when a single actor cannot have its cores, or for a number below one.
    """
    available = topology.n_usable
    check_counts(n_actors, cores_per_actor, available, available)
    n = n_actors or available // cores_per_actor
    cores = _filling_order(topology.cores, cores_per_actor)
    starts = [actor * cores_per_actor for actor in range(n)]
    return tuple(
        Placement(actor, tuple(sorted(cores[(start + i) % len(cores)].cpus[0] for i in range(cores_per_actor))))
        for actor, start in enumerate(starts)
    )


def check_counts(n_actors: int | None, cores_per_actor: int, n_cores: int, most_cores: int) -> None:
    """OptionError unless actors can be laid on `n_cores` physical cores, of which a single machine has `most_cores`."""
    if not 1 <= cores_per_actor <= most_cores:
        raise OptionError(
            f"--cores-per-actor {cores_per_actor}: an actor may use {most_cores} physical core(s); "
            f"give a number from 1 to {most_cores}"
        )
    if n_actors is not None and n_actors < 1:
        raise OptionError(f"--actors {n_actors}: must be at least 1; leave it out to use every core")
    if n_actors is not None and n_actors > MOST_A_CORE * n_cores:
        raise OptionError(
            f"--actors {n_actors}: is more than {MOST_A_CORE} for each of {n_cores} physical core(s); leave it out "
            "to use every core"
        )


def _filling_order(cores: Sequence[Core], size: int) -> list[Core]:
    """`cores` in the order in which actors of `size` cores take them.

    Each NUMA node is cut into groups of `size`, which are taken from the nodes by turns, from another socket each time.
    What is left of each node comes last: groups that span nodes, then the cores that make no group.
    """
    nodes: dict[tuple[int, int], list[Core]] = {}
    for core in cores:
        nodes.setdefault((core.package, core.numa_node), []).append(core)
    packages: dict[int, list[list[Core]]] = {}
    for (package, _), members in sorted(nodes.items()):
        packages.setdefault(package, []).append(members)
    turns = [node for rank in zip_longest(*packages.values()) for node in rank if node is not None]
    groups = [[node[i : i + size] for i in range(0, len(node) - size + 1, size)] for node in turns]
    whole = [core for rank in zip_longest(*groups) for group in rank if group is not None for core in group]
    taken = set(whole)
    return whole + [core for _, members in sorted(nodes.items()) for core in members if core not in taken]


def _siblings(folder: Path) -> tuple[int, ...]:
    """All logical CPUs of the core whose topology folder this is; the second name is that of kernels before 5.3."""
    return parse_cpu_list(_read(folder / "core_cpus_list") or _read(folder / "thread_siblings_list") or "")


def _numa_nodes(folder: Path) -> dict[int, int]:
    return {
        cpu: int(node.name.removeprefix("node"))
        for node in sorted(folder.glob("node[0-9]*"))
        for cpu in parse_cpu_list(_read(node / "cpulist") or "")
    }


def _quota(root: Path, cgroups: str) -> float | None:
    """The tightest quota of the process's cgroups and their ancestors, in CPUs; lines are "id:controllers:path".

    Version 2 has an empty controller list and `cpu.max` ("150000 100000" or "max 100000"); version 1 names the
    controller `cpu` and has `cpu.cfs_quota_us` (-1: none). See cgroup-v2.rst and sched-bwc.rst of the kernel.
    """
    quotas: list[float] = []
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [root, root / "unified"] if not controllers else [root / controllers, root / "cpu"]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in (folder for mount in mounts for folder in ancestors(mount, path)):
            quotas.extend(_folder_quota(folder))
    return min(quotas, default=None)


def _folder_quota(folder: Path) -> Iterator[float]:
    fields = (_read(folder / "cpu.max") or "").split()
    if not fields:
        fields = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit():
        yield int(fields[0]) / int(fields[1])


def _own_cgroups() -> str:
    return _read(Path("/proc/self/cgroup")) or ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
