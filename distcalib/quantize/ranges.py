"""Ranges of values, streamed: the state of any number of iterations is two numbers a value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob


@dataclass(frozen=True)
class Range:
    """Least and largest element seen."""

    low: float
    high: float

    @property
    def max_abs(self) -> float:
        """The largest absolute value, from which DIRECT takes the scale; NaN if there was one."""
        return float(np.maximum(abs(self.low), abs(self.high)))  # max() of Python drops a NaN in second place


def merge_ranges(blobs: Sequence[Blob], parts: Iterable[NDArray[np.float32]]) -> Mapping[Blob, Range]:
    """Ranges of `blobs` over any number of parts (n_blobs, 2), each the least and largest of one iteration; any order
    will do.
    """
    low = np.full(len(blobs), np.inf, np.float32)
    high = np.full(len(blobs), -np.inf, np.float32)
    for part in parts:
        low, high = np.minimum(low, part[:, 0]), np.maximum(high, part[:, 1])
    return {blob: Range(float(a), float(b)) for blob, a, b in zip(blobs, low, high, strict=True)}
