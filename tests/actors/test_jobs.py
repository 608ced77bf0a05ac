"""What a job says of itself."""

from dataclasses import replace

import pytest

from distcalib.actors.jobs import Job, JobResult, describe_iterations


def test_job_maps_positions_to_iterations() -> None:
    assert Job("a", None, 9, "a").iterations_at(range(2, 4)) == range(2, 4)
    assert Job("a", None, 4, "a", order=(7, 1, 5, 0)).iterations_at(range(1, 3)) == (1, 5)


def test_job_has_the_size_of_its_rows() -> None:
    assert Job("a", None, 9, "a").size == 9
    job = Job("a", None, 3, "a", row_sizes=(16, 16, 5))
    assert job.size == 37
    assert job.size_of([0, 2]) == 21


WHOLE = Job("a", "spec", 6, "a", in_order=True, may_fail=True)
ORDERED = replace(
    WHOLE, row_sizes=(1, 2, 3, 4, 5, 6), order=(70, 3, 40, 5, 12, 1), homes=(2, 0, 3, 1), ranks=(1, 4, 0, 3, 5, 2)
)


def test_job_has_the_numbers_of_its_rows() -> None:
    assert WHOLE.numbers == range(6)
    assert ORDERED.numbers == (70, 3, 40, 5, 12, 1)


@pytest.mark.parametrize(
    ("job", "numbers", "rest"),
    [
        pytest.param(WHOLE, {4, 0, 1}, replace(WHOLE, n_iterations=3, order=(0, 1, 4)), id="of all"),
        pytest.param(
            ORDERED,
            (1, 5, 70),
            replace(
                ORDERED, n_iterations=3, row_sizes=(1, 4, 6), order=(70, 5, 1), homes=(1, 0, 1, 1), ranks=(1, 3, 2)
            ),
            id="in an order",
        ),
        pytest.param(
            replace(ORDERED, ranks=None),
            [12],
            replace(ORDERED, n_iterations=1, row_sizes=(5,), order=(12,), homes=(0, 0, 1, 0), ranks=None),
            id="one",
        ),
        pytest.param(WHOLE, range(6), WHOLE, id="all of all"),
        pytest.param(ORDERED, sorted(ORDERED.numbers), ORDERED, id="all in an order"),
    ],
)
def test_job_only_keeps_what_is_said_of_the_rows(job: Job, numbers: set[int], rest: Job) -> None:
    assert job.only(numbers) == rest


def test_result_is_of_the_rows_that_are_there_in_the_order_of_the_job() -> None:
    rows = {12: "e", 70: "a", 5: "d"}
    found = JobResult.of(ORDERED, rows, 4.0, 2.0, 1.0, n_recorded=2)
    assert found == JobResult("a", ("a", "d", "e"), 10, (70, 5, 12), False, 4.0, 2.0, 1.0, n_recorded=2)
    assert found.by_number == rows
    whole = JobResult.of(WHOLE, {number: str(number) for number in range(6)})
    assert whole == JobResult("a", ("0", "1", "2", "3", "4", "5"), 6, (0, 1, 2, 3, 4, 5), True, 0.0, 0.0, 0.0)
    assert JobResult.of(WHOLE, {}) == JobResult("a", (), 0, (), False, 0.0, 0.0, 0.0)


def test_results_of_two_parts_make_that_of_the_whole() -> None:
    first, second = (
        JobResult.of(part, {number: -number for number in part.numbers})
        for part in (ORDERED.only({1, 40, 3}), ORDERED.only({70, 5, 12}))
    )
    both = JobResult.of(ORDERED, {**second.by_number, **first.by_number})
    assert both == JobResult.of(ORDERED, {number: -number for number in ORDERED.numbers})
    assert (both.complete, both.size) == (True, first.size + second.size)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([3], "iteration 3"),
        (range(3, 8), "iterations 3-7"),
        ([9, 2], "iterations 9, 2"),
        ([7, 6, 5, 4, 3, 2], "iterations 7, 6, 5, 4, 3, 2"),
        ([9, 2, 4, 7, 1, 8, 5], "iterations 9, 2, 4, 7, ... 5"),
    ],
    ids=str,
)
def test_describe_iterations(numbers: list[int], said: str) -> None:
    assert describe_iterations(numbers) == said
