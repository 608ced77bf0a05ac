"""The algorithms of -a: from what was observed of a value to the threshold that becomes its scale.

All work on absolute values. The predecessor's MAXP and KL took raw values, so that the threshold of a value with a long
negative side was too small, and its KL tried no threshold below 0.6 of the maximum; here it tries all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distcalib.quantize.histogram import N_BINS, Histogram

DIRECT = "DIRECT"
ALGORITHMS = (DIRECT, "MA", "MAXP", "KL", "MSE")

AUTO = "auto"
"""Each value's own of them: choice.py."""

NEED_VALUES = frozenset({"MAXP", "KL", "MSE", AUTO})
"""Those that look at every value; the others need the largest alone, which the engine finds without handing values
out.
"""

PERCENTILE = 0.99995
"""The part of an iteration's values that MAXP keeps below its threshold, as in the predecessor."""


def moving_average(maxima: Sequence[float]) -> float:
    """m ← (m + max)/2 over the iterations' maxima in their order: recent iterations count most."""
    average = maxima[0]
    for largest in maxima[1:]:
        average = 0.5 * average + 0.5 * largest
    return float(average)


def percentile_of(values: NDArray[np.float32], counted: Histogram) -> float:
    """The absolute value that `PERCENTILE` of one iteration's values do not exceed; `counted`: these values.

    The histogram tells the bin that it lies in, so that few values are left to be put in order.
    """
    position = min(int(values.size * PERCENTILE), values.size - 1)
    bin_ = int(np.searchsorted(np.cumsum(counted.counts), position, side="right"))
    sizes = np.abs(values).ravel()
    above = sizes[sizes >= bin_ * counted.width]
    position -= len(sizes) - len(above)
    return float(np.partition(above, position)[position])


def mean_percentile(percentiles: Sequence[float]) -> float:
    """MAXP: the mean over the iterations."""
    return float(np.mean(np.asarray(percentiles, np.float64)))


def kl(histogram: Histogram, n_levels: int, largest: float) -> float:
    """The threshold whose clipped distribution loses least information when it is put on `n_levels` levels.

    P is the histogram up to the threshold, with all that lies beyond in its last bin; Q is the same without that, on
    `n_levels` levels, spread again evenly over the bins that were not empty; the least KL(P‖Q) wins, the larger
    threshold among equals.  n_levels: 128 for s8, 256 for u8.  Source: S. Migacz, 8-bit Inference with TensorRT, GTC
    2017.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0  # zeros are exact on any grid; after a ReLU they would outweigh everything else
    if counts.sum() == 0.0:
        return largest
    best, best_bins = np.inf, N_BINS
    last = int(np.flatnonzero(counts)[-1]) + 1
    for n_bins in range(last, min(n_levels, last) - 1, -1):
        divergence = _divergence(counts, n_bins, n_levels)
        if divergence < best:
            best, best_bins = divergence, n_bins
    return min(best_bins * histogram.width, largest)


def _divergence(counts: NDArray[np.float64], n_bins: int, n_levels: int) -> float:
    inside = counts[:n_bins]
    reference = inside.copy()
    reference[-1] += counts[n_bins:].sum()
    level = np.arange(n_bins) * n_levels // n_bins
    filled = inside > 0.0
    per_level = np.bincount(level, weights=inside, minlength=n_levels)
    n_filled = np.bincount(level, weights=filled, minlength=n_levels)
    spread = np.where(filled, per_level[level] / np.maximum(n_filled[level], 1.0), 0.0)
    occupied = reference > 0.0
    if np.any(occupied & ~filled):  # clipped values on a level that holds nothing: Q has no answer for them
        return float(np.inf)
    p = reference[occupied] / reference.sum()
    q = spread[occupied] / spread.sum()
    return float(np.sum(p * np.log(p / q)))


def mse(histogram: Histogram, n_levels: int, largest: float) -> float:
    """The threshold of least squared quantization error.

    A value inside is off by Δ²/12 on average, Δ = t/(n_levels - 1), one outside by (|x| - t)²; zeros are exact.  Tried
    at the upper edge of every bin and at the largest value.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0
    thresholds = np.minimum(np.arange(1, N_BINS + 1) * histogram.width, largest)
    centers = histogram.centers
    inside = np.cumsum(counts)
    # Σ n(c - t)² over c > t = Σnc² - 2tΣnc + t²Σn, each a sum from the right.
    beyond_0 = counts.sum() - inside
    beyond_1 = (counts * centers).sum() - np.cumsum(counts * centers)
    beyond_2 = (counts * centers**2).sum() - np.cumsum(counts * centers**2)
    clipped = beyond_2 - 2 * thresholds * beyond_1 + thresholds**2 * beyond_0
    error = inside * (thresholds / (n_levels - 1)) ** 2 / 12 + np.maximum(clipped, 0.0)
    return float(thresholds[int(np.argmin(error))]) if counts.sum() else largest
