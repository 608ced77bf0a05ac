"""The pool with fake workers in real actors, which find a Ray running: they neither start another nor end that one."""

import gc
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.cloudpickle

from distcalib.actors import Blob, Cargo, Job, Placement, Progress
from distcalib.actors.pool import ActorPool
from distcalib.actors.ray_cluster import RayCluster, RaySource
from distcalib.errors import DataError, EngineError, MeasureError, OptionError
from tests.actors.pool_worker import EchoWorker, job, rows, shared
from tests.every import every

pytestmark = pytest.mark.usefixtures("one_ray")

# This file cannot be imported by name in an actor.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[ActorPool]:
    with ActorPool(
        EchoWorker, RaySource(), n_actors=2, env={"DISTCALIB_TEST_ISA": "AVX512_CORE"}, shared=shared(folder)
    ) as pool:
        yield pool


@pytest.fixture
def diary(folder: Path) -> Path:
    path = folder / "diary"
    path.unlink(missing_ok=True)
    return path


def test_pool_returns_rows_in_iteration_order_and_results_in_job_order(pool: ActorPool, diary: Path) -> None:
    jobs = [job("a", 50, sleep=0.002), job("b", 1), job("c", 7, sleep=0.01)]
    results = pool.run(jobs)
    assert [result.key for result in results] == [job.key for job in jobs]
    assert [result.rows for result in results] == [rows("a", 50), rows("b", 1), rows("c", 7)]


def test_pool_gives_the_same_rows_on_any_number_of_actors(pool: ActorPool, folder: Path) -> None:
    jobs = [job("a", 20, sleep=0.003), job("b", 5, sleep=0.01), job("c", 3)]
    found = [result.rows for result in pool.run(jobs)]
    for n_actors in (1, 3):
        with ActorPool(EchoWorker, RaySource(), n_actors=n_actors, shared=shared(folder)) as other:
            assert [result.rows for result in other.run(jobs)] == found


def test_pool_compiles_once_ships_the_program_and_drops_it(pool: ActorPool, diary: Path) -> None:
    pool.run([job("a", 60, sleep=0.01)])
    lines = diary.read_text().splitlines()
    assert lines.count("compile a") == 1
    assert lines.count("load key of a kept True") == 1
    assert lines.count("load key of a shipped False") == 1, "the other actor gets a read-only view of the program"
    assert lines.count("drop key of a") == 2


def test_pool_drops_finished_jobs_before_the_call_ends(pool: ActorPool) -> None:
    result = pool.run([job(f"{i}", 4, row="inside", sleep=0.02) for i in range(6)])
    held = [len(row["held"]) for one in result for row in one.rows if isinstance(row, dict)]
    assert max(held) <= 3


def test_pool_counts_actor_seconds(pool: ActorPool) -> None:
    [result] = pool.run([job("a", 40, sleep=0.01)])
    assert 0.4 <= result.run_seconds < 0.8
    assert result.compile_seconds > 0
    assert result.load_seconds > 0


def test_pool_reports_progress_over_all_jobs(pool: ActorPool) -> None:
    seen: list[Progress] = []
    pool.run([job("a", 9), job("b", 4)], seen.append)
    assert seen[-1].n_done == 13
    assert {progress.n_total for progress in seen} == {13}
    assert {progress.label for progress in seen} == {"candidate a", "candidate b"}
    assert [progress.n_done for progress in seen] == sorted({progress.n_done for progress in seen})


def test_pool_works_inside_pinned_processes(pool: ActorPool) -> None:
    [result] = pool.run([job("a", 40, sleep=0.01, row="inside")])
    inside = {row["pid"]: row for row in result.rows if isinstance(row, dict)}
    assert len(inside) == 2
    assert sorted(row["cpus"] for row in inside.values()) == sorted(place.cpus for place in pool.placements)
    for row in inside.values():
        assert row["affinity"] == row["cpus"]
        assert row["stray"] == ()
        assert row["env"] == "AVX512_CORE"
        assert row["sum"] == 1_000_000
        assert not row["writeable"]
        assert not row["owner"], "weights are a view into the object store"


def test_pool_closed_says_so_and_leaves_a_ray_that_was_there(folder: Path) -> None:
    pool = ActorPool(EchoWorker, RaySource(), n_actors=1, shared=shared(folder))
    pool.close()
    pool.close()
    with pytest.raises(MeasureError, match="closed"):
        pool.run([job("a", 1)])
    assert ray.is_initialized()


def test_pool_that_is_closed_meanwhile_has_ended_once_it_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    close = RayCluster.close

    def slowly(cluster: RayCluster) -> None:
        time.sleep(0.2)
        ended.append(threading.current_thread().name)
        close(cluster)

    monkeypatch.setattr(RayCluster, "close", slowly)
    pool = ActorPool(EchoWorker, RaySource(), n_actors=1, shared=shared(folder))
    pool.begin_close()
    assert ended == []
    with pytest.raises(MeasureError, match="closed"):
        pool.run([job("a", 1)])
    pool.begin_close()
    pool.close()
    assert ended == ["distcalib-close", "MainThread"], "the second time there is nothing left to end"


class Cycle:
    """Something of Ray's in a cycle, as the traceback of a call to an actor that died leaves it."""

    def __init__(self, held: object) -> None:
        self.held, self.itself = held, self


def test_nothing_of_ray_is_left_to_be_let_go_of_while_it_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends the process (1, and no word of Python's) if a reference goes while it shuts down in another thread."""
    left: list[bool] = []
    close = RayCluster.close
    pool = ActorPool(EchoWorker, RaySource(), n_actors=1, shared=shared(folder))
    held = Cycle(pool._cluster.put(1))
    watched = weakref.ref(held)

    def looked(cluster: RayCluster) -> None:
        left.append(watched() is not None)
        close(cluster)

    monkeypatch.setattr(RayCluster, "close", looked)
    gc.disable()
    try:
        del held
        pool.begin_close()
        pool.close()
    finally:
        gc.enable()
    assert left[0] is False


def test_pool_is_closed_by_close_where_no_thread_can_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ended: list[RayCluster] = []
    monkeypatch.setattr(RayCluster, "close", lambda cluster: ended.append(cluster))
    pool = ActorPool(EchoWorker, RaySource(), n_actors=1, shared=shared(folder))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.begin_close()
    assert ended == []
    pool.close()
    assert len(ended) == 1
    monkeypatch.undo()
    pool.begin_close()
    assert pool._closing is None, "it is closed already"


def test_pool_knows_when_actors_share_cores(pool: ActorPool, folder: Path) -> None:
    n_cores = pool.nodes[0].topology.n_usable
    assert pool.oversubscribed == (n_cores < 2)
    with ActorPool(EchoWorker, RaySource(), n_actors=n_cores + 1, shared=shared(folder)) as crowded:
        assert crowded.oversubscribed
        assert crowded.placements[-1].cpus == crowded.placements[0].cpus
        assert crowded.run([job("a", 9, sleep=0.01)])[0].rows == rows("a", 9)


@pytest.mark.parametrize(("n_actors", "cores"), [(0, 1), (1, 0), (1, 10_000)])
def test_pool_refuses_counts_before_it_starts_anything(n_actors: int, cores: int) -> None:
    with pytest.raises(OptionError):
        ActorPool(EchoWorker, RaySource(), n_actors=n_actors, cores_per_actor=cores)


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([job("a", 1), job("a", 1)], "jobs key of a: given more than once"),
        ([job("a", 0), job("b", -1), job("c", 1)], "candidate a, candidate b: no iterations"),
        (
            [replace(job(f"{sizes}", 2), row_sizes=sizes) for sizes in [(), (1,), (1, 0), (1, 2)]],
            r"^candidate \(\), candidate \(1,\), candidate \(1, 0\): row_sizes must be",
        ),
        (
            [replace(job(f"{order}", 2), order=order) for order in [(), (1,), (5, 5), (5, 1)]],
            r"^candidate \(\), candidate \(1,\), candidate \(5, 5\): order must have",
        ),
    ],
    ids=["same key", "no iterations", "row sizes", "order"],
)
def test_pool_refuses_jobs(pool: ActorPool, jobs: list[Job], said: str) -> None:
    with pytest.raises(MeasureError, match=said):
        pool.run(jobs)


def test_pool_of_no_jobs_has_no_results(pool: ActorPool) -> None:
    assert pool.run([]) == []


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        (job("expected", 30, raise_at=[17]), EngineError, "^layer 'pool5': refused; drop it$"),
        (
            job("unexpected", 30, raise_at=[17]),
            MeasureError,
            r"^candidate unexpected, iterations? \d+(-\d+)?: KeyError: 'pool5'; this is unexpected",
        ),
        (job("a", 3, compile_raises=EngineError("net: no")), EngineError, "^net: no$"),
        (
            job("a", 3, compile_raises=OSError("disk")),
            MeasureError,
            "^candidate a: compiling its program: OSError: disk; this is unexpected",
        ),
        (job("a", 1, n_rows=0), MeasureError, "^candidate a, iteration 0: the worker returned 0 rows for 1 "),
    ],
    ids=["running", "running, unexpected", "compiling", "compiling, unexpected", "rows missing"],
)
def test_pool_raises_what_the_worker_raised_and_goes_on(
    pool: ActorPool, diary: Path, bad: Job, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        pool.run([job("good", 20, sleep=0.005), bad])
    assert type(caught.value) is kind
    assert pool.run([job("after", 4)])[0].rows == rows("after", 4)
    lines = diary.read_text().splitlines()
    assert sum(line.startswith("load") for line in lines) == sum(line.startswith("drop") for line in lines)


def test_pool_shows_where_an_unexpected_error_happened(pool: ActorPool) -> None:
    with pytest.raises(MeasureError) as caught:
        pool.run([job("unexpected", 3, raise_at=[1])])
    assert 'KeyError("pool5")' in str(caught.value.__cause__)


def test_pool_hands_on_an_error_of_on_progress_and_goes_on(pool: ActorPool) -> None:
    def fail(progress: Progress) -> None:
        raise OSError("terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        pool.run([job("a", 20, sleep=0.01)], fail)
    assert pool.run([job("b", 2)])[0].rows == rows("b", 2)


@pytest.mark.parametrize("n_deaths", [1, 2])
def test_pool_replaces_an_actor_that_dies(
    pool: ActorPool, diary: Path, n_deaths: int, caplog: pytest.LogCaptureFixture
) -> None:
    result = pool.run([job("a", 40, sleep=0.005, die_at=[11], n_deaths=n_deaths), job("b", 20, sleep=0.005)])
    assert [one.rows for one in result] == [rows("a", 40), rows("b", 20)]
    assert diary.read_text().splitlines().count("death 11") == n_deaths + 1, "once it lived"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * n_deaths


def test_pool_replaces_an_actor_that_is_killed_and_pins_the_new_one(pool: ActorPool) -> None:
    before = pids(pool)
    os.kill(min(before), signal.SIGKILL)
    after = pids(pool)
    assert len(after) == 2
    assert after & before == {max(before)}


def test_actors_die_at_once_of_a_fault_of_memory(pool: ActorPool) -> None:
    [result] = pool.run([job("a", 4, row="inside")])
    assert [row["caught"] for row in result.rows if isinstance(row, dict)] == [[]] * 4


def pids(pool: ActorPool) -> set[int]:
    inside = [row for row in pool.run([job("a", 40, sleep=0.01, row="inside")])[0].rows if isinstance(row, dict)]
    assert every(row["affinity"] == row["cpus"] and not row["stray"] for row in inside)
    return {row["pid"] for row in inside}


def test_pool_stops_at_a_shard_that_kills_three_actors(pool: ActorPool) -> None:
    with pytest.raises(MeasureError, match=r"^candidate always, iterations? .*: 3 actors died on it"):
        pool.run([job("always", 10, die_at=[4])])
    assert pool.run([job("b", 2)])[0].rows == rows("b", 2)


def test_pool_says_when_the_worker_cannot_be_made(folder: Path) -> None:
    with pytest.raises(EngineError, match=r"^net.prototxt: cannot be built; try another$"):
        ActorPool(EchoWorker, RaySource(), n_actors=2, shared=shared(folder, fail_to_make=True))
    with pytest.raises(MeasureError, match=r"^actor 0 on CPU \d+: it died 3 times while starting"):
        ActorPool(EchoWorker, RaySource(), n_actors=1, shared=shared(folder, die_to_make=True))


def test_pool_keeps_at_most_two_tasks_in_flight(pool: ActorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    from distcalib.actors.execution import Call

    most = 0
    collect = Call._collect

    def spy(call: Call, actor: int) -> None:
        nonlocal most
        most = max(most, *map(len, call._flying))
        collect(call, actor)

    monkeypatch.setattr(Call, "_collect", spy)
    pool.run([job(f"{i}", 10, sleep=0.003) for i in range(4)])
    assert most == 2


def test_pool_runs_iterations_in_the_order_of_the_job(pool: ActorPool) -> None:
    order = (70, 3, 4, 5, 12, 1)
    [result] = pool.run([replace(job("a", 6, sleep=0.01), order=order)])
    assert result.iterations == order
    assert result.rows == tuple(("a", iteration) for iteration in order)
    assert result.complete


def test_pool_names_iterations_not_positions_in_errors(pool: ActorPool) -> None:
    with pytest.raises(MeasureError, match=r"^candidate unexpected, iteration 70: KeyError"):
        pool.run([replace(job("unexpected", 1, raise_at=[70]), order=(70,))])


def test_pool_stops_a_job_that_has_enough(pool: ActorPool) -> None:
    seen: list[Progress] = []

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        assert every(row == ("ab"[place], number) for number, row in rows.items())
        return place == 0 and len(rows) >= 10

    stopped, other = pool.run([job("a", 3000, sleep=0.01), job("b", 30, sleep=0.01)], seen.append, enough)
    assert not stopped.complete
    assert stopped.error is None
    assert 10 <= len(stopped.rows) == stopped.size < 60
    assert stopped.rows == tuple(("a", iteration) for iteration in stopped.iterations)
    assert other.rows == rows("b", 30)
    assert other.complete
    assert seen[-1].n_done == seen[-1].n_total == len(stopped.rows) + 30


def test_pool_completes_in_a_later_call_what_was_stopped(pool: ActorPool) -> None:
    [first] = pool.run([job("a", 60, sleep=0.01)], enough=lambda place, rows: len(rows) >= 7)
    missing = tuple(sorted(set(range(60)) - set(first.iterations)))
    assert missing
    [second] = pool.run([replace(job("a", len(missing), sleep=0.01), order=missing)])
    found = {**first.by_number, **second.by_number}
    assert tuple(found[iteration] for iteration in range(60)) == rows("a", 60)


def test_pool_does_not_wait_for_tasks_that_nobody_wants(pool: ActorPool, diary: Path) -> None:
    """The job that was stopped sits in one long task when the call ends; the next call does without its actor until
    then, though it uses the same keys."""
    pool.settle()
    long = replace(job("b", 2, sleep_at={1: 4.0}), homes=(0, 2))
    begun = time.monotonic()
    short, stopped = pool.run([job("a", 3, sleep=0.1), long], enough=lambda place, rows: place == 1)
    [again] = pool.run([replace(job("c", 20, sleep=0.01), key=long.key)])
    assert time.monotonic() - begun < 3.5
    assert short.rows == rows("a", 3)
    assert (stopped.rows, stopped.complete) == (rows("b", 1), False)
    assert again.rows == rows("c", 20)
    assert pool.settle() > 3.0
    assert pool.settle() == 0.0
    lines = diary.read_text().splitlines()
    assert sum(line.startswith("load") for line in lines) == sum(line.startswith("drop") for line in lines)


@pytest.mark.parametrize(
    ("bad", "kind", "said"),
    [
        (job("bad", 30, compile_raises=EngineError("net: no")), EngineError, "^net: no$"),
        (job("bad", 30, sleep=0.005, raise_at=[17]), EngineError, "^layer 'pool5': refused; drop it$"),
        (
            job("unexpected", 30, raise_at=[17]),
            MeasureError,
            r"^candidate unexpected, iterations? .*: KeyError: 'pool5'",
        ),
        (job("always", 30, die_at=[4]), MeasureError, r"^candidate always, iterations? .*: 3 actors died on it"),
    ],
    ids=["compiling", "running", "unexpected", "deaths"],
)
def test_pool_sets_a_job_aside_that_may_fail(pool: ActorPool, bad: Job, kind: type[Exception], said: str) -> None:
    before, failed, after = pool.run(
        [job("before", 60, sleep=0.01), replace(bad, may_fail=True), job("after", 20, sleep=0.01)]
    )
    assert before.rows == rows("before", 60)
    assert after.rows == rows("after", 20)
    assert type(failed.error) is kind
    assert re.search(said, str(failed.error))
    assert not failed.complete
    assert failed.rows == tuple((bad.spec["name"], iteration) for iteration in failed.iterations)  # type: ignore[index]
    assert pool.run([job("b", 2)])[0].rows == rows("b", 2)


def test_pool_ends_a_call_whose_data_cannot_be_read(pool: ActorPool) -> None:
    """Though the job may fail: it is no fault of its program, and all others would meet it."""
    with pytest.raises(DataError, match="mine: not there"):
        pool.run([replace(job("bad", 30, compile_raises=DataError("mine: not there")), may_fail=True), job("b", 20)])
    assert pool.run([job("b", 2)])[0].rows == rows("b", 2)


def test_pool_gives_a_job_that_may_fail_another_chance_after_a_death(pool: ActorPool, diary: Path) -> None:
    [result] = pool.run([replace(job("a", 30, sleep=0.005, die_at=[11], n_deaths=1), may_fail=True)])
    assert result.rows == rows("a", 30)
    assert result.error is None


def test_pool_goes_on_where_an_actor_died_over_what_nobody_waited_for(pool: ActorPool) -> None:
    doomed = replace(job("always", 2, sleep_at={1: 1.0}, die_at=[1]), homes=(0, 2))
    wanted, stopped = pool.run([job("a", 2, sleep=0.05), doomed], enough=lambda place, rows: place == 1)
    assert (wanted.rows, stopped.rows) == (rows("a", 2), rows("always", 1))
    assert pool.run([job("b", 200, sleep=0.01)])[0].rows == rows("b", 200)


class CargoWorker(EchoWorker):
    """Rows tell what came as pieces, and how."""

    def __init__(self, shared: dict[str, Any], placement: Placement, pieces: Sequence[Blob]) -> None:
        super().__init__(shared, placement)
        self.pieces = pieces

    def row(self, spec: dict[str, Any], iteration: int) -> object:
        return [(int(piece[0]), len(piece), piece.flags.writeable, piece.flags.owndata) for piece in self.pieces]


def test_pool_hands_its_cargo_to_every_actor_and_to_one_that_takes_the_place_of_another(tmp_path: Path) -> None:
    held: list[int] = []

    def pieces(nodes: Sequence[object]) -> Iterator[Blob]:
        for number in range(3):
            held.append(number)
            yield np.full(200_000 + number, number, np.uint8)

    deadly = [
        replace(job(f"{i}", 2, sleep=0.1, die_at=[1] if i == 0 else [], n_deaths=1), label=f"{i}") for i in range(4)
    ]
    with ActorPool(CargoWorker, RaySource(), n_actors=2, shared=shared(tmp_path), cargo=Cargo(pieces)) as pool:
        results = pool.run(deadly)
    assert held == [0, 1, 2]
    expected = [(number, 200_000 + number, False, False) for number in range(3)]
    assert [list(result.rows) for result in results] == [[expected, expected]] * 4
    assert (tmp_path / "diary").read_text().count("death 1") == 2, "one died, and its work was done again"
