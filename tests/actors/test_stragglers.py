"""Who is late, told by a clock that the tests set."""

from distcalib.actors.dispatcher import Dispatcher, Kind, Task
from distcalib.actors.stragglers import LATE_FACTOR, LATE_SECONDS, Lateness
from tests.actors.simulation import jobs

SHARD = Task(Kind.RUN, 0, range(10))
LIMIT = LATE_FACTOR * 10 * 0.1 + LATE_SECONDS


def lateness(done: range = range(50, 60)) -> Lateness:
    """Another program took 0.001 s an iteration, which tells nothing; of this one `done` took 0.1 s each."""
    dispatcher = Dispatcher(jobs(100), 2, seconds_per_iteration=0.001)
    if done:
        dispatcher.done(Task(Kind.RUN, 0, done), 0.1 * len(done))
    return Lateness(dispatcher)


def test_lateness_is_told_once_and_again_after_as_long() -> None:
    watch = lateness()
    watch.begun(0, SHARD, 5.0)
    watch.begun(1, SHARD, 6.0)
    assert watch.late(5.0 + LIMIT - 0.01) == []
    assert watch.late(5.0 + LIMIT + 0.01) == [0]
    assert watch.late(5.0 + LIMIT + 0.02) == []
    assert watch.late(6.0 + LIMIT + 0.01) == [1]
    assert watch.late(5.1 + 2 * LIMIT) == [0]


def test_lateness_forgets_what_was_answered_or_left_by_an_earlier_call() -> None:
    watch = lateness()
    watch.begun(0, SHARD, 0.0)
    watch.begun(0, None, 1.0)
    watch.begun(1, SHARD, 0.0)
    watch.begun(1, SHARD, 1e3)
    assert watch.late(1e3) == []


def test_lateness_says_nothing_of_what_may_take_any_time() -> None:
    watch = lateness(done=range(0))
    watch.begun(0, SHARD, 0.0)
    watch.begun(1, Task(Kind.COMPILE, 0), 0.0)
    assert watch.late(1e9) == []
