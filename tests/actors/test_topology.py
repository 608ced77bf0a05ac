"""Recorded /sys trees, cut down to the files that are read."""

import os
from collections import Counter
from pathlib import Path

import pytest

from distcalib.actors.topology import Core, Topology, parse_cpu_list, place_actors, read_topology
from distcalib.errors import OptionError
from tests.actors.machines import read_machine, write_tree

PLAIN = {
    "devices/system/cpu/online": "0-1",
    "devices/system/cpu/cpu0/topology/core_cpus_list": "0",
    "devices/system/cpu/cpu1/topology/core_cpus_list": "1",
}
FOUR_HYPER = {"devices/system/cpu/online": "0-7"} | {
    f"devices/system/cpu/cpu{cpu}/topology/core_cpus_list": f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)
}


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("0\n", (0,)), ("0-2,7", (0, 1, 2, 7)), ("3,7-9\n", (3, 7, 8, 9)), ("5,1", (1, 5))],
    ids=["empty", "one", "range", "container", "unsorted"],
)
def test_parse_cpu_list_reads_the_kernels_format(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("tree", "affinity", "cpus"),
    [
        (PLAIN, range(2), [(0,), (1,)]),
        (FOUR_HYPER, range(8), [(0, 4), (1, 5), (2, 6), (3, 7)]),
        (FOUR_HYPER, [3, 7, 4, 5], [(3, 7), (4,), (5,)]),
        (FOUR_HYPER | {"devices/system/cpu/online": "0-2,4-5,7"}, range(8), [(0, 4), (1, 5), (2,), (7,)]),
        ({"devices/system/cpu/online": "0-3"}, [1, 2], [(1,), (2,)]),
        ({}, [0, 5], [(0,), (5,)]),
        (
            {name.replace("core_cpus_list", "thread_siblings_list"): text for name, text in FOUR_HYPER.items()},
            range(8),
            [(0, 4), (1, 5), (2, 6), (3, 7)],
        ),
    ],
    ids=["plain", "hyper-threads", "affinity subset", "offline CPUs", "no topology", "no /sys", "kernel before 5.3"],
)
def test_read_topology_finds_cores_and_siblings(
    tmp_path: Path, tree: dict[str, str], affinity: list[int], cpus: list[tuple[int, ...]]
) -> None:
    topology = read_topology(write_tree(tmp_path, tree), affinity, cgroups="")
    assert [core.cpus for core in topology.cores] == cpus
    assert topology.quota is None


@pytest.mark.parametrize(
    ("name", "n_machine", "sockets", "numa_nodes", "n_cores", "n_cpus", "n_threads", "quota", "offline"),
    [
        ("skylake-2x28", 56, 2, 2, 56, 56, {1}, None, ()),
        ("skylake-2x28-hyper-threads", 56, 2, 2, 56, 112, {2}, None, ()),
        ("skylake-2x28-alternating", 56, 2, 2, 56, 112, {2}, None, ()),
        ("skylake-4x24", 96, 4, 4, 96, 192, {2}, None, ()),
        ("skylake-2x28-sub-numa", 56, 2, 4, 56, 112, {2}, None, ()),
        ("container-cpus-3-7-9", 10, 1, 1, 4, 4, {2}, None, ()),
        ("container-quota-1.5", 10, 1, 1, 10, 20, {2}, 1.5, ()),
        ("container-quota-1.5-v1", 10, 1, 1, 10, 20, {2}, 1.5, ()),
        ("offline-cpus", 9, 1, 1, 9, 14, {1, 2}, None, (9, 10, 11, 12, 13, 19)),
    ],
)
def test_read_topology_knows_recorded_machines(
    tmp_path: Path, name: str, n_machine: int, sockets: int, numa_nodes: int, n_cores: int, n_cpus: int,
    n_threads: set[int], quota: float | None, offline: tuple[int, ...],
) -> None:  # fmt: skip
    found = read_machine(name).topology(tmp_path)
    assert found.n_machine == n_machine
    assert len({core.package for core in found.cores}) == sockets
    assert len({(core.package, core.numa_node) for core in found.cores}) == numa_nodes
    assert len({core.numa_node for core in found.cores}) == numa_nodes
    assert len(found.cores) == n_cores
    assert sum(len(core.cpus) for core in found.cores) == n_cpus
    assert {core.n_threads for core in found.cores} == n_threads
    assert (found.quota, found.offline) == (quota, offline)


def test_read_topology_names_cpus_sockets_and_nodes_of_cores(tmp_path: Path) -> None:
    cores = read_machine("skylake-2x28-sub-numa").topology(tmp_path / "clustered").cores
    assert cores[4] == Core((4, 60), package=0, numa_node=1, n_threads=2)
    assert cores[31] == Core((31, 87), package=1, numa_node=2, n_threads=2)
    limited = read_machine("container-cpus-3-7-9").topology(tmp_path / "container").cores
    assert [core.cpus for core in limited] == [(3,), (7,), (8,), (9,)]
    switched_off = read_machine("offline-cpus").topology(tmp_path / "offline").cores
    assert switched_off[3:5] == (Core((3,), 0, 0, n_threads=1), Core((4, 14), 0, 0, n_threads=2))


V1 = "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n"


@pytest.mark.parametrize(
    ("files", "cgroups", "quota"),
    [
        ({"cpu.max": "150000 100000"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, "0::/a/b\n", 3.0),
        ({"cpu.max": "200000 100000"}, "0::/../host/kubepods/pod1\n", 2.0),
        ({"unified/cpu.max": "150000 100000"}, "0::/\n", 1.5),
        ({"cpu,cpuacct/box/cpu.cfs_quota_us": "150000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"}, V1, 1.5),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, V1, 1.5),
        ({"cpu,cpuacct/box/cpu.cfs_quota_us": "-1", "cpu,cpuacct/box/cpu.cfs_period_us": "100000"}, V1, None),
        ({"memory/box/cpu.cfs_quota_us": "1", "memory/box/cpu.cfs_period_us": "1"}, V1, None),
        ({}, "", None),
    ],
    ids=[
        "v2", "v2 no limit", "v2 tightest ancestor", "v2 path of the host", "v2 hybrid",
        "v1", "v1 container root", "v1 no limit", "v1 other controller", "none",
    ],
)  # fmt: skip
def test_read_topology_reads_the_quota(
    tmp_path: Path, files: dict[str, str], cgroups: str, quota: float | None
) -> None:
    tree = PLAIN | {f"fs/cgroup/{name}": text for name, text in files.items()}
    assert read_topology(write_tree(tmp_path, tree), range(2), cgroups).quota == quota


def test_read_topology_of_this_machine_is_within_the_affinity() -> None:
    cpus = [cpu for core in read_topology().cores for cpu in core.cpus]
    assert set(cpus) == os.sched_getaffinity(0)
    assert len(cpus) == len(set(cpus))


def topology(n_cores: int, quota: float | None = None) -> Topology:
    """Hyper-threaded cores: core i has the CPUs i and i + 100."""
    return Topology(tuple(Core((i, i + 100), package=0, numa_node=0) for i in range(n_cores)), quota)


@pytest.mark.parametrize(
    ("topology", "n_actors", "cores_per_actor", "cpus"),
    [
        (topology(3), None, 1, [(0,), (1,), (2,)]),
        (topology(5), None, 2, [(0, 1), (2, 3)]),
        (topology(4), 1, 1, [(0,)]),
        (topology(2), 3, 1, [(0,), (1,), (0,)]),
        (topology(3), 2, 2, [(0, 1), (0, 2)]),
        (topology(4, quota=1.5), None, 1, [(0,)]),
        (topology(4, quota=0.5), None, 1, [(0,)]),
        (topology(4, quota=2.9), None, 1, [(0,), (1,)]),
        (topology(4, quota=64), None, 2, [(0, 1), (2, 3)]),
    ],
    ids=["all", "two each", "fewer", "wrapped", "wrapped twos", "quota", "quota < 1", "quota 2.9", "quota unfelt"],
)
def test_place_actors_uses_first_siblings_of_whole_cores(
    topology: Topology, n_actors: int | None, cores_per_actor: int, cpus: list[tuple[int, ...]]
) -> None:
    placements = place_actors(topology, n_actors, cores_per_actor)
    assert [placement.cpus for placement in placements] == cpus
    assert [placement.actor for placement in placements] == list(range(len(cpus)))
    assert {placement.n_threads for placement in placements} == {cores_per_actor}


@pytest.mark.parametrize(
    ("name", "n_actors", "cores_per_actor", "first", "by_node"),
    [
        ("skylake-2x28", 4, 1, [(0,), (28,), (1,), (29,)], {0: 2, 1: 2}),
        ("skylake-2x28-hyper-threads", None, 1, [(0,), (28,), (1,), (29,)], {0: 28, 1: 28}),
        ("skylake-2x28-alternating", 3, 2, [(0, 2), (1, 3), (4, 6)], {0: 2, 1: 1}),
        ("skylake-2x28-alternating", None, 14, [], {0: 2, 1: 2}),
        ("skylake-4x24", 6, 4, [(0, 1, 2, 3), (24, 25, 26, 27), (48, 49, 50, 51)], {0: 2, 1: 2, 2: 1, 3: 1}),
        ("skylake-2x28-sub-numa", 3, 2, [(0, 1), (28, 29), (4, 5)], {0: 1, 1: 1, 2: 1}),
        ("skylake-2x28-sub-numa", None, 4, [(0, 1, 2, 3)], {0: 3, 1: 3, 2: 3, 3: 3, (0, 1): 1, (2, 3): 1}),
        ("skylake-2x28-sub-numa", None, 28, [], {(0, 1): 1, (2, 3): 1}),
        ("skylake-2x28", None, 56, [tuple(range(56))], {(0, 1): 1}),
        ("container-cpus-3-7-9", None, 1, [(3,), (7,), (8,), (9,)], {0: 4}),
        ("container-quota-1.5", None, 1, [(0,)], {0: 1}),
        ("offline-cpus", None, 4, [(0, 1, 2, 3), (4, 5, 6, 7)], {0: 2}),
    ],
)  # fmt: skip
def test_place_actors_fills_numa_nodes_evenly_and_keeps_actors_in_one(
    tmp_path: Path, name: str, n_actors: int | None, cores_per_actor: int, first: list[tuple[int, ...]],
    by_node: dict[object, int],
) -> None:  # fmt: skip
    found = read_machine(name).topology(tmp_path)
    node_of = {core.cpus[0]: core.numa_node for core in found.cores}
    placements = place_actors(found, n_actors, cores_per_actor)
    assert [placement.cpus for placement in placements][: len(first)] == first
    nodes = [tuple(sorted({node_of[cpu] for cpu in placement.cpus})) for placement in placements]
    assert Counter(node[0] if len(node) == 1 else node for node in nodes) == by_node
    cpus = [cpu for placement in placements for cpu in placement.cpus]
    assert len(cpus) == len(set(cpus)) == len(placements) * cores_per_actor, "cores are shared"


@pytest.mark.parametrize(
    ("n_actors", "cores_per_actor", "said"),
    [(0, 1, "--actors 0"), (-1, 1, "--actors -1"), (None, 0, "--cores-per-actor 0"), (1, 3, "from 1 to 2")],
    ids=["no actor", "negative", "no core", "more cores than there are"],
)
def test_place_actors_refuses(n_actors: int | None, cores_per_actor: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        place_actors(topology(2), n_actors, cores_per_actor)
