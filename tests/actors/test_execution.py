"""A call against a fleet without processes: whatever order results come back in."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytest

from distcalib.actors import Job, Progress
from distcalib.actors.actor import Outcome
from distcalib.actors.execution import Call
from distcalib.actors.fleet import Fleet, Left
from distcalib.actors.ray_cluster import ActorLost
from distcalib.errors import MeasureError, OutputError

JOBS = [Job(key=key, spec=None, n_iterations=n, label=key) for key, n in (("a", 9), ("b", 4), ("c", 1))]


class Shuffled:
    """A cluster whose references are outcomes, returned in an order drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def put(self, value: object) -> object:
        return value

    def get(self, ref: list[Outcome]) -> Outcome:
        return ref[0]

    def keep(self, ref: object) -> object:
        return ref

    def wait(self, refs: Sequence[Any], seconds: float) -> list[Any]:
        ready = list(refs)
        self._rng.shuffle(ready)
        return ready[: self._rng.randint(1, len(ready))]


class Ref(list[Outcome]):
    """Hashable by identity, as Ray's references are."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class FakeFleet:
    """Two actors that answer at once; a row is its iteration. What is left to them is of an earlier call."""

    def __init__(self, seed: int, left: Sequence[Left] = ()) -> None:
        self.cluster = Shuffled(seed)
        self.left = list(left)
        self.settled: list[Outcome] = []

    def __len__(self) -> int:
        return 2

    def is_retired(self, actor: int) -> bool:
        return False

    def take_left(self, actor: int) -> list[Left]:
        left, self.left = self.left, []
        return left

    def leave(self, actor: int, tasks: Sequence[Left]) -> None:
        self.left += tasks

    def settle_one(self, task: Left, outcome: Outcome) -> None:
        self.settled.append(outcome)
        if task.keep is not None:
            task.keep(outcome)

    def call(self, actor: int, method: str, key: str, label: str, *args: Any, n_returns: int = 1) -> Any:
        if method == "run":
            return Ref([Outcome(rows=list(args[0]), run_seconds=1e-3 * len(args[0]))])
        answer = Ref([Outcome(load_seconds=1e-4, compile_seconds=1e-4)])
        return ("blob", answer) if n_returns == 2 else answer


class Counting(FakeFleet):
    """Knows how many tasks each actor has."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.refs: list[list[Any]] = [[], []]
        self.most = 0
        take = self.cluster.get

        def get(ref: list[Outcome]) -> Outcome:
            for refs in self.refs:
                refs[:] = [other for other in refs if other is not ref]
            return take(ref)

        self.cluster.get = get  # type: ignore[method-assign]

    def call(self, actor: int, method: str, key: str, label: str, *args: Any, n_returns: int = 1) -> Any:
        answer = super().call(actor, method, key, label, *args, n_returns=n_returns)
        self.refs[actor].append(answer[1] if n_returns == 2 else answer)
        self.most = max(self.most, *map(len, self.refs))
        return answer


@pytest.mark.parametrize("in_flight", [1, 2])
def test_call_gives_an_actor_no_more_tasks_than_it_may_have(in_flight: int) -> None:
    fleet = Counting(0)
    results = Call(cast(Fleet, fleet), JOBS, in_flight=in_flight).run()
    assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]
    assert fleet.most == in_flight


@pytest.mark.parametrize("first_seed", range(0, 500, 100))
def test_call_gives_all_rows_in_any_order_of_completion(first_seed: int) -> None:
    """A load that came back after its job's last row once ended the call with a KeyError."""
    for seed in range(first_seed, first_seed + 100):
        results = Call(cast(Fleet, FakeFleet(seed)), JOBS).run()
        assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]


def test_call_reports_progress_in_row_sizes() -> None:
    seen: list[Progress] = []
    jobs = [Job("a", None, 3, "ranges", row_sizes=(16, 16, 5)), Job("b", None, 4, "FP32")]
    Call(cast(Fleet, FakeFleet(0)), jobs, seen.append).run()
    assert {progress.n_total for progress in seen} == {41}
    assert seen[-1].n_done == 41


@pytest.mark.parametrize("seed", range(50))
def test_call_stops_a_job_and_leaves_what_is_in_flight(seed: int) -> None:
    asked: list[tuple[int, int]] = []

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        asked.append((place, len(rows)))
        return place == 0 and len(rows) >= 3

    fleet = FakeFleet(seed)
    jobs = [Job("a", None, 500, "a", order=tuple(range(1000, 500, -1))), Job("b", None, 5, "b")]
    stopped, other = Call(cast(Fleet, fleet), jobs, enough=enough).run()
    assert not stopped.complete
    assert stopped.rows == tuple(stopped.iterations)
    assert list(stopped.iterations) == sorted(stopped.iterations, reverse=True)
    assert other.rows == (0, 1, 2, 3, 4)
    assert sum(place == 0 and n >= 3 for place, n in asked) == 1, "not asked again"
    assert len(fleet.left) <= 4


def test_call_waits_for_an_actor_that_an_earlier_call_left_busy() -> None:
    outcomes = (Outcome(run_seconds=3.0), Outcome(error=MeasureError("nobody wants to know")))
    old = [Left(Ref([outcome])) for outcome in outcomes]
    fleet = FakeFleet(0, left=old)
    [result] = Call(cast(Fleet, fleet), JOBS[:1]).run()
    assert result.rows == tuple(range(9))
    assert sum(outcome.run_seconds for outcome in fleet.settled) + 3.0 * (old[0] in fleet.left) == 3.0


def test_call_hands_over_an_error_of_enough() -> None:
    def fail(place: int, rows: Mapping[int, object]) -> bool:
        raise OSError("disk is full")

    with pytest.raises(OSError, match="disk"):
        Call(cast(Fleet, FakeFleet(0)), JOBS, enough=fail).run()


class Hanging(FakeFleet):
    """The second actor never answers a shard, but those that wait move the clock; a third may join."""

    def __init__(self, n_joining: int = 0) -> None:
        super().__init__(0)
        self.now, self.step = 0.0, 0.01
        self.n_actors = 2
        self.n_joining = n_joining
        self.calls: list[tuple[int, str]] = []
        self.hung: set[int] = set()
        self.cluster.wait = self.wait  # type: ignore[method-assign]

    def __len__(self) -> int:
        return self.n_actors

    def take_left(self, actor: int) -> list[Left]:
        return []

    def wait(self, refs: Sequence[Any], seconds: float) -> list[Any]:
        ready = [ref for ref in refs if id(ref) not in self.hung]
        self.now += self.step if ready else seconds
        assert self.now < 1000, "waits for the one that hangs"
        return ready

    def call(self, actor: int, method: str, key: str, label: str, *args: Any, n_returns: int = 1) -> Any:
        self.calls.append((actor, method))
        answer = super().call(actor, method, key, label, *args, n_returns=n_returns)
        if actor == 1 and method == "run":
            self.hung.add(id(answer))
        return answer

    def look(self) -> None:
        self.n_actors, self.n_joining = self.n_actors + self.n_joining, 0


class ShortOfMemory(FakeFleet):
    """The second actor dies on its first shard and is given up."""

    def __init__(self) -> None:
        super().__init__(0)
        self.retired: set[int] = set()
        self.calls: list[int] = []
        take = self.cluster.get

        def get(ref: list[Outcome]) -> Outcome:
            if not ref:
                raise ActorLost("no memory", for_memory=True)
            return take(ref)

        self.cluster.get = get  # type: ignore[method-assign]

    def is_retired(self, actor: int) -> bool:
        return actor in self.retired

    def replace(self, actor: int, for_memory: bool) -> None:
        assert for_memory
        self.retired.add(actor)

    def call(self, actor: int, method: str, key: str, label: str, *args: Any, n_returns: int = 1) -> Any:
        assert actor not in self.retired
        self.calls.append(actor)
        if actor == 1 and method == "run":
            return Ref([])
        return super().call(actor, method, key, label, *args, n_returns=n_returns)


def test_call_does_without_an_actor_that_has_no_memory() -> None:
    fleet = ShortOfMemory()
    for _ in range(2):
        results = Call(cast(Fleet, fleet), JOBS).run()
        assert [result.rows for result in results] == [tuple(range(job.n_iterations)) for job in JOBS]
    assert fleet.retired == {1}
    assert fleet.calls.count(1) < 5


def test_call_has_another_actor_do_what_one_is_late_with() -> None:
    fleet = Hanging()
    seen: list[Progress] = []
    jobs = [Job("a", None, 400, "a")]
    [result] = Call(cast(Fleet, fleet), jobs, seen.append, None, 0.01, clock=lambda: fleet.now).run()
    assert result.rows == tuple(range(400))
    assert (1, "run") in fleet.calls
    assert len(fleet.left) == 2, "it is left to its actor"
    assert seen[-1].n_done == seen[-1].n_total == 400


def test_call_counts_the_slower_answer_as_time_alone() -> None:
    """Both answers to a late shard come back while the call still waits for other rows."""
    fleet = Hanging()
    jobs = [Job("a", None, 4, "a"), Job("b", None, 400, "b")]
    call = Call(cast(Fleet, fleet), jobs, None, None, 0.01, clock=lambda: fleet.now)
    late = call._dispatcher.late

    def answer_soon(tasks: Sequence[Any]) -> None:
        late(tasks)
        call._feeder.ask_again()
        fleet.hung.clear()

    call._dispatcher.late = answer_soon  # type: ignore[method-assign]
    results = call.run()
    assert [result.rows for result in results] == [tuple(range(4)), tuple(range(400))]
    assert sum(result.run_seconds for result in results) > 0.4041


def test_call_uses_actors_that_join() -> None:
    fleet = Hanging(n_joining=2)
    fleet.step = 1.0
    jobs = [Job("a", None, 40_000, "a")]
    call = Call(cast(Fleet, fleet), jobs, None, None, 1e-3, 2, fleet.look, lambda: fleet.now)
    assert call.run()[0].rows == tuple(range(40_000))
    assert {actor for actor, method in fleet.calls if method == "run"} == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(20))
def test_call_hands_out_rows_before_enough_sees_them(seed: int) -> None:
    handed: dict[int, dict[int, object]] = {0: {}, 1: {}, 2: {}}
    seconds = []

    def on_rows(place: int, positions: range, rows: Sequence[object], run_seconds: float) -> None:
        assert handed[place].keys().isdisjoint(positions)
        handed[place].update(zip(positions, rows, strict=True))
        seconds.append(run_seconds)

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        assert handed[place] == rows
        return False

    results = Call(cast(Fleet, FakeFleet(seed)), JOBS, enough=enough, on_rows=on_rows).run()
    assert [tuple(handed[place][i] for i in sorted(handed[place])) for place in range(3)] == [r.rows for r in results]
    assert sum(seconds) == pytest.approx(sum(result.run_seconds for result in results))


@pytest.mark.parametrize("seed", range(20))
def test_call_hands_out_rows_that_nobody_waited_for(seed: int) -> None:
    """Those of a job that was stopped come in the next call, or with what is left after the last."""
    fleet = FakeFleet(seed)
    handed: list[int] = []

    def on_rows(place: int, positions: range, rows: Sequence[object], run_seconds: float) -> None:
        assert [*rows] == [*positions]
        handed.extend(positions)

    stop = partial(Call, cast(Fleet, fleet), [Job("a", None, 500, "a")], enough=lambda place, rows: len(rows) >= 3)
    [first] = stop(on_rows=on_rows).run()
    left = [task for task in fleet.left if task.keep is not None]
    Call(cast(Fleet, fleet), JOBS).run()
    for task in fleet.left:
        fleet.settle_one(task, fleet.cluster.get(task.outcome))
    later = sum(len(task.outcome[0].rows) for task in left)
    assert len(handed) == len(set(handed)) == len(first.rows) + later
    assert set(first.rows) <= set(handed)


def test_call_that_failed_hands_out_what_was_in_flight() -> None:
    handed: list[int] = []

    def on_rows(place: int, positions: range, rows: Sequence[object], run_seconds: float) -> None:
        handed.extend(positions)
        if len(handed) == 1:
            raise OSError("an error of something else")
        raise OutputError("the disk is full")  # not what is told

    call = Call(cast(Fleet, FakeFleet(0)), [Job("a", None, 500, "a")], on_rows=on_rows)
    with pytest.raises(OSError, match="something else"):
        call.run()
    call.drain()
    assert len(handed) == len(set(handed)) > 1


def test_call_that_was_interrupted_hands_out_what_comes_in_time() -> None:
    fleet = Hanging()
    handed: list[int] = []

    def on_rows(place: int, positions: range, rows: Sequence[object], run_seconds: float) -> None:
        handed.extend(positions)
        if len(handed) == len(positions):
            raise KeyboardInterrupt

    jobs = [Job("a", None, 40_000, "a")]
    call = Call(cast(Fleet, fleet), jobs, None, None, 1e-3, clock=lambda: fleet.now, on_rows=on_rows)
    with pytest.raises(KeyboardInterrupt):
        call.run()
    before, begun = len(handed), fleet.now
    fleet.hung.clear()
    fleet.step = 0.1
    call.rescue(0.15)
    assert len(handed) > before, "of the actor that has answered by now"
    fleet.hung = {id(flying[0].outcome) for flying in call._flying if flying}
    call.rescue(3.0)
    assert fleet.now - begun < 4.0, "it does not wait for ever"
