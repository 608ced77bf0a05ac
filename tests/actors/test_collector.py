"""What the collector refuses; in earnest neither dispatcher nor worker should ever bring it there."""

import pytest

from distcalib.actors.actor import Outcome
from distcalib.actors.collector import Collector
from distcalib.actors.dispatcher import Kind, Task
from distcalib.actors.jobs import Job, JobResult
from distcalib.errors import MeasureError


def run(first: int, last: int) -> Task:
    return Task(Kind.RUN, 0, range(first, last))


def collector(n_iterations: int) -> Collector:
    return Collector(Job("key", None, n_iterations, "candidate"))


def test_collector_orders_rows_and_sums_seconds() -> None:
    table = collector(4)
    table.add(Task(Kind.COMPILE, 0), Outcome(compile_seconds=2.0, load_seconds=0.5))
    table.add(run(2, 4), Outcome(rows=["c", "d"], run_seconds=1.0))
    complete = [table.complete]
    table.add(Task(Kind.LOAD, 0), Outcome(load_seconds=0.25))
    table.add(run(0, 2), Outcome(rows=["a", "b"], run_seconds=3.0))
    assert [*complete, table.complete] == [False, True]
    assert table.result() == JobResult("key", ("a", "b", "c", "d"), 4, (0, 1, 2, 3), True, 4.0, 2.0, 0.75)


def test_collector_sums_the_sizes_of_the_rows() -> None:
    table = Collector(Job("key", None, 3, "ranges", row_sizes=(16, 16, 5)))
    table.add(run(0, 3), Outcome(rows=["a", "b", "c"]))
    assert table.result().size == 37


def test_collector_has_rows_by_number_and_gives_them_in_the_order_of_the_job() -> None:
    table = Collector(Job("key", None, 4, "candidate", row_sizes=(1, 2, 3, 4), order=(7, 1, 9, 0)))
    seen = table.rows
    table.add(run(2, 4), Outcome(rows=["c", "d"]))
    table.add(run(0, 1), Outcome(rows=["a"]))
    assert list(seen.items()) == [(9, "c"), (0, "d"), (7, "a")]
    assert table.size == 8
    assert table.result(partial=True) == JobResult("key", ("a", "c", "d"), 8, (7, 9, 0), False, 0.0, 0.0, 0.0)
    with pytest.raises(MeasureError, match=r"^candidate: iteration 1 did not come back"):
        table.result()
    with pytest.raises(MeasureError, match=r"^candidate: iteration 7 came back twice"):
        table.add(run(0, 2), Outcome(rows=["a", "b"]))


@pytest.mark.parametrize("rows", [[], ["a"], ["a", "b", "c"]], ids=["none", "too few", "too many"])
def test_collector_wants_a_row_for_each_iteration(rows: list[object]) -> None:
    with pytest.raises(MeasureError, match=f"^candidate, iterations 0-1: the worker returned {len(rows)} rows for 2"):
        collector(4).add(run(0, 2), Outcome(rows=rows))


def test_collector_refuses_a_row_twice() -> None:
    table = collector(4)
    table.add(run(0, 2), Outcome(rows=["a", "b"]))
    with pytest.raises(MeasureError, match=r"^candidate: iteration 1 came back twice"):
        table.add(run(1, 3), Outcome(rows=["b", "c"]))


def test_collector_refuses_a_result_with_holes() -> None:
    table = collector(4)
    table.add(run(1, 3), Outcome(rows=["b", "c"]))
    with pytest.raises(MeasureError, match=r"^candidate: iterations 0, 3 did not come back"):
        table.result()
