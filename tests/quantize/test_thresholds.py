"""The algorithms of -a against direct statements of what they are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.quantize.histogram import count
from distcalib.quantize.thresholds import kl, mean_percentile, moving_average, mse, percentile_of


def heavy_tail(n: int = 200_000) -> NDArray[np.float32]:
    """A Laplace distribution, as activations are, with one outlier."""
    x = np.random.default_rng(0).laplace(size=n)
    x[0] = 40.0
    return x.astype(np.float32)


def squared_error(x: NDArray[np.float32], threshold: float, n_levels: int) -> float:
    step = threshold / (n_levels - 1)
    q = np.clip(np.rint(np.abs(x) / step), 0, n_levels - 1) * step
    return float(np.mean((q - np.abs(x)) ** 2))


def test_moving_average_halves_the_past() -> None:
    assert moving_average([8.0]) == 8.0
    assert moving_average([8.0, 4.0, 2.0]) == 0.5 * (0.5 * 8 + 0.5 * 4) + 0.5 * 2


@pytest.mark.parametrize("n", [1, 10, 20_000, 100_000])
def test_percentile_of_is_an_element_of_the_sorted_sizes(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    assert percentile_of(x, count(x)) == np.sort(np.abs(x))[min(int(n * 0.99995), n - 1)]


def test_percentile_of_counts_the_negative_side() -> None:
    x = np.array([-9.0, 1.0, 2.0], np.float32)
    assert percentile_of(x, count(x)) == 9.0


@pytest.mark.parametrize("scale", [1e-41, 1e-38, 1.0, 1e38])
def test_percentile_of_values_of_any_size_is_that_of_sorting(scale: float) -> None:
    x = np.float32(scale) * np.random.default_rng(0).normal(0.0, 0.5, 50_000).astype(np.float32)
    x[::3] = 0.0
    assert percentile_of(x, count(x)) == np.sort(np.abs(x))[int(50_000 * 0.99995)]
    assert percentile_of(0 * x, count(0 * x)) == 0.0


def test_mean_percentile_is_the_mean() -> None:
    assert mean_percentile([1.0, 2.0, 6.0]) == 3.0


@pytest.mark.parametrize("n_levels", [128, 256])
def test_mse_is_the_best_of_all_thresholds(n_levels: int) -> None:
    x = heavy_tail()
    threshold = mse(count(x), n_levels, 40.0)
    best = min(squared_error(x, t, n_levels) for t in np.linspace(2, 40, 200))
    assert squared_error(x, threshold, n_levels) <= best * 1.01
    assert threshold < 40.0


@pytest.mark.parametrize("n_levels", [128, 256])
def test_kl_clips_a_lone_outlier(n_levels: int) -> None:
    threshold = kl(count(heavy_tail()), n_levels, 40.0)
    assert 4.0 < threshold < 30.0


def test_kl_tries_thresholds_below_half_of_the_maximum() -> None:
    """The predecessor began at 0.6 to 0.7 of the maximum."""
    x = np.concatenate([np.random.default_rng(1).uniform(0, 1, 100_000), [10.0]]).astype(np.float32)
    assert kl(count(x), 128, 10.0) < 5.0


@pytest.mark.parametrize("algorithm", [kl, mse])
def test_a_uniform_distribution_is_not_clipped(algorithm: object) -> None:
    x = np.random.default_rng(2).uniform(0, 7, 400_000).astype(np.float32)
    assert callable(algorithm)
    assert algorithm(count(x), 256, float(x.max())) == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize("algorithm", [kl, mse])
@pytest.mark.parametrize("x", [[0.0, 0.0], [5.0], [5.0, 5.0, 0.0]], ids=str)
def test_degenerate_values_keep_their_maximum(algorithm: object, x: list[float]) -> None:
    assert callable(algorithm)
    assert algorithm(count(np.array(x, np.float32)), 256, max(x)) == max(x)
