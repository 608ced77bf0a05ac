"""Which images a ranking looks at."""

import numpy as np
import pytest

from distcalib.calibration.ranking_sample import Sample, Values, picked


def kept(iterations: tuple[int, ...], batch: int) -> dict[int, Values]:
    """Two outputs, whose rows tell the number of their image."""
    numbers = {i: np.arange(i * batch, (i + 1) * batch, dtype=np.float32) for i in iterations}
    return {i: (row.reshape(batch, 1), -row.reshape(batch, 1, 1)) for i, row in numbers.items()}


@pytest.mark.parametrize(
    ("iterations", "batch", "shape"),
    [
        ((0, 50), 100, (1, 50)),
        ((0, 5, 10, 15), 50, (1, 50)),
        ((0, 7), 500, (1, 50)),
        ((0, 7, 9), 32, (2, 25)),
        (tuple(range(0, 100, 4)), 8, (7, 8)),
    ],
    ids=["two", "four", "large", "uneven", "small"],
)
def test_picked_takes_a_quarter_of_the_images_evenly(
    iterations: tuple[int, ...], batch: int, shape: tuple[int, int]
) -> None:
    asked: list[int] = []

    def can_be(n: int) -> bool:
        asked.append(n)
        return True

    sample = picked(kept(iterations, batch), batch, can_be)
    assert asked == ([shape[1]] if shape[1] < batch else [])
    assert sample.images is not None
    assert sample.images.shape == shape
    assert sample.share_of(batch) == shape[1] / batch
    assert sample.images.dtype == np.int32
    numbers = sample.images.ravel().tolist()
    assert numbers == sorted(set(numbers)), "each once, in the order of the data"
    n_of = [sum(number // batch == i for number in numbers) for i in iterations]
    assert sum(n_of) == shape[0] * shape[1]
    assert max(n_of) - min(n_of) <= 2
    assert list(sample.reference) == list(range(shape[0]))
    for row, values in sample.reference.items():
        for value, sign in zip(values, (1, -1), strict=True):
            assert (sign * value.reshape(-1)).tolist() == sample.images[row].tolist()


def never(n: int) -> bool:
    """No other batch will do."""
    return False


def test_picked_fills_the_batches_of_a_net_that_takes_no_others() -> None:
    sample = picked(kept((0, 3), 100), 100, never)
    assert sample.images is not None
    assert sample.images.shape == (1, 100)
    assert sample.share_of(100) == 1.0


@pytest.mark.parametrize(("iterations", "batch"), [((0,), 100), ((0, 1), 25), ((0, 3), 10)], ids=str)
def test_picked_leaves_what_is_little_as_it_is(iterations: tuple[int, ...], batch: int) -> None:
    values = kept(iterations, batch)
    assert picked(values, batch, never) == Sample(values)


def test_picked_leaves_values_without_a_row_for_each_image() -> None:
    values = {i: (*kept((i,), 100)[i], np.zeros((1, 1, 7, 7), np.float32)) for i in (0, 50)}
    assert picked(values, 100, never) == Sample(values)


@pytest.mark.parametrize("batch", [100, 50, 10])
def test_picked_sees_classes_that_take_turns(batch: int) -> None:
    sample = picked(kept(tuple(range(200 // batch)), batch), batch, lambda _: True)
    assert sample.images is not None
    for n_classes in (2, 5, 10):
        seen = np.bincount(sample.images.ravel() % n_classes, minlength=n_classes)
        assert seen.min() > 50 / n_classes / 3
