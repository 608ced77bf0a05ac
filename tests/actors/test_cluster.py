"""What every Cluster does, Ray, the forked and the simulated one: what a test shows on the one holds on the others."""

import os
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import ray.cloudpickle

from distcalib.actors import Blob, Placement
from distcalib.actors.cluster import Actor, ActorLost, Cluster
from distcalib.actors.machines import Machines
from distcalib.actors.ray_cluster import RayCluster
from distcalib.errors import EngineError, MeasureError
from scripts.simulate.simulated_cluster import SimulatedCluster
from tests.actors.echo import Echo
from tests.actors.forked import ForkedMachines

# This file cannot be imported by name in an actor.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]

FINITE = 60.0


class Refusing(Echo):
    """An engine that does not take the spec "bad", the program "broken" and the iteration -1."""

    def compile_seconds(self, spec: object) -> float:
        if spec == "bad":
            raise EngineError("bad: refused; drop it")
        return super().compile_seconds(spec)

    def load_seconds(self, spec: object) -> float:
        if spec == "broken":
            raise EngineError("broken: refused; drop it")
        return super().load_seconds(spec)

    def run(self, spec: object, iterations: Sequence[int]) -> tuple[Sequence[object], float]:
        if -1 in iterations:
            raise EngineError("-1: refused; drop it")
        return super().run(spec, iterations)


class Repeating:
    """The same as a Worker: a row is its iteration."""

    def __init__(self, shared: object, placement: Placement) -> None:
        self.programs: set[str] = set()

    def compile(self, spec: object) -> Blob:
        if spec == "bad":
            raise EngineError("bad: refused; drop it")
        return np.zeros(200_000, np.uint8)  # Ray sends a small one along with its task

    def load(self, key: str, blob: object) -> None:
        if isinstance(blob, str):
            raise EngineError("broken: refused; drop it")
        self.programs.add(key)

    def run(self, key: str, iterations: Sequence[int]) -> list[object]:
        if key not in self.programs:
            raise MeasureError(f"{key}: is not loaded")
        if -1 in iterations:
            raise EngineError("-1: refused; drop it")
        return list(iterations)

    def drop(self, key: str) -> None:
        self.programs.remove(key)


@pytest.fixture(scope="module", params=["Ray", "forked", "simulated"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "simulated":
        yield SimulatedCluster(Refusing())
        return
    machines: Machines
    if request.param == "forked":
        machines = ForkedMachines(request.getfixturevalue("fork_server"))
    else:
        request.getfixturevalue("one_ray")
        machines = RayCluster(None, n_cpus=2)
    yield machines
    machines.close()


@pytest.fixture
def actor(cluster: Cluster) -> Iterator[Actor]:
    """One that is ready."""
    found = started(cluster)
    yield found
    found.kill()


def started(cluster: Cluster) -> Actor:
    made = cluster.start_actor()
    placement = Placement(0, (min(os.sched_getaffinity(0)),))
    begun = made.call("prepare", placement, {}), made.call("make_worker", cluster.put(Repeating), cluster.put(None))
    assert [cluster.get(ref).error for ref in begun] == [None, None]
    return made


def test_cluster_knows_its_nodes(cluster: Cluster) -> None:
    assert cluster.home in cluster.live_nodes()
    assert dict(cluster.answering_nodes()) == dict(cluster.live_nodes())


def test_actors_do_what_they_are_called_for_in_order(cluster: Cluster, actor: Actor) -> None:
    program, compiled = actor.call("compile", "key", "label", cluster.put("spec"), (), n_returns=2)
    refs = [actor.call("run", "key", "label", iterations, ()) for iterations in (range(3), (7, 5))]
    assert [list(cluster.get(ref).rows) for ref in refs] == [[0, 1, 2], [7, 5]]
    assert cluster.get(compiled).seconds > 0.0
    assert cluster.keep(program) is program, "there is one machine"


def test_waiting_gives_what_is_there(cluster: Cluster, actor: Actor) -> None:
    actor.call("compile", "key", "label", cluster.put("spec"), (), n_returns=2)
    waiting = [actor.call("run", "key", "label", [i], ()) for i in range(4)]
    found = []
    while waiting:
        ready = cluster.wait(waiting, FINITE)
        assert ready
        assert set(ready) <= set(waiting)
        found += [cluster.get(ref).rows[0] for ref in ready]
        waiting = [ref for ref in waiting if ref not in set(ready)]
    assert sorted(found) == [0, 1, 2, 3]


def test_a_program_goes_from_one_actor_to_another(cluster: Cluster, actor: Actor) -> None:
    other = started(cluster)
    program, _ = actor.call("compile", "key", "label", cluster.put("spec"), (), n_returns=2)
    assert cluster.get(other.call("load", "key", "label", cluster.keep(program), ())).error is None
    assert list(cluster.get(other.call("run", "key", "label", [4], ())).rows) == [4]
    other.kill()


def test_a_program_is_loaded_and_run_in_one_call(cluster: Cluster, actor: Actor) -> None:
    other = started(cluster)
    program, _ = actor.call("compile", "key", "label", cluster.put("spec"), (), n_returns=2)
    kept = cluster.keep(program)
    outcome = cluster.get(other.call("load_and_run", "key", "label", kept, (7, 5), ()))
    assert (outcome.error, list(outcome.rows), outcome.not_loaded) == (None, [7, 5], False)
    assert outcome.seconds == outcome.load_seconds + outcome.run_seconds
    assert min(outcome.load_seconds, outcome.run_seconds) > 0.0
    assert list(cluster.get(other.call("run", "key", "label", range(2), ())).rows) == [0, 1], "it stays loaded"
    assert cluster.get(other.call("load_and_run", "next", "label", kept, range(2), ("key",))).error is None
    assert str(cluster.get(other.call("run", "key", "label", [0], ())).error) == "key: is not loaded", "dropped"
    other.kill()


def test_the_first_error_ends_loading_and_running(cluster: Cluster, actor: Actor) -> None:
    program, _ = actor.call("compile", "key", "label", cluster.put("spec"), (), n_returns=2)
    broken = cluster.get(actor.call("load_and_run", "other", "label", cluster.put("broken"), (-1,), ()))
    assert (type(broken.error), str(broken.error)) == (EngineError, "broken: refused; drop it")
    assert (broken.not_loaded, list(broken.rows), broken.seconds) == (True, [], 0.0)
    loaded = cluster.get(actor.call("load_and_run", "other", "label", cluster.keep(program), (-1,), ()))
    assert (type(loaded.error), str(loaded.error)) == (EngineError, "-1: refused; drop it")
    assert not loaded.not_loaded
    assert loaded.load_seconds > 0.0
    assert cluster.get(actor.call("run", "other", "label", [1], ("key",))).error is None, "it is loaded all the same"


def test_programs_are_dropped_and_cleared(cluster: Cluster, actor: Actor) -> None:
    actor.call("compile", "one", "label", cluster.put("spec"), (), n_returns=2)
    actor.call("compile", "two", "label", cluster.put("spec"), ("one",), n_returns=2)
    assert str(cluster.get(actor.call("run", "one", "label", [0], ())).error) == "one: is not loaded"
    assert cluster.get(actor.call("run", "two", "label", [0], ())).error is None
    actor.call("clear")
    assert str(cluster.get(actor.call("run", "two", "label", [0], ())).error) == "two: is not loaded"


def test_an_error_of_a_worker_is_an_outcome(cluster: Cluster, actor: Actor) -> None:
    _, compiled = actor.call("compile", "key", "label", cluster.put("bad"), (), n_returns=2)
    error = cluster.get(compiled).error
    assert (type(error), str(error)) == (EngineError, "bad: refused; drop it")


def test_a_killed_actor_is_lost(cluster: Cluster) -> None:
    killed = started(cluster)
    killed.kill()
    deadline = time.monotonic() + FINITE
    with pytest.raises(ActorLost) as lost:
        while time.monotonic() < deadline:  # Ray may let a call through that was given at once
            cluster.get(killed.call("clear"))
    assert not lost.value.for_memory
