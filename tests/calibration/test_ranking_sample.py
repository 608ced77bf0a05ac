"""Which images a ranking looks at."""

import numpy as np
import pytest

from distcalib.calibration.ranking_sample import LEAST_STACKED, Sample, Values, picked
from distcalib.engine.ranking_split import STACKED


def kept(iterations: tuple[int, ...], batch: int) -> dict[int, Values]:
    """Two outputs, whose rows tell the number of their image."""
    numbers = {i: np.arange(i * batch, (i + 1) * batch, dtype=np.float32) for i in iterations}
    return {i: (row.reshape(batch, 1), -row.reshape(batch, 1, 1)) for i, row in numbers.items()}


@pytest.mark.parametrize(
    ("iterations", "batch", "stack", "shape"),
    [
        ((0, 50), 100, False, (1, 35)),
        ((0, 5, 10, 15), 50, False, (1, 35)),
        ((0, 7), 500, False, (1, 35)),
        ((0, 7, 9), 32, False, (2, 18)),
        (tuple(range(0, 100, 4)), 8, False, (5, 7)),
        ((0, 50), 100, True, (7, 5)),
        ((0,), 500, True, (7, 5)),
        ((0, 5, 10, 15), 50, True, (12, 3)),
        ((0, 7, 9), 32, True, (18, 2)),
        ((0, 50), 26, True, (18, 2)),
        (tuple(range(0, 100, 4)), 8, True, (35, 1)),
        ((0, 3), 10, True, (20, 1)),
    ],
    ids=str,
)
def test_picked_takes_about_35_images_evenly(
    iterations: tuple[int, ...], batch: int, stack: bool, shape: tuple[int, int]
) -> None:
    asked: list[int] = []

    def can_be(n: int) -> bool:
        asked.append(n)
        return stack or n == shape[1]

    sample = picked(kept(iterations, batch), batch, can_be)
    n_together = min(STACKED, batch - 1) if stack else 0
    if stack:
        assert asked == [n for n in (shape[1], shape[1] * (n_together + 1)) if n != batch]
    assert max(asked, default=0) <= batch, "no more memory than a pass takes"
    assert sample.n_together == n_together
    assert sample.images is not None
    assert sample.images.shape == shape
    assert sample.share_of(batch) == shape[1] / batch
    assert sample.images.dtype == np.int32
    numbers = sample.images.ravel().tolist()
    assert numbers == sorted(set(numbers)), "each once, in the order of the data"
    n_of = [sum(number // batch == i for number in numbers) for i in iterations]
    assert sum(n_of) == shape[0] * shape[1]
    assert max(n_of) - min(n_of) <= 3
    assert list(sample.reference) == list(range(shape[0]))
    for row, values in sample.reference.items():
        for value, sign in zip(values, (1, -1), strict=True):
            assert (sign * value.reshape(-1)).tolist() == sample.images[row].tolist()


@pytest.mark.parametrize(("iterations", "batch"), [((0,), 30), ((0, 1), 13), ((0,), 26)], ids=str)
def test_of_a_few_images_a_stack_leaves_none_out(iterations: tuple[int, ...], batch: int) -> None:
    sample = picked(kept(iterations, batch), batch, lambda _: True)
    assert sample.n_together
    assert sample.images is not None
    assert sorted(sample.images.ravel().tolist()) == [i * batch + row for i in iterations for row in range(batch)]


@pytest.mark.parametrize("impossible", [5, 5 * (STACKED + 1)], ids=["few", "many"])
def test_picked_stacks_nothing_where_the_net_cannot_be_of_so_many(impossible: int) -> None:
    sample = picked(kept((0, 50), 100), 100, lambda n: n != impossible)
    assert not sample.n_together
    assert sample.images is not None
    assert sample.images.shape == (1, 35)


@pytest.mark.parametrize("batch", [1, 2, LEAST_STACKED])
def test_picked_stacks_nothing_where_a_batch_is_hardly_more_than_an_image(batch: int) -> None:
    assert not picked(kept(tuple(range(100)), batch), batch, lambda _: True).n_together
    assert picked(kept(tuple(range(100)), LEAST_STACKED + 1), LEAST_STACKED + 1, lambda _: True).n_together


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
