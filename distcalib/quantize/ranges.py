"""What is observed of a value, streamed: its state is of one size for any number of values, and merges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.errors import OptionError
from distcalib.quantize import thresholds
from distcalib.quantize.histogram import Histogram, count


@dataclass(frozen=True)
class Range:
    """Least and largest element seen; by iteration, in their order, the largest size and its percentile; a histogram.

    What an algorithm does not need is left out: percentiles and histogram are there only where values were looked at.
    """

    low: float
    high: float
    maxima: tuple[float, ...] = ()
    percentiles: tuple[float, ...] = ()
    histogram: Histogram | None = None

    @property
    def max_abs(self) -> float:
        """The largest absolute value, from which DIRECT takes the scale; NaN if there was one."""
        return float(np.maximum(abs(self.low), abs(self.high)))  # max() of Python drops a NaN in second place

    def __add__(self, later: "Range") -> "Range":
        """The range over the iterations of this one and those of `later`, which follow them."""
        if self.histogram is None or later.histogram is None:
            histogram = None
        else:
            histogram = self.histogram + later.histogram
        return Range(
            float(np.minimum(self.low, later.low)),
            float(np.maximum(self.high, later.high)),
            self.maxima + later.maxima,
            self.percentiles + later.percentiles,
            histogram,
        )

    def threshold(self, algorithm: str, n_levels: int) -> float:
        """The absolute value that becomes the end of a grid of `n_levels` steps from 0 on: 128 for s8, 256 for u8.

        A range that is not finite is its own threshold, whatever the algorithm.
        """
        if algorithm == "DIRECT" or not np.isfinite(self.max_abs):
            return self.max_abs
        if algorithm == "MA":
            return thresholds.moving_average(self.maxima)
        if algorithm == "MAXP":
            return thresholds.mean_percentile(self.percentiles)
        if self.histogram is None:
            raise AssertionError(f"{algorithm} needs the values' histogram")
        if algorithm == "KL":
            return thresholds.kl(self.histogram, n_levels, self.max_abs)
        if algorithm == "MSE":
            return thresholds.mse(self.histogram, n_levels, self.max_abs)
        raise OptionError(f"-a {algorithm}: unknown; choose {', '.join(thresholds.ALGORITHMS)}")


def observe(values: NDArray[np.float32]) -> Range:
    """The range of one iteration's values, with all that any algorithm needs."""
    low, high = float(values.min()), float(values.max())
    largest = float(np.maximum(abs(low), abs(high)))
    if not np.isfinite(largest):
        return Range(low, high, (largest,))
    counted = count(values)
    return Range(low, high, (largest,), (thresholds.percentile_of(values, counted),), counted)


def observe_ends(low: float, high: float) -> Range:
    """The range of one iteration of which only the ends are known: enough for DIRECT and MA."""
    return Range(low, high, (float(np.maximum(abs(low), abs(high))),))


def merged_ends(ends: NDArray[np.float32], others: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """(C, 2): the least and the largest element of each channel in both."""
    if others is None:
        return ends
    low, high = np.minimum(ends[:, 0], others[:, 0]), np.maximum(ends[:, 1], others[:, 1])
    return np.stack([low, high], axis=1)


def scaled_ends(ends: NDArray[np.float32], factors: NDArray[np.float64]) -> Range:
    """The range of a value whose channels, of `ends` (C, 2), are multiplied by `factors` (C,), all > 0."""
    scaled = ends * factors.astype(np.float32)[:, None]
    return observe_ends(float(scaled[:, 0].min()), float(scaled[:, 1].max()))


def merge_ranges(blobs: Sequence[Blob], parts: Iterable[Sequence[Range]]) -> Mapping[Blob, Range]:
    """Ranges of `blobs` over parts in iteration order, each with a range a blob."""
    columns = list(zip(*parts, strict=True))
    return {blob: reduce(Range.__add__, column) for blob, column in zip(blobs, columns, strict=True)}
