"""A fleet of actors that are no processes: what it asks of whom."""

from collections.abc import Sequence
from typing import Any

import pytest

from distcalib.actors import Placement
from distcalib.actors.actor import Outcome
from distcalib.actors.cluster import ActorLost
from distcalib.actors.fleet import Fleet, Left, error_of
from distcalib.errors import DataError, DistcalibError, EngineError, MeasureError
from scripts.simulate.simulated_cluster import SimulatedCluster, no_worker
from tests.actors.echo import ROW_SECONDS, echo_cluster, fleet_on


def test_fleet_clears_those_that_were_given_something_since() -> None:
    cluster = echo_cluster()
    fleet = fleet_on(cluster, *[""] * 4)
    cluster.log.clear()
    fleet.clear()
    assert cluster.log == [], "nobody has a program"
    for number in (2, 0, 2):
        load(fleet, number)
    cluster.log.clear()
    fleet.clear()
    assert cluster.log == [(2, "clear"), (0, "clear")]
    fleet.clear()
    assert len(cluster.log) == 2, "once is enough"


def on_nodes(*nodes: str) -> tuple[SimulatedCluster, Fleet]:
    """An actor on each, numbered in that order, of three nodes."""
    cluster = echo_cluster("a", "b", "c")
    return cluster, fleet_on(cluster, *nodes)


def load(fleet: Fleet, number: int) -> None:
    """Have an actor load a program."""
    fleet.call(number, "load", "key", "label", "spec", ())


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
    placements = [Placement(i, (i,), "a", spare_bytes=100) for i in range(2)]
    fleet = Fleet(echo_cluster("a"), placements, no_worker, None, {})
    fleet.replace(1)
    assert [placement.spare_bytes for placement in fleet.placements] == [100, 0]


def test_fleet_moves_actors_of_a_lost_node_to_where_fewest_are() -> None:
    cluster, fleet = on_nodes("a", "a", "b", "b", "b")
    cluster.lose("b")
    for number in (2, 3, 4):
        fleet.replace(number)
    places = [(placement.node, placement.cpus) for placement in fleet.placements]
    assert places[:2] == [("a", (0,)), ("a", (1,))]
    assert sorted(places[2:4]) == places[:2], "each core gets a second before one gets a third"
    assert [placement.actor for placement in fleet.placements] == [0, 1, 2, 3, 4]


def test_fleet_without_a_node_that_answers_gives_up() -> None:
    cluster, fleet = on_nodes("a", "b")
    cluster.silent.update("abc")
    with pytest.raises(MeasureError, match="no node answers that had actors"):
        fleet.replace(0)


@pytest.mark.parametrize(("grows", "n_actors"), [(True, 4), (False, 3)])
def test_fleet_takes_moved_actors_to_a_new_node_and_grows_if_it_may(grows: bool, n_actors: int) -> None:
    cluster, fleet = on_nodes("a", "b", "b")
    cluster.lose("b")
    fleet.replace(1)
    fleet.extend([Placement(0, (7,), "c"), Placement(1, (8,), "c")], grows)
    assert len(fleet) == n_actors
    assert fleet.placements[1] == Placement(1, (7,), "c"), "the one that was moved"
    assert fleet.placements[2] == Placement(2, (2,), "b"), "whether it is lost will be seen when it is asked"
    assert fleet.placements[3:] == ((Placement(3, (8,), "c"),) if grows else ())
    fleet.extend([Placement(0, (1,), "d")], grows=False)
    assert cluster.started[-1] == "c", "nobody is left that was moved"
    if grows:
        load(fleet, 3)
        assert cluster.log[-1][1] == "load"


def break_starts(cluster: SimulatedCluster, broken: str, error: DistcalibError | ActorLost) -> None:
    """From now on no actor starts on `broken`: its processes die, or its worker cannot be made."""

    def faults(number: int, method: str, arguments: Sequence[Any]) -> DistcalibError | ActorLost | None:
        return error if method == "make_worker" and cluster.started[number] == broken else None

    cluster.faults = faults


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
    assert {number for number, called in cluster.log if called == "kill"} == set(range(2, 2 + 1 + n_trials))
    fleet.extend([Placement(0, (7,), "d")], grows=True)
    assert fleet.placements == (*before, Placement(2, (7,), "d"))


def test_fleet_keeps_a_moved_actor_where_it_is_if_it_cannot_move_on() -> None:
    cluster, fleet = on_nodes("a", "b")
    cluster.lose("b")
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
    load(fleet, 1)
    fleet.replace(1, for_memory=True)
    assert cluster.started == ["a", "a", "b"], "no other takes its place"
    assert (fleet.n_retired, len(fleet)) == (1, 3), "actors keep their numbers"
    assert [fleet.is_retired(number) for number in range(3)] == [False, True, False]
    cluster.log.clear()
    fleet.clear()
    assert cluster.log == [], "it is asked nothing"


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
    cluster = echo_cluster("a")

    def still() -> None:
        raise DataError("data.mdb changed from 9 to 1 bytes")

    fleet = Fleet(cluster, [Placement(i, (i,)) for i in range(2)], no_worker, None, {}, still=still)
    assert len(cluster.started) == 2, "nothing is asked while all are alive"
    with pytest.raises(DataError, match="changed from 9 to 1 bytes"):
        fleet.replace(1)
    assert len(cluster.started) == 2
    break_starts(cluster, "a", ActorLost("SIGBUS"))
    with pytest.raises(DataError, match="changed from 9 to 1 bytes"):
        Fleet(cluster, [Placement(0, (0,), "a")], no_worker, None, {}, still=still)


def test_fleet_settles_what_is_left_and_replaces_who_dies_over_it() -> None:
    cluster, fleet = on_nodes("a", "a")
    for number in range(2):
        load(fleet, number)
        fleet.leave(number, [Left(fleet.call(number, "run", "key", "label", range(4), ()))])
    cluster.actors[1].die(ActorLost("crash"))
    assert fleet.settle() == pytest.approx(4 * ROW_SECONDS)
    assert fleet.settle() == 0.0
    assert len(cluster.started) == 3


def test_fleet_clears_an_actor_that_works_on_what_was_left_without_waiting() -> None:
    cluster, fleet = on_nodes("a")
    load(fleet, 0)
    fleet.leave(0, [Left(fleet.call(0, "run", "key", "label", range(4), ()))])
    fleet.clear()
    assert cluster.log[-1] == (0, "clear")
    assert cluster.clock == 0.0
    assert len(fleet.take_left(0)) == 2
