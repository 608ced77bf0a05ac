"""Who is asked, in what order, and who is left alone."""

from distcalib.actors.dispatcher import Kind, Task
from distcalib.actors.feeder import IN_FLIGHT, Feeder

TASK = Task(Kind.RUN, 0, range(1))


class Scripted:
    """Has `n_tasks` for anybody; notes who asked."""

    def __init__(self, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        self.asked: list[tuple[int, bool]] = []

    def next_task(self, actor: int, idle: bool) -> Task | None:
        self.asked.append((actor, idle))
        self.n_tasks -= 1
        return TASK if self.n_tasks >= 0 else None

    def has_offer(self) -> bool:
        return self.n_tasks > 0


def feeder(script: Scripted, n_flying: list[int]) -> Feeder:
    return Feeder(script, n_flying)


def test_feeder_fills_actors_by_turns_those_without_a_task_first() -> None:
    fed = feeder(Scripted(9), [0, 1, 0]).feed()
    assert [actor for actor, _ in fed] == [0, 2, 1, 0, 2]


def test_feeder_tells_whether_an_actor_is_idle() -> None:
    script = Scripted(9)
    list(feeder(script, [0, 1]).feed())
    assert script.asked == [(0, True), (1, False), (0, False)]


def test_feeder_leaves_an_actor_alone_that_is_busy_for_an_earlier_call() -> None:
    one = feeder(Scripted(99), [0, 3])
    assert [actor for actor, _ in one.feed()] == [0] * IN_FLIGHT
    one.freed(1)
    assert list(one.feed()) == []
    one.freed(1)
    assert list(one.feed()) == [(1, TASK)]


def test_feeder_does_not_ask_again_where_there_is_nothing() -> None:
    script = Scripted(1)
    one = feeder(script, [0] * 1000)
    assert list(one.feed()) == [(0, TASK)]
    script.asked.clear()
    assert list(one.feed()) == []
    assert script.asked == []
    one.freed(0)
    assert list(one.feed()) == []
    assert script.asked == [(0, True)], "it alone is news"


def test_feeder_asks_again_as_soon_as_there_is_something() -> None:
    script = Scripted(0)
    one = feeder(script, [0] * 3)
    assert list(one.feed()) == []
    script.n_tasks = 2
    assert [actor for actor, _ in one.feed()] == [0, 1]


def test_feeder_asks_no_retired_actor_and_those_that_are_new() -> None:
    script = Scripted(99)
    one = feeder(script, [0, 0])
    one.lost(0, retired=True)
    assert {actor for actor, _ in one.feed()} == {1}
    one.freed(1)
    one.grow(3)
    assert sorted(actor for actor, _ in one.feed()) == [1, 2, 2]


def test_feeder_asks_all_again_after_a_death() -> None:
    script = Scripted(1)
    one = feeder(script, [0] * 3)
    list(one.feed())
    script.asked.clear()
    one.lost(0)
    list(one.feed())
    assert sorted(script.asked) == [(0, True), (1, True), (2, True)]
