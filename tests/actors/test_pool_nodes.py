"""The pool on clusters that are made up: which nodes it takes, and what it does when others join."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import distcalib.actors.pool as pool_module
from distcalib.actors import Cargo
from distcalib.actors.node_survey import LOST, Survey
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.pool import ActorPool, Environment
from distcalib.actors.topology import Placement
from distcalib.errors import DataError, MeasureError, OptionError
from tests.actors.test_nodes import node


class MadeUp:
    """The nodes of a cluster, and what was asked of them."""

    def __init__(self) -> None:
        self.nodes = [node("a", 2), node("b", 2)]
        self.silent: dict[str, str] = {}
        self.asked: list[set[str]] = []
        self.home = "id-a"

    @staticmethod
    def joins(address: str | None) -> bool:
        return address is not None

    def live_nodes(self) -> dict[str, str]:
        return {info.node_id: info.label for info in self.nodes}

    def store_bytes(self) -> dict[str, int]:
        return {"id-b": 7, "id-c": 5}

    reserves = False

    def put(self, value: object) -> object:
        return value

    def close(self) -> None:
        pass

    def ask_nodes(self, known: Sequence[str] = ()) -> Survey:
        self.asked.append(set(known))
        return Survey(tuple(info for info in self.nodes if info.node_id not in known), self.silent)


class FakeFleet:
    """Placements, and what was added."""

    is_at_home = True
    n_retired = 0

    def __init__(self, cluster: MadeUp, placements: Sequence[Placement], *rest: object) -> None:
        self.placements = tuple(placements)
        self.extended: list[tuple[tuple[Placement, ...], bool]] = []

    def extend(self, placements: Sequence[Placement], grows: bool) -> None:
        self.extended.append((tuple(placements), grows))

    def clear(self) -> None:
        pass

    def kill(self) -> None:
        pass


class FakeCall:
    """Nothing to do."""

    seconds_per_iteration = None

    def __init__(self, *args: object, on_rows: object, check: object) -> None:
        pass

    def run(self) -> list[Any]:
        return []


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    cluster = MadeUp()

    def connect(address: str | None, n_cpus: int) -> MadeUp:
        return cluster

    connect.joins = MadeUp.joins  # type: ignore[attr-defined]
    monkeypatch.setattr(pool_module, "Cluster", connect)
    monkeypatch.setattr(pool_module, "ask_nodes", cluster.ask_nodes)
    monkeypatch.setattr(pool_module, "Fleet", FakeFleet)
    monkeypatch.setattr(pool_module, "Call", FakeCall)
    return cluster


def by_isa(nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
    """Any environment that depends on all nodes; refuses a host called bad."""
    if any(info.host == "bad" for info in nodes):
        raise OptionError("bad: is not wanted; leave it out")
    return {"ISA": min(info.isas[0] for info in nodes)}


def make(env: Environment | None = by_isa, **options: Any) -> ActorPool:
    factory: Any = None
    return ActorPool(factory, env=env, address="auto", **options)


def fleet(pool: ActorPool) -> FakeFleet:
    found: Any = pool._fleet
    assert isinstance(found, FakeFleet)
    return found


def test_pool_lays_actors_on_all_nodes(made_up: MadeUp) -> None:
    with make() as pool:
        assert [(place.node, place.cpus) for place in pool.placements] == [
            ("id-a", (0,)), ("id-a", (1,)), ("id-b", (0,)), ("id-b", (1,))
        ]  # fmt: skip
        assert pool.n_actors == 4
        assert not pool.oversubscribed
    assert pool.n_actors == 4, "as it was when it was closed"
    with make(n_actors=5) as pool:
        assert pool.oversubscribed


def test_pool_widens_actors_where_memory_is_short(made_up: MadeUp) -> None:
    made_up.nodes[1] = node("b", 2, gb=3)
    with make(cores_per_actor=None, actor_bytes=2 * 2**30) as pool:
        assert [place.cpus for place in pool.placements] == [(0,), (1,), (0, 1)]
        assert pool.narrowed
    with make(cores_per_actor=2) as pool:
        assert not pool.narrowed, "it was asked for"


def test_pool_refuses_a_cluster_with_a_node_that_cannot_tell_what_it_is(made_up: MadeUp) -> None:
    made_up.silent = {"c (10.0.0.3)": "cannot tell what it is: No module named 'distcalib'; install it"}
    with pytest.raises(MeasureError, match=r"^c \(10.0.0.3\): cannot tell what it is: .*; install it$"):
        make()


def test_pool_refuses_what_its_environment_refuses(made_up: MadeUp) -> None:
    made_up.nodes.append(node("bad"))
    with pytest.raises(OptionError, match="bad: is not wanted"):
        make()


@pytest.mark.parametrize(("n_actors", "grows"), [(None, True), (4, False)])
def test_pool_uses_nodes_that_join_from_the_next_run_on(made_up: MadeUp, n_actors: int | None, grows: bool) -> None:
    with make(n_actors=n_actors) as pool:
        pool.run([])
        assert fleet(pool).extended == []
        assert len(made_up.asked) == 1, "nobody is asked when nothing changed"
        made_up.nodes.append(node("c", 1))
        pool.run([])
        pool.run([])
        assert fleet(pool).extended == [((Placement(0, (0,), "id-c"),), grows)]
        assert made_up.asked[1:] == [{"id-a", "id-b"}]
        assert [info.host for info in pool.nodes] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("n_actors", "at_home", "used"),
    [(None, True, True), (4, True, False), (None, False, False)],
    ids=["used", "so many actors were asked for", "an actor would have to move"],
)
def test_pool_uses_nodes_that_join_in_a_run(
    made_up: MadeUp, monkeypatch: pytest.MonkeyPatch, n_actors: int | None, at_home: bool, used: bool
) -> None:
    class Joining(FakeCall):
        def __init__(self, *args: Any, on_rows: object, check: object) -> None:
            self.look = args[-1]

        def run(self) -> list[Any]:
            self.look()
            made_up.nodes.append(node("c", 1))
            self.look()
            return []

    monkeypatch.setattr(pool_module, "Call", Joining)
    with make(n_actors=n_actors) as pool:
        fleet(pool).is_at_home = at_home
        pool.run([])
        assert len(fleet(pool).extended) == used


def test_pool_leaves_a_node_out_where_no_actor_starts(
    made_up: MadeUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("x_lmdb: no such folder")

    with make() as pool:
        monkeypatch.setattr(FakeFleet, "extend", refuse)
        made_up.nodes.append(node("c", 1))
        with caplog.at_level(logging.WARNING):
            pool.run([])
            pool.run([])
        assert [record.getMessage() for record in caplog.records] == [
            "c joined and is not used: x_lmdb: no such folder"
        ]
        assert [info.host for info in pool.nodes] == ["a", "b"]


def test_pool_counts_actors_that_were_given_up(made_up: MadeUp) -> None:
    with make() as pool:
        fleet(pool).n_retired = 1
        assert (pool.n_actors, pool.n_retired) == (3, 1)
    assert (pool.n_actors, pool.n_retired) == (3, 1), "as it was when it was closed"


def test_pool_waits_until_a_node_that_has_just_died_is_gone(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up.silent = {"c (10.0.0.3)": LOST}
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            made_up.silent = {}

    monkeypatch.setattr("distcalib.actors.pool.time.sleep", pause)
    with make() as pool:
        assert pool.n_actors == 4
    assert len(pauses) == 3


def test_pool_leaves_nodes_out_that_would_compute_otherwise(made_up: MadeUp, caplog: pytest.LogCaptureFixture) -> None:
    with make() as pool:
        other = NodeInfo("id-c", "c", node("c").topology, ("AVX2",), 2**34, {})
        made_up.nodes += [other, node("bad")]
        with caplog.at_level(logging.WARNING):
            pool.run([])
            pool.run([])
        assert fleet(pool).extended == []
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

    with make(env) as pool:
        made_up.nodes.append(node("c"))
        pool.run([])
    assert seen == [[0, 7], [0, 7, 5]]


def test_pool_stores_its_cargo_once_the_nodes_are_agreed_to(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []
    asked: list[list[str]] = []

    def start(*args: Any) -> FakeFleet:
        got.append(args[5])
        return FakeFleet(*args)

    monkeypatch.setattr(pool_module, "Fleet", start)

    def pieces(nodes: Sequence[NodeInfo]) -> list[object]:
        asked.append([info.host for info in nodes])
        return ["one", "two"]

    with make(cargo=Cargo(pieces)):
        pass
    assert (asked, got) == ([["a", "b"]], [["one", "two"]])
    made_up.nodes.append(node("bad"))
    with pytest.raises(OptionError, match="bad: is not wanted"):
        make(cargo=Cargo(pieces))
    assert len(asked) == 1
