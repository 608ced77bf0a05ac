"""A histogram of absolute values that streams: its bins double when a larger value comes.

The width of a bin is a power of two, so a value's bin is exact, and merging two neighbours is the same as having
counted with twice the width from the start. Hence the state after any number of parts does not depend on their order
or on who counted which: it is that of one histogram over all values. Counts are integers; nothing is ever rescaled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BINS = 2048
"""As the predecessor's KL has; at least half of them are in use, because the width only doubles."""

_LOG2_BINS = 11
# The smallest normal float32 has exponent -126: below that everything is one bin.
_LEAST_EXPONENT = -126


@dataclass(frozen=True, eq=False)
class Histogram:
    """`counts` (2048,) int64 of |x| in bins [i, i+1)·2^exponent."""

    counts: NDArray[np.int64]
    exponent: int

    @property
    def width(self) -> float:
        """Width of a bin."""
        return float(np.ldexp(1.0, self.exponent))

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((np.arange(N_BINS) + 0.5) * self.width, np.float64)

    def doubled(self, exponent: int) -> "Histogram":
        """The same values in bins of 2^exponent, which must not be narrower."""
        times = exponent - self.exponent
        if times == 0:
            return self
        wide = np.zeros(N_BINS, np.int64)
        if times <= _LOG2_BINS:
            used = self.counts.reshape(-1, 2**times).sum(axis=1)
            wide[: len(used)] = used
        else:
            wide[0] = self.counts.sum()
        return Histogram(wide, exponent)

    def __add__(self, other: "Histogram") -> "Histogram":
        exponent = max(self.exponent, other.exponent)
        a, b = self.doubled(exponent), other.doubled(exponent)
        return Histogram(a.counts + b.counts, exponent)


def count(values: NDArray[np.float32]) -> Histogram:
    """The histogram of |values|, any shape, all finite."""
    sizes = np.abs(values).ravel()
    largest = float(sizes.max()) if sizes.size else 0.0
    # frexp: largest = m·2^k with m < 1, so 2^k bounds it and 2^(k-11) is the width.
    exponent = max(int(np.frexp(largest)[1]), _LEAST_EXPONENT) - _LOG2_BINS
    bins = np.ldexp(sizes, -exponent).astype(np.int64)
    return Histogram(np.bincount(bins, minlength=N_BINS).astype(np.int64), exponent)
