"""Clusters of made-up machines, and what actors they get."""

import os
import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest

from distcalib.actors.nodes import (
    NodeInfo,
    cores_for_memory,
    describe_this_node,
    is_shared,
    place_on_nodes,
    share_out,
)
from distcalib.actors.topology import Core, Topology
from distcalib.errors import MeasureError, OptionError
from tests.every import every

GB = 2**30


def node(host: str, n_cores: int = 4, *, node_id: str = "", n_numa: int = 1, gb: int = 192) -> NodeInfo:
    cores = tuple(Core((i,), package=0, numa_node=i * n_numa // n_cores) for i in range(n_cores))
    return NodeInfo(node_id or f"id-{host}", host, Topology(cores, None), ("AVX512_CORE",), gb * GB, {})


def laid(nodes: Sequence[NodeInfo], n_actors: int | None, cores: int | None) -> dict[str, list[tuple[int, ...]]]:
    found: dict[str, list[tuple[int, ...]]] = {}
    for placement in place_on_nodes(nodes, n_actors, cores):
        found.setdefault(placement.node, []).append(placement.cpus)
    return found


def test_describe_this_node_is_this_machine() -> None:
    info = describe_this_node("0a1b", "10.0.0.7")
    assert info.node_id == "0a1b"
    assert info.label == f"{os.uname().nodename} (10.0.0.7)"
    assert describe_this_node().label == os.uname().nodename
    assert info.host == os.uname().nodename
    assert {cpu for core in info.topology.cores for cpu in core.cpus} == os.sched_getaffinity(0)
    assert info.memory_bytes >= info.free_bytes > 0
    assert info.shm_bytes > 0
    assert list(info.versions) == ["distcalib", "openvino", "opencv-python-headless", "numpy", "ray", "python"]
    assert "missing" not in info.versions.values()
    assert pickle.loads(pickle.dumps(info)) == info


def test_place_on_nodes_numbers_actors_by_host_whatever_the_order_of_nodes() -> None:
    nodes = [node("b", 2), node("a", 2, node_id="2"), node("a", 1, node_id="1")]
    placements = place_on_nodes(nodes, None, 1)
    assert [(p.actor, p.node, p.cpus) for p in placements] == [
        (0, "1", (0,)), (1, "2", (0,)), (2, "2", (1,)), (3, "id-b", (0,)), (4, "id-b", (1,))
    ]  # fmt: skip
    assert place_on_nodes(nodes[::-1], None, 1) == placements


@pytest.mark.parametrize(
    ("nodes", "n_actors", "cores", "expected"),
    [
        ([node("a", 4, n_numa=2)], None, 2, {"id-a": [(0, 1), (2, 3)]}),
        ([node("a", 4, n_numa=2), node("b", 2)], 3, 1, {"id-a": [(0,), (2,)], "id-b": [(0,)]}),
        ([node("a", 4), node("b", 2)], 3, 1, {"id-a": [(0,), (1,)], "id-b": [(0,)]}),
        ([node("a", 4), node("b", 1)], None, 2, {"id-a": [(0, 1), (2, 3)]}),
        ([node("a", 1), node("b", 1)], 4, 1, {"id-a": [(0,), (0,)], "id-b": [(0,), (0,)]}),
        ([node("a", 4), node("b", 4)], 1, 1, {"id-a": [(0,)]}),
    ],
    ids=["two each", "NUMA nodes", "in proportion", "too small a node", "oversubscribed", "one actor"],
)
def test_place_on_nodes_shares_actors_out(
    nodes: list[NodeInfo], n_actors: int | None, cores: int, expected: dict[str, list[tuple[int, ...]]]
) -> None:
    assert laid(nodes, n_actors, cores) == expected


def test_place_on_nodes_takes_fewer_and_fatter_actors_where_memory_is_short() -> None:
    nodes = [node("a", 4, gb=64), node("b", 4, gb=10), node("c", 4, gb=2)]
    placements = place_on_nodes(nodes, None, None, actor_bytes=4 * GB)
    assert [(p.node, p.cpus) for p in placements] == [
        ("id-a", (0,)), ("id-a", (1,)), ("id-a", (2,)), ("id-a", (3,)),
        ("id-b", (0, 1)), ("id-b", (2, 3)),
        ("id-c", (0, 1, 2, 3)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gb", "free_gb", "n_actors", "spare"),
    [(100, 100, 4, 8 * GB), (100, 60, 4, 5.5 * GB), (100, 100, 1, 38 * GB), (100, 16, 4, 0), (20, 20, 4, 0)],
    ids=["a part of the machine's is nobody's", "others work there", "one actor", "all is needed", "more is needed"],
)
def test_place_on_nodes_tells_actors_what_is_left(gb: int, free_gb: int, n_actors: int, spare: float) -> None:
    machine = replace(node("a", 4, gb=gb), free_bytes=free_gb * GB)
    placements = place_on_nodes([machine], n_actors, 1, actor_bytes=4 * GB)
    assert [placement.spare_bytes for placement in placements] == [int(spare)] * n_actors


def test_place_on_nodes_takes_what_all_share_off_first() -> None:
    machine = replace(node("a", 4, gb=100), free_bytes=90 * GB)
    less = replace(node("a", 4, gb=60), free_bytes=50 * GB)
    for cores in (1, None):
        shared = place_on_nodes([machine], None, cores, actor_bytes=20 * GB, shared_bytes=40 * GB)
        assert shared == place_on_nodes([less], None, cores, actor_bytes=20 * GB)
    assert len(shared) == 2
    assert len(place_on_nodes([machine], None, None, actor_bytes=20 * GB)) == 4


@pytest.mark.parametrize(
    ("n_actors", "cores", "said"),
    [
        (0, 1, "--actors 0"),
        (None, 5, "--cores-per-actor 5: an actor may use 4 .* from 1 to 4"),
        (None, 0, "--cores-per-actor 0"),
        (64 * 6 + 1, None, "more than 64 for each of 6 physical"),
    ],
    ids=["no actor", "wider than any node", "no core", "far too many"],
)
def test_place_on_nodes_refuses(n_actors: int | None, cores: int | None, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        place_on_nodes([node("a", 4), node("b", 2)], n_actors, cores)


@pytest.mark.parametrize(
    ("n_cores", "memory_gb", "actor_gb", "cores"),
    [(28, 192, 0, 1), (28, 192, 1, 1), (28, 32, 1, 2), (28, 16, 1, 3), (28, 4, 3, 28), (28, 1, 3, 28), (1, 1, 9, 1)],
    ids=["unknown", "plenty", "25 fit", "12 fit", "one fits", "none fits", "one core"],
)
def test_cores_for_memory(n_cores: int, memory_gb: int, actor_gb: int, cores: int) -> None:
    assert cores_for_memory(n_cores, memory_gb * GB, actor_gb * GB) == cores


@pytest.mark.parametrize(
    ("n_actors", "holds", "shares"),
    [(3, [2, 2], [2, 1]), (3, [4, 2], [2, 1]), (5, [0, 1, 4], [0, 1, 4]), (6, [1, 1], [3, 3]), (10, [28, 56], [3, 7])],
    ids=["tie", "proportion", "none held", "over", "larger"],
)
def test_share_out_is_in_proportion(n_actors: int, holds: list[int], shares: list[int]) -> None:
    assert share_out(n_actors, holds) == shares


def in_use(total: float, free: float, taken: tuple[int, ...] = (), n_cores: int = 4) -> NodeInfo:
    cores = tuple(Core((2 * i, 2 * i + 1), 0, 0, 2) for i in range(n_cores))
    return NodeInfo(
        "id", "host", Topology(cores, None, n_cores), (), 2**40, {}, 2**40, taken=taken, ray_cpus=(total, free)
    )


@pytest.mark.parametrize(
    ("node", "cpus"),
    [
        pytest.param(in_use(8, 8), [(0,), (2,), (4,), (6,)], id="all_free"),
        pytest.param(in_use(8, 6, (0, 1)), [(2,), (4,), (6,)], id="one_core_is_pinned"),
        pytest.param(in_use(8, 4), [(0,), (2,)], id="half_is_reserved"),
        pytest.param(in_use(8, 4, (2,)), [(0,), (4,)], id="what_is_pinned_comes_last"),
        pytest.param(in_use(2, 1), [(0,), (2,)], id="started_with_fewer_cpus"),
    ],
)
def test_place_on_nodes_leaves_cores_to_others(node: NodeInfo, cpus: list[tuple[int, ...]]) -> None:
    placements = place_on_nodes([node], None, 1)
    assert [placement.cpus for placement in placements] == cpus
    assert node.ray_cpus is not None
    assert every(placement.reserved == node.ray_cpus[0] / 4 for placement in placements)
    assert sum(placement.reserved for placement in placements) <= node.ray_cpus[1]


def test_place_on_nodes_names_a_cluster_without_a_free_core() -> None:
    for node in (in_use(8, 0.5), in_use(0, 0)):
        with pytest.raises(MeasureError, match=r"no core of the cluster is free, .* reserved them \(host: 4 core"):
            place_on_nodes([node], None, 1)


def test_actors_that_share_cores_reserve_nothing() -> None:
    assert {placement.reserved for placement in place_on_nodes([in_use(8, 8)], 6, 1)} == {0.0}


def test_is_shared_tells_whether_others_are_there() -> None:
    assert [is_shared(node) for node in (in_use(8, 8), in_use(8, 7), in_use(8, 8, (1,)))] == [False, True, False]
