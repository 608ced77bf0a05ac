"""Resuming with a pool that computes rows on the spot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.actors import Enough, Job, JobResult, OnRows
from distcalib.actors.isa import Isa
from distcalib.engine.spec import NetSpec, Row
from distcalib.errors import OutputError
from distcalib.journal import Journal, Recorded
from distcalib.journal.keys import Keys
from distcalib.journal.resume import Resuming
from distcalib.metrics import Partial

SPEC, OTHER = NetSpec(b"net", "net"), NetSpec(b"other", "net")


class _Crash(Exception):
    """The driver dies."""


class _Pool:
    """Runs shards of two rows, from the last to the first; dies before shard `crash_at`."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.ran: list[tuple[bytes, int]] = []
        self.n_calls = 0
        self._crash_at = crash_at
        self._n_shards = 0

    def __call__(self, jobs: Sequence[Job], enough: Enough | None, on_rows: OnRows | None) -> list[JobResult]:
        self.n_calls += 1
        return [self._run(place, job, enough, on_rows) for place, job in enumerate(jobs)]

    def _run(self, place: int, job: Job, enough: Enough | None, on_rows: OnRows | None) -> JobResult:
        assert isinstance(job.spec, NetSpec)
        rows: dict[int, object] = {}
        for begin in reversed(range(0, job.n_iterations, 2)):
            if self._n_shards == self._crash_at:
                raise _Crash
            self._n_shards += 1
            numbers = job.numbers[begin : begin + 2]
            self.ran += [(job.spec.net, number) for number in numbers]
            made = [row_of(job.spec, number) for number in numbers]
            if on_rows is not None:
                on_rows(place, numbers, made, 0.5 * len(made))
            rows.update(zip(numbers, made, strict=True))
            if enough is not None and enough(place, rows):
                break
        return JobResult.of(job, rows, 0.5 * len(rows), 1.0, 2.0)


def row_of(spec: NetSpec, number: int) -> Row:
    """What the iteration `number` of `spec` gives."""
    return Row({"score": Partial(len(spec.net) * 1000 + number, 7)}, (), None)


@pytest.fixture
def resuming(tmp_path: Path) -> Iterator[Resuming]:
    """With an empty journal."""
    with Journal(tmp_path) as journal:
        yield Resuming(journal, Keys({}, [], Isa("cascadelake", False, "avx2"), {}))


def _again(resuming: Resuming) -> Resuming:
    return Resuming(resuming.journal, resuming.keys)


JOB = Job("a", SPEC, 7, "a")
ORDERED = replace(JOB, n_iterations=5, order=(9, 2, 5, 0, 4), row_sizes=(1, 2, 3, 4, 5))


@pytest.mark.parametrize("job", [JOB, ORDERED], ids=["all", "in an order"])
@pytest.mark.parametrize("crash_at", range(4))
def test_run_measures_no_row_again_after_a_crash(resuming: Resuming, job: Job, crash_at: int) -> None:
    whole = _Pool()([job], None, None)[0]
    crashed = _Pool(crash_at)
    if crash_at < -(-job.n_iterations // 2):
        with pytest.raises(_Crash):
            resuming.run(crashed, [job])
    else:
        resuming.run(crashed, [job])
    pool, second = _Pool(), _again(resuming)
    [found] = second.run(pool, [job])
    assert sorted(crashed.ran + pool.ran) == sorted({*crashed.ran, *pool.ran})
    assert len(crashed.ran + pool.ran) == job.n_iterations
    assert (second.n_recorded, second.n_measured) == (len(crashed.ran), len(pool.ran))
    assert pool.n_calls == (1 if pool.ran else 0)
    assert (found.rows, list(found.iterations), found.size) == (whole.rows, list(whole.iterations), whole.size)
    assert found.complete
    assert found.n_recorded == len(crashed.ran)
    assert found.run_seconds == pytest.approx(whole.run_seconds)  # of rows from the journal what they took then


def test_run_asks_for_other_rows_of_the_same_program_only(resuming: Resuming) -> None:
    resuming.run(_Pool(), [replace(JOB, n_iterations=3)])
    pool = _Pool()
    found = resuming.run(pool, [replace(JOB, key="b", spec=OTHER, n_iterations=2), JOB])
    assert sorted(pool.ran) == [(b"net", 3), (b"net", 4), (b"net", 5), (b"net", 6), (b"other", 0), (b"other", 1)]
    assert [result.key for result in found] == ["b", "a"]
    assert found[0].rows == (row_of(OTHER, 0), row_of(OTHER, 1))
    assert found[1].rows == tuple(row_of(SPEC, i) for i in range(7))


def test_run_leaves_the_missing_rows_with_the_actors_that_they_were_for(resuming: Resuming) -> None:
    job = replace(JOB, order=(0, 3, 6, 1, 2, 4, 5), homes=(3, 0, 4))
    resuming.run(_Pool(), [replace(JOB, n_iterations=3, order=(3, 1, 5))])
    asked: list[Job] = []
    pool = _Pool()

    def run(jobs: Sequence[Job], enough: Enough | None, on_rows: OnRows | None) -> list[JobResult]:
        asked.extend(jobs)
        return pool(jobs, enough, on_rows)

    [found] = resuming.run(run, [job])
    assert (asked[0].order, asked[0].homes) == ((0, 6, 2, 4), (2, 0, 2))
    assert found.rows == tuple(row_of(SPEC, i) for i in (0, 3, 6, 1, 2, 4, 5))


def test_run_shows_recorded_rows_to_enough(resuming: Resuming) -> None:
    resuming.run(_Pool(), [replace(JOB, n_iterations=4)])
    asked: list[list[int]] = []

    def at_least(n: int) -> Enough:
        def enough(place: int, rows: object) -> bool:
            assert isinstance(rows, dict)
            assert place == 0
            asked.append(sorted(rows))
            return len(rows) >= n

        return enough

    pool = _Pool()
    [found] = resuming.run(pool, [JOB], at_least(4))
    assert (pool.n_calls, asked, found.complete) == (0, [[0, 1, 2, 3]], False)
    assert list(found.iterations) == [0, 1, 2, 3]
    asked.clear()
    [found] = resuming.run(pool, [JOB], at_least(5))
    assert asked == [[0, 1, 2, 3], [0, 1, 2, 3, 6]]  # the pool's last shard comes first
    assert list(found.iterations) == [0, 1, 2, 3, 6]


def test_run_shows_rows_by_number_whatever_their_order(resuming: Resuming) -> None:
    resuming.run(_Pool(), [replace(JOB, n_iterations=2, order=(5, 9))])
    asked: list[list[int]] = []

    def enough(place: int, rows: Mapping[int, object]) -> bool:
        assert rows == {number: row_of(SPEC, number) for number in rows}
        asked.append(list(rows))
        return False

    [found] = resuming.run(_Pool(), [ORDERED], enough)
    assert asked == [[9, 5], [9, 5, 4], [9, 5, 4, 2, 0]]
    assert (found.iterations, found.size, found.n_recorded) == ((9, 2, 5, 0, 4), 15, 0)


def test_run_commits_rows_before_enough_sees_them(resuming: Resuming) -> None:
    key = resuming.keys.key(SPEC)

    def enough(place: int, rows: object) -> bool:
        assert isinstance(rows, dict)
        assert resuming.journal.rows(key, range(7)).keys() == rows.keys()
        return False

    resuming.run(_Pool(), [JOB], enough)


def test_run_counts_its_own_rows_as_measured(resuming: Resuming) -> None:
    """The same program asked for once more in one run comes from the journal, and is no earlier run's."""
    resuming.run(_Pool(), [JOB])
    pool = _Pool()
    [found] = resuming.run(pool, [JOB])
    assert pool.n_calls == 0
    assert found.complete
    assert (found.n_recorded, found.run_seconds) == (0, 0.0)
    assert (resuming.n_recorded, resuming.n_measured) == (0, JOB.n_iterations)


def test_run_takes_rows_that_come_after_its_end_and_once(resuming: Resuming) -> None:
    late: list[OnRows] = []

    def stopped(jobs: Sequence[Job], enough: Enough | None, on_rows: OnRows | None) -> list[JobResult]:
        assert on_rows is not None
        late.append(on_rows)
        return _Pool()(jobs, lambda place, rows: True, on_rows)  # after the last shard

    [first] = resuming.run(stopped, [ORDERED])
    assert list(first.iterations) == [4]
    assert resuming.recorded(ORDERED).iterations == (4,)
    for _ in range(2):
        late[0](0, (9, 2), [row_of(SPEC, 9), row_of(SPEC, 2)], 1.0)
    assert resuming.n_measured == 3
    found = resuming.recorded(ORDERED)
    assert (found.iterations, found.rows) == ((9, 2, 4), tuple(row_of(SPEC, i) for i in (9, 2, 4)))
    assert (found.complete, resuming.recorded(replace(JOB, spec=OTHER)).rows) == (False, ())


def test_run_says_that_a_row_is_damaged(resuming: Resuming) -> None:
    resuming.journal.store(resuming.keys.key(JOB.spec), {0: Recorded(b"no row", 1.0)})
    with pytest.raises(OutputError, match=r"is damaged \(no row: .*\); move it, or give another --out"):
        resuming.run(_Pool(), [JOB])
