"""A fleet of actors that are no processes: what it asks of whom."""

from typing import Any, cast

from distcalib.measure import Placement
from distcalib.measure.actor import Outcome
from distcalib.measure.cluster import Cluster
from distcalib.measure.fleet import Fleet


class Listening:
    """A cluster, and each of its actors: what was called is written down and answered at once."""

    def __init__(self) -> None:
        self.called: list[tuple[int, str]] = []
        self.n_actors = 0

    def put(self, value: object) -> object:
        return value

    def get(self, ref: Outcome) -> Outcome:
        return ref

    def start_actor(self) -> Any:
        number, self.n_actors = self.n_actors, self.n_actors + 1
        return ListeningActor(self, number)


class ListeningActor:
    def __init__(self, cluster: Listening, number: int) -> None:
        self._cluster, self._number = cluster, number

    def call(self, method: str, *args: object, n_returns: int = 1) -> Outcome:
        self._cluster.called.append((self._number, method))
        return Outcome()


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
