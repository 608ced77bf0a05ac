"""Recorded /sys trees, cut down to the files that are read."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from distcalib.errors import OptionError
from distcalib.measure.topology import Core, Topology, parse_cpu_list, place_actors, read_topology

Tree = Mapping[str, str]


def cpu_tree(cores: Mapping[tuple[int, int], str], online: str) -> dict[str, str]:
    """A /sys with the sibling lists of `cores` ((package, core id) -> "0,56"), one NUMA node a package."""
    tree = {"devices/system/cpu/online": online}
    nodes: dict[int, list[str]] = {}
    for (package, _), siblings in cores.items():
        nodes.setdefault(package, []).append(siblings)
        for cpu in parse_cpu_list(siblings):
            folder = f"devices/system/cpu/cpu{cpu}/topology"
            tree |= {f"{folder}/core_cpus_list": siblings, f"{folder}/physical_package_id": str(package)}
    return tree | {f"devices/system/node/node{node}/cpulist": ",".join(cpus) for node, cpus in nodes.items()}


TWO_SOCKETS = cpu_tree({(p, c): f"{p * 28 + c},{p * 28 + c + 56}" for p in (0, 1) for c in range(28)}, "0-111")
FOUR_HYPER = cpu_tree({(0, c): f"{c},{c + 4}" for c in range(4)}, "0-7")
PLAIN = cpu_tree({(0, 0): "0", (0, 1): "1"}, "0-1")


def write_tree(root: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


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
    tmp_path: Path, tree: Tree, affinity: list[int], cpus: list[tuple[int, ...]]
) -> None:
    topology = read_topology(write_tree(tmp_path, tree), affinity, cgroups="")
    assert [core.cpus for core in topology.cores] == cpus
    assert topology.quota is None


def test_read_topology_knows_sockets_and_numa_nodes(tmp_path: Path) -> None:
    cores = read_topology(write_tree(tmp_path, TWO_SOCKETS), range(112), cgroups="").cores
    assert len(cores) == 56
    assert cores[0] == Core((0, 56), package=0, numa_node=0)
    assert cores[55] == Core((55, 111), package=1, numa_node=1)


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
def test_read_topology_reads_the_quota(tmp_path: Path, files: Tree, cgroups: str, quota: float | None) -> None:
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
    ("n_actors", "cores_per_actor", "said"),
    [(0, 1, "--actors 0"), (-1, 1, "--actors -1"), (None, 0, "--cores-per-actor 0"), (1, 3, "from 1 to 2")],
    ids=["no actor", "negative", "no core", "more cores than there are"],
)
def test_place_actors_refuses(n_actors: int | None, cores_per_actor: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        place_actors(topology(2), n_actors, cores_per_actor)
