"""A fleet of actors that are no processes: what it asks of whom."""

from typing import Any, cast

import pytest

from distcalib.actors import Placement
from distcalib.actors.actor import Outcome
from distcalib.actors.fleet import Fleet, error_of
from distcalib.actors.ray_cluster import ActorLost, Cluster
from distcalib.errors import DataError, DistcalibError, EngineError, MeasureError


class Listening:
    """A cluster, and each of its actors: what was called is written down and answered at once."""

    def __init__(self) -> None:
        self.called: list[tuple[int, str]] = []
        self.n_actors = 0
        self.started: list[str] = []
        self.answering = ["a", "b", "c"]
        self.home = "a"
        self.oom_kills = 7

    def put(self, value: object) -> object:
        return value

    def get(self, ref: Outcome) -> Outcome:
        return ref

    def start_actor(self, node: str = "", n_cpus: float = 0.0) -> Any:
        number, self.n_actors = self.n_actors, self.n_actors + 1
        self.started.append(node)
        return ListeningActor(self, number)

    def answering_nodes(self) -> dict[str, str]:
        return {node: f"host {node}" for node in self.answering}

    live_nodes = answering_nodes


class ListeningActor:
    def __init__(self, cluster: Listening, number: int) -> None:
        self._cluster, self._number = cluster, number

    def call(self, method: str, *args: object, n_returns: int = 1) -> Outcome:
        self._cluster.called.append((self._number, method))
        return Outcome(oom_kills=self._cluster.oom_kills if method == "prepare" else 0)

    def kill(self) -> None:
        self._cluster.called.append((self._number, "kill"))


def test_fleet_clears_those_that_were_given_something_since() -> None:
    cluster = Listening()
    fleet = Fleet(cast(Cluster, cluster), [Placement(i, (i,)) for i in range(4)], cast(Any, None), None, {})
    cluster.called.clear()
    fleet.clear()
    assert cluster.called == [], "nobody has a program"
    for number in (2, 0, 2):
        fleet.call(number, "load")
    cluster.called.clear()
    fleet.clear()
    assert cluster.called == [(2, "clear"), (0, "clear")]
    fleet.clear()
    assert len(cluster.called) == 2, "once is enough"


def on_nodes(*nodes: str) -> tuple[Listening, Fleet]:
    """An actor on each, numbered in that order."""
    cluster = Listening()
    placements = [Placement(i, (i,), node) for i, node in enumerate(nodes)]
    return cluster, Fleet(cast(Cluster, cluster), placements, cast(Any, None), None, {})


def test_fleet_starts_actors_on_their_nodes() -> None:
    cluster, fleet = on_nodes("a", "b", "b")
    assert cluster.started == ["a", "b", "b"]
    assert [placement.node for placement in fleet.placements] == ["a", "b", "b"]


def test_fleet_replaces_an_actor_where_it_was_while_its_node_answers() -> None:
    cluster, fleet = on_nodes("a", "b")
    fleet.replace(1)
    assert cluster.started == ["a", "b", "b"]
    assert fleet.placements[1] == Placement(1, (1,), "b")


def test_fleet_lets_an_actor_in_the_place_of_a_dead_one_keep_nothing() -> None:
    cluster = Listening()
    placements = [Placement(i, (i,), "a", spare_bytes=100) for i in range(2)]
    fleet = Fleet(cast(Cluster, cluster), placements, cast(Any, None), None, {})
    fleet.replace(1)
    assert [placement.spare_bytes for placement in fleet.placements] == [100, 0]


def test_fleet_moves_actors_of_a_lost_node_to_where_fewest_are() -> None:
    cluster, fleet = on_nodes("a", "a", "b", "b", "b")
    cluster.answering = ["a"]
    for number in (2, 3, 4):
        fleet.replace(number)
    places = [(placement.node, placement.cpus) for placement in fleet.placements]
    assert places[:2] == [("a", (0,)), ("a", (1,))]
    assert sorted(places[2:4]) == places[:2], "each core gets a second before one gets a third"
    assert [placement.actor for placement in fleet.placements] == [0, 1, 2, 3, 4]


def test_fleet_without_a_node_that_answers_gives_up() -> None:
    cluster, fleet = on_nodes("a", "b")
    cluster.answering = []
    with pytest.raises(MeasureError, match="no node answers that had actors"):
        fleet.replace(0)


@pytest.mark.parametrize(("grows", "n_actors"), [(True, 4), (False, 3)])
def test_fleet_takes_moved_actors_to_a_new_node_and_grows_if_it_may(grows: bool, n_actors: int) -> None:
    cluster, fleet = on_nodes("a", "b", "b")
    cluster.answering = ["a"]
    fleet.replace(1)
    fleet.extend([Placement(0, (7,), "c"), Placement(1, (8,), "c")], grows)
    assert len(fleet) == n_actors
    assert fleet.placements[1] == Placement(1, (7,), "c"), "the one that was moved"
    assert fleet.placements[2] == Placement(2, (2,), "b"), "whether it is lost will be seen when it is asked"
    assert fleet.placements[3:] == ((Placement(3, (8,), "c"),) if grows else ())
    fleet.extend([Placement(0, (1,), "d")], grows=False)
    assert cluster.started[-1] == "c", "nobody is left that was moved"
    if grows:
        fleet.call(3, "load")
        assert cluster.called[-1][1] == "load"


def break_starts(cluster: Listening, broken: str, error: DistcalibError | ActorLost) -> None:
    """From now on no actor starts on `broken`: its processes die, or its worker cannot be made."""
    start = cluster.start_actor

    def start_actor(node: str = "", n_cpus: float = 0.0) -> Any:
        actor = start(node)
        if node == broken:
            actor.call = lambda method, *args, n_returns=1: error if method == "make_worker" else Outcome()
        return actor

    def get(ref: Any) -> Outcome:
        if isinstance(ref, ActorLost):
            raise ref
        return Outcome(error=ref) if isinstance(ref, DistcalibError) else ref

    cluster.start_actor = start_actor  # type: ignore[method-assign]
    cluster.get = get  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("error", "said", "n_trials"),
    [(DataError("x_lmdb: no such folder"), "x_lmdb", 1), (ActorLost("crash"), "died 3 times while starting", 3)],
    ids=["no data", "dies"],
)
def test_fleet_is_as_it_was_after_a_node_where_no_actor_starts(
    error: DistcalibError | ActorLost, said: str, n_trials: int
) -> None:
    cluster, fleet = on_nodes("a", "b")
    before = fleet.placements
    break_starts(cluster, "c", error)
    with pytest.raises(DistcalibError, match=said):
        fleet.extend([Placement(0, (7,), "c"), Placement(1, (8,), "c")], grows=True)
    assert (len(fleet), fleet.placements, fleet.is_at_home) == (2, before, True)
    assert cluster.started.count("c") == 1 + n_trials
    assert {number for number, called in cluster.called if called == "kill"} == set(range(2, 2 + 1 + n_trials))
    fleet.extend([Placement(0, (7,), "d")], grows=True)
    assert fleet.placements == (*before, Placement(2, (7,), "d"))


def test_fleet_keeps_a_moved_actor_where_it_is_if_it_cannot_move_on() -> None:
    cluster, fleet = on_nodes("a", "b")
    cluster.answering = ["a"]
    fleet.replace(1)
    shelter = fleet.placements
    break_starts(cluster, "c", DataError("x_lmdb: no such folder"))
    with pytest.raises(DataError, match="x_lmdb"):
        fleet.extend([Placement(0, (7,), "c")], grows=True)
    assert (fleet.placements, fleet.is_at_home, cluster.started[-1]) == (shelter, False, "a")


def test_fleet_names_nodes_that_are_not_the_drivers() -> None:
    _, fleet = on_nodes("a", "b", "gone", "")
    assert [fleet.node_of(number) for number in range(4)] == ["", "host b", "gone", ""]


def test_error_of_data_names_the_node() -> None:
    missing = Outcome(error=DataError("/data/x: no such folder; mount it"), trace="Traceback")
    assert str(error_of(missing, "host b")) == "on host b: /data/x: no such folder; mount it"
    assert str(error_of(missing).__cause__).strip('\n"') == "Traceback"
    assert str(error_of(missing)) == "/data/x: no such folder; mount it"
    engine = Outcome(error=EngineError("net: refused; drop it"))
    assert str(error_of(engine, "host b")) == "net: refused; drop it", "the same on all nodes, and in the report"


def test_fleet_has_fewer_actors_where_memory_ran_out() -> None:
    cluster, fleet = on_nodes("a", "a", "b")
    fleet.call(1, "load")
    fleet.replace(1, for_memory=True)
    assert cluster.started == ["a", "a", "b"], "no other takes its place"
    assert (fleet.n_retired, len(fleet)) == (1, 3), "actors keep their numbers"
    assert [fleet.is_retired(number) for number in range(3)] == [False, True, False]
    cluster.called.clear()
    fleet.clear()
    assert cluster.called == [], "it is asked nothing"


def test_fleet_sees_that_the_kernel_killed_for_lack_of_memory() -> None:
    cluster, fleet = on_nodes("a", "a", "a", "b")
    fleet.replace(0)
    assert fleet.n_retired == 0, "it died of something else"
    cluster.oom_kills = 9
    fleet.replace(1)
    assert [fleet.is_retired(number) for number in range(4)] == [False, True, False, False]
    fleet.replace(2)
    assert fleet.n_retired == 1, "nobody was killed since"


def test_fleet_keeps_its_last_actor_whatever_it_died_of() -> None:
    cluster, fleet = on_nodes("a", "a")
    fleet.replace(0, for_memory=True)
    fleet.replace(1, for_memory=True)
    assert [fleet.is_retired(number) for number in range(2)] == [True, False]
    assert cluster.started == ["a", "a", "a"]


def test_fleet_asks_for_the_files_of_the_run_before_a_dead_actor_is_replaced() -> None:
    cluster = Listening()

    def still() -> None:
        raise DataError("data.mdb changed from 9 to 1 bytes")

    placements = [Placement(i, (i,)) for i in range(2)]
    fleet = Fleet(cast(Cluster, cluster), placements, cast(Any, None), None, {}, still=still)
    assert cluster.n_actors == 2, "nothing is asked while all are alive"
    with pytest.raises(DataError, match="changed from 9 to 1 bytes"):
        fleet.replace(1)
    assert cluster.n_actors == 2
    break_starts(cluster, "a", ActorLost("SIGBUS"))
    with pytest.raises(DataError, match="changed from 9 to 1 bytes"):
        Fleet(cast(Cluster, cluster), [Placement(0, (0,), "a")], cast(Any, None), None, {}, still=still)
