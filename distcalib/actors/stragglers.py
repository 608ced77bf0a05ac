"""Which actors should long have answered: those on slow, busy or lost machines.

It gets the time as an argument, so a simulation can drive it. An actor is late once its oldest task
has taken a few times what the others need, and late again after as long once more. Too early a verdict costs a shard
done twice, at the end of a pass, when actors idle anyway; too late a one makes all wait."""

from distcalib.actors.dispatcher import Dispatcher, Task

LATE_FACTOR = 3.0  # times the mean of the others; cores that share a cache or slow down by AVX-512 stay below 2
LATE_SECONDS = 0.5  # added: a pause of the system, or a first batch that is read from a disk
LOOK_SECONDS = 0.25  # how often it is worth looking


class Lateness:
    """Since when each actor is at its oldest task. `dispatcher` knows how long it should take."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._since: dict[int, tuple[Task, float]] = {}

    def begun(self, actor: int, task: Task | None, now: float) -> None:
        """The oldest task of `actor` is `task` now; None: it has none, or one that nobody waits for."""
        if task is None:
            self._since.pop(actor, None)
        else:
            self._since[actor] = (task, now)

    def late(self, now: float) -> list[int]:
        """The actors that are late, each reported once until as much time has passed again."""
        late_actors = []
        for actor, (task, since) in self._since.items():
            expected = self._dispatcher.expected_seconds(task)
            if expected is not None and now - since > LATE_FACTOR * expected + LATE_SECONDS:
                late_actors.append(actor)
        for actor in late_actors:
            self._since[actor] = (self._since[actor][0], now)
        return late_actors
