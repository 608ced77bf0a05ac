"""Which iterations stand for all."""

import pytest

from distcalib.calibration.goal import evenly, ranked_iterations


@pytest.mark.parametrize(
    ("n_iterations", "batch", "expected"),
    [
        pytest.param(100, 100, (0, 50), id="resnet20"),
        pytest.param(18, 50, (0, 4, 9, 13), id="digits"),
        pytest.param(1, 10, (0,), id="one"),
        pytest.param(10, 1000, (0, 5), id="large_batches"),
    ],
)
def test_ranked_iterations_are_spread_over_the_data(n_iterations: int, batch: int, expected: tuple[int, ...]) -> None:
    assert ranked_iterations(n_iterations, batch) == expected


def test_evenly_takes_all_where_there_are_no_more() -> None:
    assert [evenly(10, n) for n in (1, 3, 10, 99)] == [(0,), (0, 3, 6), tuple(range(10)), tuple(range(10))]


@pytest.mark.parametrize(
    ("batch", "image_bytes", "n"),
    [
        pytest.param(8, 4000, 25, id="logits"),
        pytest.param(8, 873_240, 10, id="ssd300"),
        pytest.param(32, 873_240, 3, id="ssd300_large_batch"),
        pytest.param(8, 2**30, 2, id="huge"),
    ],
)
def test_ranked_iterations_are_fewer_where_the_compared_values_are_large(batch: int, image_bytes: int, n: int) -> None:
    assert len(ranked_iterations(1000, batch, image_bytes)) == n
