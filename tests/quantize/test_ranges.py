"""Ranges over iterations."""

import itertools

import numpy as np
import pytest

from distcalib.caffe.graph import Blob
from distcalib.quantize.ranges import Range, merge_ranges

A, B = Blob("a", 0), Blob("a", 1)
PARTS = [np.array(part, np.float32) for part in ([[-1, 2], [0, 1]], [[-3, 1], [0, 8]], [[0, 0], [-5, 7]])]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_merge_ranges_takes_parts_in_any_order(order: tuple[int, ...]) -> None:
    merged = merge_ranges([A, B], (PARTS[i] for i in order))
    assert merged == {A: Range(-3.0, 2.0), B: Range(-5.0, 8.0)}


def test_merge_ranges_keeps_what_is_no_number() -> None:
    merged = merge_ranges([A], [np.array([[0, np.nan]], np.float32), np.array([[0, 1]], np.float32)])
    assert np.isnan(merged[A].max_abs)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        pytest.param(-3.0, 2.0, 3.0, id="negative"),
        pytest.param(-1.0, 2.0, 2.0, id="positive"),
        pytest.param(0.0, 0.0, 0.0, id="zero"),
        pytest.param(-np.inf, 2.0, np.inf, id="infinite"),
        pytest.param(np.nan, 2.0, np.nan, id="low_is_no_number"),
        pytest.param(-1.0, np.nan, np.nan, id="high_is_no_number"),
    ],
)
def test_max_abs_is_the_largest_size(low: float, high: float, expected: float) -> None:
    np.testing.assert_equal(Range(low, high).max_abs, expected)
