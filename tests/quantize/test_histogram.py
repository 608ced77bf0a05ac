"""Histograms that double: exact, whatever the order."""

import itertools
from collections.abc import Iterable
from functools import reduce

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.quantize.histogram import N_BINS, Histogram, count


def values(seed: int, size: float, n: int = 5000) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=n) * size).astype(np.float32)


PARTS = [values(0, 1.0), values(1, 3.0), values(2, 1e-3), np.zeros(7, np.float32), values(3, 700.0, 11)]


def merge(histograms: Iterable[Histogram]) -> Histogram:
    return reduce(Histogram.__add__, histograms)


def same(a: Histogram, b: Histogram) -> bool:
    return a.exponent == b.exponent and np.array_equal(a.counts, b.counts)


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(PARTS))))[::11], ids=str)
def test_merge_is_the_histogram_of_all_values_in_any_order(order: tuple[int, ...]) -> None:
    assert same(merge(count(PARTS[i]) for i in order), count(np.concatenate(PARTS)))


def test_merge_does_not_depend_on_how_parts_are_grouped() -> None:
    a, b, c, d, e = map(count, PARTS)
    assert same((a + b) + (c + (d + e)), a + (b + (c + d)) + e)


@pytest.mark.parametrize("largest", [1.0, 1.9999999, 2.0, 3.0, 1e-30, 1e-42, 0.0, 3.4e38])
def test_count_uses_the_upper_half_of_its_bins(largest: float) -> None:
    found = count(np.array([0.0, largest, -largest], np.float32))
    assert found.counts.sum() == 3
    assert len(found.counts) == N_BINS
    top = int(np.flatnonzero(found.counts)[-1])
    assert top >= N_BINS // 2 or largest < 1.2e-38  # below the normal floats one bin is enough
    assert top * found.width <= np.float32(largest) < (top + 1) * found.width


def test_count_puts_a_value_into_the_bin_that_holds_it() -> None:
    x = values(4, 2.0)
    found = count(x)
    expected = np.histogram(np.abs(x), bins=N_BINS, range=(0, N_BINS * found.width))[0]
    assert np.array_equal(found.counts, expected)
