"""What a job says of itself."""

import pytest

from distcalib.actors.jobs import Job, describe_iterations


def test_job_maps_positions_to_iterations() -> None:
    assert Job("a", None, 9, "a").iterations_at(range(2, 4)) == range(2, 4)
    assert Job("a", None, 4, "a", order=(7, 1, 5, 0)).iterations_at(range(1, 3)) == (1, 5)


def test_job_has_the_size_of_its_rows() -> None:
    assert Job("a", None, 9, "a").size == 9
    job = Job("a", None, 3, "a", row_sizes=(16, 16, 5))
    assert job.size == 37
    assert job.size_of([0, 2]) == 21


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
