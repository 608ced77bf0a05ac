"""Which images a ranking looks at."""

import numpy as np
import pytest

from distcalib.calibration.ranking_sample import Sample, Values, picked


def kept(iterations: tuple[int, ...], batch: int) -> dict[int, Values]:
    """Two outputs, whose rows tell the number of their image."""
    numbers = {i: np.arange(i * batch, (i + 1) * batch, dtype=np.float32) for i in iterations}
    return {i: (row.reshape(batch, 1), -row.reshape(batch, 1, 1)) for i, row in numbers.items()}


@pytest.mark.parametrize(
    ("iterations", "batch", "n_batches"),
    [((0, 50), 100, 1), ((0, 5, 10, 15), 50, 2), ((0, 7), 500, 1), (tuple(range(0, 100, 4)), 8, 13)],
    ids=["two", "four", "large", "small"],
)
def test_picked_takes_half_the_images_evenly(iterations: tuple[int, ...], batch: int, n_batches: int) -> None:
    sample = picked(kept(iterations, batch), batch)
    assert sample.images is not None
    assert sample.images.shape == (n_batches, batch)
    assert sample.images.dtype == np.int32
    numbers = sample.images.ravel().tolist()
    assert numbers == sorted(set(numbers)), "each once, in the order of the data"
    n_of = [sum(number // batch == i for number in numbers) for i in iterations]
    assert sum(n_of) == n_batches * batch
    assert max(n_of) - min(n_of) <= 2
    assert list(sample.reference) == list(range(n_batches))
    for row, values in sample.reference.items():
        for value, sign in zip(values, (1, -1), strict=True):
            assert (sign * value.reshape(batch)).tolist() == sample.images[row].tolist()


@pytest.mark.parametrize(("iterations", "batch"), [((0,), 100), ((0, 1), 50), ((0, 3), 10)], ids=str)
def test_picked_leaves_what_is_little_as_it_is(iterations: tuple[int, ...], batch: int) -> None:
    values = kept(iterations, batch)
    assert picked(values, batch) == Sample(values)


def test_picked_leaves_values_without_a_row_for_each_image() -> None:
    values = {i: (*kept((i,), 100)[i], np.zeros((1, 1, 7, 7), np.float32)) for i in (0, 50)}
    assert picked(values, 100) == Sample(values)


@pytest.mark.parametrize("batch", [100, 50, 10])
def test_picked_sees_classes_that_take_turns(batch: int) -> None:
    sample = picked(kept(tuple(range(200 // batch)), batch), batch)
    assert sample.images is not None
    for n_classes in (2, 5, 10):
        seen = np.bincount(sample.images.ravel() % n_classes, minlength=n_classes)
        assert seen.min() > 100 / n_classes / 2
