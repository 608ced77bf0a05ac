"""Merging: exact, and the same in any order."""

import math
import random
from fractions import Fraction

import pytest

from distcalib.metrics import Partial, class_counts, mean


def test_mean_is_over_iterations_not_over_labels() -> None:
    assert mean([Partial(1, 1), Partial(0, 99)]) == 0.5


def test_mean_of_counts_is_rounded_once() -> None:
    partials = [Partial(k % 4, 3 + k % 5) for k in range(997)]
    exact = sum((Fraction(int(p.numerator), p.denominator) for p in partials), Fraction()) / len(partials)
    assert mean(partials) == float(exact)


def test_mean_of_equal_values_is_that_value() -> None:
    assert mean([Partial(8187, 10000)] * 7) == 0.8187
    assert mean([Partial(0.1, 1)] * 10) == 0.1


@pytest.mark.parametrize("kind", [int, float])
def test_mean_does_not_depend_on_order(kind: type) -> None:
    rng = random.Random(0)
    partials = [
        Partial(kind(rng.randrange(10**6)) * (10.0 ** -(k % 9) if kind is float else 1), 1 + k % 7) for k in range(300)
    ]
    expected = mean(partials)
    for _ in range(20):
        rng.shuffle(partials)
        assert mean(partials) == expected


def test_mean_counts_an_iteration_without_labels_as_zero() -> None:
    assert Partial(0, 0).value == 0.0
    assert mean([Partial(0, 0), Partial(3, 3)]) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_mean_shows_a_loss_that_is_no_number(bad: float) -> None:
    assert not math.isfinite(mean([Partial(1.0, 1), Partial(bad, 1)]))


def test_mean_needs_an_iteration() -> None:
    with pytest.raises(ValueError, match="no iterations"):
        mean([])


def test_mean_weighs_iterations_by_their_records() -> None:
    assert mean([Partial(50, 50, 50), Partial(0, 25, 25)]) == float(Fraction(50, 75))
    assert mean([Partial(1.0, 1, 50), Partial(0.25, 1, 25)]) == pytest.approx(0.75)


@pytest.mark.parametrize("n_records", [1, 7, 50])
def test_mean_of_iterations_of_as_many_records_is_caffes(n_records: int) -> None:
    """To the last bit, whatever that number is."""
    rng = random.Random(1)
    losses = [rng.random() for _ in range(99)]
    assert mean([Partial(loss, 3, n_records) for loss in losses]) == math.fsum(loss / 3 for loss in losses) / 99


def test_class_counts_are_those_of_all_iterations() -> None:
    parts = [Partial(3, 5, by_class=((2, 1), (3, 2), (0, 0))), Partial(1, 4, by_class=((0, 0), (4, 1), (0, 0)))]
    assert class_counts(parts) == class_counts(reversed(parts)) == ((2, 1), (7, 3), (0, 0))
    assert class_counts([Partial(3, 5)]) == ()
