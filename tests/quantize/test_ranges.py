"""Ranges over iterations."""

import numpy as np
import pytest

from distcalib.caffe.graph import Blob
from distcalib.errors import OptionError
from distcalib.quantize.ranges import Range, merge_ranges, observe, observe_ends
from distcalib.quantize.thresholds import ALGORITHMS

A, B = Blob("a", 0), Blob("a", 1)
ENDS = [((-1.0, 2.0), (0.0, 1.0)), ((-3.0, 1.0), (0.0, 8.0)), ((0.0, 0.0), (-5.0, 7.0))]


def test_merge_ranges_keeps_the_ends_and_the_order_of_the_maxima() -> None:
    merged = merge_ranges([A, B], [[observe_ends(*a), observe_ends(*b)] for a, b in ENDS])
    assert merged == {A: Range(-3.0, 2.0, (2.0, 3.0, 0.0)), B: Range(-5.0, 8.0, (1.0, 8.0, 7.0))}


def test_merge_ranges_of_blocks_is_that_of_their_iterations() -> None:
    x = [np.random.default_rng(i).normal(size=1000).astype(np.float32) * (i + 1) for i in range(7)]
    whole = merge_ranges([A], [[observe(v)] for v in x])[A]
    blocks = [merge_ranges([A], [[observe(v)] for v in x[i : i + 3]])[A] for i in (0, 3, 6)]
    merged = merge_ranges([A], [[block] for block in blocks])[A]
    for algorithm in ALGORITHMS:
        assert merged.threshold(algorithm, 128) == whole.threshold(algorithm, 128)
    assert merged.maxima == whole.maxima


def test_merge_ranges_keeps_what_is_no_number() -> None:
    merged = merge_ranges([A], [[observe_ends(0.0, np.nan)], [observe_ends(0.0, 1.0)]])
    assert np.isnan(merged[A].max_abs)
    assert np.isnan(merged[A].threshold("MA", 128))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threshold_takes_the_negative_side_for_its_size(algorithm: str) -> None:
    x = np.abs(np.random.default_rng(0).normal(size=5000)).astype(np.float32)
    assert observe(-x).threshold(algorithm, 128) == observe(x).threshold(algorithm, 128)


def test_threshold_refuses_an_unknown_algorithm() -> None:
    with pytest.raises(OptionError, match="-a FOO: unknown; choose DIRECT, MA, MAXP, KL, MSE"):
        observe(np.ones(3, np.float32)).threshold("FOO", 128)


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
