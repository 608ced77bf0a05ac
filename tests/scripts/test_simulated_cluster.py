"""The simulated cluster does what it is told to do wrong, and is otherwise as punctual as its clock."""

from math import inf

import pytest

from distcalib.actors.cluster import ActorLost
from distcalib.errors import EngineError, MeasureError
from scripts.simulate.simulated_cluster import Hang, Ref, SimulatedActor, SimulatedCluster
from tests.actors.echo import LOAD_SECONDS, echo_cluster


def loaded(cluster: SimulatedCluster, node: str = "") -> SimulatedActor:
    """An actor with a program of which a row takes a second."""
    actor = cluster.start_actor(node)
    cluster.get(actor.call("load", "key", "label", 1.0, ()))
    return actor


def run(actor: SimulatedActor, *iterations: int) -> Ref:
    ref = actor.call("run", "key", "label", iterations, ())
    assert isinstance(ref, Ref)
    return ref


def test_actors_work_side_by_side_each_through_its_calls() -> None:
    cluster = echo_cluster()
    one, other = loaded(cluster), loaded(cluster)
    begun = cluster.clock
    refs = [run(one, 0, 1), run(one, 2), run(other, 3)]
    assert [ref.at - begun for ref in refs] == pytest.approx([2.0, 3.0, 1.0])
    assert cluster.wait(refs, 0.5) == []
    assert cluster.wait(refs, 9.0) == [refs[2]]
    assert cluster.clock - begun == pytest.approx(1.0)
    assert cluster.get(refs[1]).rows == [2]
    assert cluster.clock - begun == pytest.approx(3.0)
    assert cluster.busy_seconds == pytest.approx(4.0 + 2 * LOAD_SECONDS)
    assert cluster.most_waiting == 2


def test_answers_come_in_the_order_of_the_seed() -> None:
    def order(seed: int) -> list[int]:
        cluster = echo_cluster(seed=seed)
        refs = [run(loaded(cluster), 0) for _ in range(9)]
        waiting, found = list(refs), []
        while waiting:
            ready = cluster.wait(waiting, 1.0)
            found += [refs.index(ref) for ref in ready]
            waiting = [ref for ref in waiting if ref not in ready]
        return found

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == list(range(9))


@pytest.mark.parametrize("seed", [None, 1])
def test_an_actor_that_hangs_answers_once_it_is_released(seed: int | None) -> None:
    cluster = echo_cluster(seed=seed)
    actor, other = loaded(cluster), loaded(cluster)
    cluster.faults = lambda number, method, arguments: Hang() if number == 0 else None
    refs = [run(actor, 0), run(actor, 1, 2)]
    assert cluster.wait([*refs, done := run(other, 3)], 9.0) == [done]
    assert cluster.wait(refs, 7.0) == []
    assert [ref.at for ref in refs] == [inf, inf]
    begun = cluster.clock
    cluster.release()
    assert [ref.at - begun for ref in refs] == [1.0, 3.0]
    assert cluster.get(refs[1]).rows == [1, 2]


def test_waiting_for_those_that_hang_ends_in_an_error() -> None:
    cluster = echo_cluster()
    actor = loaded(cluster)
    cluster.faults = lambda number, method, arguments: Hang()
    ref = run(actor, 0)
    with pytest.raises(AssertionError, match="for ever"):
        cluster.get(ref)
    with pytest.raises(AssertionError, match="for ever"):
        while cluster.wait([ref], 99.0) == []:
            pass


def test_nothing_comes_back_from_an_actor_that_died() -> None:
    cluster = echo_cluster()
    actor = loaded(cluster)
    done = run(actor, 0)
    cluster.get(done)
    cluster.faults = lambda number, method, arguments: ActorLost("crash") if arguments[2] == (2,) else None
    refs = [run(actor, 1), run(actor, 2), run(actor, 3)]
    assert cluster.get(refs[0]).rows == [1]
    for ref in refs[1:]:
        with pytest.raises(ActorLost, match="crash"):
            cluster.get(ref)
    assert cluster.clock == pytest.approx(3.0 + LOAD_SECONDS), "it died on its second row"


def test_the_worker_of_an_actor_raises() -> None:
    cluster = echo_cluster()
    actor = loaded(cluster)
    cluster.faults = lambda number, method, arguments: EngineError("refused") if method == "run" else None
    assert str(cluster.get(run(actor, 0)).error) == "refused"
    cluster.faults = lambda number, method, arguments: None
    actor.call("clear")
    assert isinstance(cluster.get(run(actor, 0)).error, MeasureError)


def test_what_was_on_a_lost_node_is_gone_unless_it_was_kept() -> None:
    cluster = echo_cluster("a", "b")
    maker, user = cluster.start_actor("b"), cluster.start_actor("a")
    program, compiled = maker.call("compile", "key", "label", 1.0, (), n_returns=2)
    cluster.get(compiled)
    kept = cluster.keep(program)
    working = run(maker, 0)
    cluster.lose("b")
    assert (list(cluster.live_nodes()), list(cluster.answering_nodes())) == (["a", "b"], ["a"])
    with pytest.raises(ActorLost, match="b was cut off"):
        cluster.get(working)
    with pytest.raises(ActorLost, match="the program was on b"):
        cluster.keep(program)
    assert cluster.get(user.call("load", "key", "label", kept, ())).error is None
    with pytest.raises(ActorLost, match="the program was on b"):
        cluster.get(user.call("load", "key", "label", program, ()))
