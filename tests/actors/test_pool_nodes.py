"""The pool on clusters that are made up: which nodes it takes, and what it does when others join."""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

import distcalib.actors.pool as pool_module
from distcalib.actors import Cargo, Job
from distcalib.actors.cluster import ActorLost
from distcalib.actors.execution import Call
from distcalib.actors.machines import LOST, Survey
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.pool import ActorPool, Environment
from distcalib.actors.topology import Placement
from distcalib.errors import DataError, MeasureError, OptionError
from scripts.simulate.simulated_cluster import SimulatedCluster, no_worker
from tests.actors.echo import Echo
from tests.actors.test_nodes import node


class MadeUp(SimulatedCluster):
    """Machines, and the source of them: two nodes, others that join, and what was asked of them."""

    reserves = False
    joins = True

    def __init__(self) -> None:
        self.infos = [node("a", 2), node("b", 2)]
        super().__init__(Echo(), nodes={info.node_id: info.label for info in self.infos})
        self.mute: dict[str, str] = {}
        self.asked: list[set[str]] = []

    def open(self, n_cpus: int) -> "MadeUp":
        return self

    def join(self, *infos: NodeInfo) -> None:
        self.infos += infos
        self.nodes |= {info.node_id: info.label for info in infos}

    def store_bytes(self) -> dict[str, int]:
        return {"id-b": 7, "id-c": 5}

    def close(self) -> None:
        pass

    def cpus(self) -> dict[str, tuple[float, float]]:
        return {}

    def survey(self, known: Collection[str] = ()) -> Survey:
        self.asked.append(set(known))
        return Survey(tuple(info for info in self.infos if info.node_id not in known), self.mute)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    cluster = MadeUp()
    monkeypatch.setattr(pool_module, "Call", partial(Call, clock=lambda: cluster.clock))
    return cluster


def by_isa(nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
    """Any environment that depends on all nodes; refuses a host called bad."""
    if any(info.host == "bad" for info in nodes):
        raise OptionError("bad: is not wanted; leave it out")
    return {"ISA": min(info.isas[0] for info in nodes)}


def make(made_up: MadeUp, env: Environment | None = by_isa, **options: Any) -> ActorPool:
    return ActorPool(no_worker, made_up, env=env, **options)


def ten_seconds() -> list[Job]:
    """What takes four actors so long."""
    return [Job("a", "a", 40_000, "a")]


def test_pool_lays_actors_on_all_nodes(made_up: MadeUp) -> None:
    with make(made_up) as pool:
        assert [(place.node, place.cpus) for place in pool.placements] == [
            ("id-a", (0,)), ("id-a", (1,)), ("id-b", (0,)), ("id-b", (1,))
        ]  # fmt: skip
        assert pool.n_actors == 4
        assert not pool.oversubscribed
    assert pool.n_actors == 4, "as it was when it was closed"
    with make(made_up, n_actors=5) as pool:
        assert pool.oversubscribed


def test_pool_widens_actors_where_memory_is_short(made_up: MadeUp) -> None:
    made_up.infos[1] = node("b", 2, gb=3)
    with make(made_up, cores_per_actor=None, actor_bytes=2 * 2**30) as pool:
        assert [place.cpus for place in pool.placements] == [(0,), (1,), (0, 1)]
        assert pool.narrowed
    with make(made_up, cores_per_actor=2) as pool:
        assert not pool.narrowed, "it was asked for"


def test_pool_refuses_a_cluster_with_a_node_that_cannot_tell_what_it_is(made_up: MadeUp) -> None:
    made_up.mute = {"c (10.0.0.3)": "cannot tell what it is: No module named 'distcalib'; install it"}
    with pytest.raises(MeasureError, match=r"^c \(10.0.0.3\): cannot tell what it is: .*; install it$"):
        make(made_up)


def test_pool_refuses_what_its_environment_refuses(made_up: MadeUp) -> None:
    made_up.join(node("bad"))
    with pytest.raises(OptionError, match="bad: is not wanted"):
        make(made_up)


@pytest.mark.parametrize(("n_actors", "grows"), [(None, True), (4, False)])
def test_pool_uses_nodes_that_join_from_the_next_run_on(made_up: MadeUp, n_actors: int | None, grows: bool) -> None:
    with make(made_up, n_actors=n_actors) as pool:
        pool.run([])
        before = pool.placements
        assert len(made_up.asked) == 1, "nobody is asked when nothing changed"
        made_up.join(node("c", 1))
        pool.run([])
        pool.run([])
        assert pool.placements == (*before, *([Placement(4, (0,), "id-c")] if grows else []))
        assert made_up.started == ["id-a", "id-a", "id-b", "id-b", *(["id-c"] if grows else [])]
        assert made_up.asked[1:] == [{"id-a", "id-b"}]
        assert [info.host for info in pool.nodes] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("n_actors", "lost", "used"),
    [(None, "", True), (4, "", False), (None, "id-b", False)],
    ids=["used", "so many actors were asked for", "an actor would have to move"],
)
def test_pool_uses_nodes_that_join_in_a_run(made_up: MadeUp, n_actors: int | None, lost: str, used: bool) -> None:
    def meanwhile() -> None:
        if "id-c" not in made_up.nodes and made_up.clock > 1.0:
            made_up.join(node("c", 1))
            if lost:
                made_up.lose(lost)

    with make(made_up, n_actors=n_actors) as pool:
        [result] = pool.run(ten_seconds(), check=meanwhile)
        assert result.rows == tuple(range(40_000))
        assert ("id-c" in {made_up.started[number] for number, method in made_up.log if method == "run"}) == used
        assert len(made_up.asked) == 1 + used, "nobody is asked who would not be used"
        assert {place.node for place in pool.placements[:4]} == {"id-a", "id-b"} - {lost}
        pool.run([])
        assert ("id-c" in made_up.started) == (n_actors is None), "one that moved may move again between two runs"


def test_pool_leaves_a_node_out_where_no_actor_starts(made_up: MadeUp, caplog: pytest.LogCaptureFixture) -> None:
    def no_data(number: int, method: str, arguments: Sequence[Any]) -> DataError | None:
        there = made_up.started[number] == "id-c" and method == "make_worker"
        return DataError("x_lmdb: no such folder") if there else None

    with make(made_up) as pool:
        made_up.faults = no_data
        made_up.join(node("c", 1))
        with caplog.at_level(logging.WARNING):
            pool.run([])
            pool.run([])
        assert [record.getMessage() for record in caplog.records] == [
            "c joined and is not used: x_lmdb: no such folder"
        ]
        assert [info.host for info in pool.nodes] == ["a", "b"]


def test_pool_counts_actors_that_were_given_up(made_up: MadeUp) -> None:
    def no_memory(number: int, method: str, arguments: Sequence[Any]) -> ActorLost | None:
        return ActorLost("no memory", for_memory=True) if (number, method) == (1, "run") else None

    made_up.faults = no_memory
    with make(made_up) as pool:
        pool.run(ten_seconds())
        assert (pool.n_actors, pool.n_retired) == (3, 1)
    assert (pool.n_actors, pool.n_retired) == (3, 1), "as it was when it was closed"


def test_pool_waits_until_a_node_that_has_just_died_is_gone(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.mute = {"c (10.0.0.3)": LOST}
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            made_up.mute = {}

    monkeypatch.setattr("distcalib.actors.pool.time.sleep", pause)
    with make(made_up) as pool:
        assert pool.n_actors == 4
    assert len(pauses) == 3


def test_pool_leaves_nodes_out_that_would_compute_otherwise(made_up: MadeUp, caplog: pytest.LogCaptureFixture) -> None:
    with make(made_up) as pool:
        other = NodeInfo("id-c", "c", node("c").topology, ("AVX2",), 2**34, {})
        made_up.join(other, node("bad"))
        with caplog.at_level(logging.WARNING):
            pool.run([])
            pool.run([])
        assert len(made_up.started) == 4
        assert [record.getMessage() for record in caplog.records] == [
            "c joined and is not used: its CPU is another kind than those that the run began with",
            "bad joined and is not used: bad: is not wanted; leave it out",
        ]
        assert [info.host for info in pool.nodes] == ["a", "b"]


def test_pool_knows_the_object_stores_of_its_nodes(made_up: MadeUp) -> None:
    seen: list[list[int]] = []

    def env(nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
        seen.append([info.store_bytes for info in nodes])
        return {}

    with make(made_up, env) as pool:
        made_up.join(node("c"))
        pool.run([])
    assert seen == [[0, 7], [0, 7, 5]]


def test_pool_stores_its_cargo_once_the_nodes_are_agreed_to(made_up: MadeUp) -> None:
    got: list[object] = []
    asked: list[list[str]] = []

    def note_cargo(number: int, method: str, arguments: Sequence[Any]) -> None:
        if method == "make_worker":
            got.append(arguments[2:])

    made_up.faults = note_cargo

    def pieces(nodes: Sequence[NodeInfo]) -> list[object]:
        asked.append([info.host for info in nodes])
        return ["one", "two"]

    with make(made_up, cargo=Cargo(pieces)):
        pass
    assert (asked, got) == ([["a", "b"]], [("one", "two")] * 4)
    made_up.join(node("bad"))
    with pytest.raises(OptionError, match="bad: is not wanted"):
        make(made_up, cargo=Cargo(pieces))
    assert len(asked) == 1
