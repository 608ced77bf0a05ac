"""Which images the delivered net gains and loses against FP32, where both scored them one by one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.results import SearchResult
from distcalib.metrics import Hits, mcnemar, paired_interval
from distcalib.report import Changes

MOST_LISTED = 50


@dataclass(frozen=True)
class Compared:
    """Of each image its number in the order of the data, and whether the score counts it before and after; (n,)."""

    numbers: NDArray[np.int64]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]

    @property
    def lost(self) -> NDArray[np.int64]:
        """The numbers of the images that count before and not after."""
        return np.asarray(self.numbers[self.before & ~self.after], np.int64)


def compared(fp32: Fp32Pass, found: SearchResult) -> Compared | None:
    """None where images were not scored one by one, or not all of them."""
    order = fp32.order
    if order is None or not fp32.images:
        return None
    batch = order.images.shape[1]
    numbers = np.concatenate([i * batch + one.rows.astype(np.int64) for i, one in enumerate(fp32.images)])
    before = np.concatenate([one.hits for one in fp32.images])
    after = before.copy()
    if found.winner.int8:
        values = [value for value in found.values if isinstance(value, Hits)]
        right = np.frombuffer(b"".join(value.right for value in values), np.bool_)
        shown = order.images[order.images >= 0]  # batch by batch, in the order of each
        if len(values) != len(order.images) or len(right) != len(shown):
            return None
        after[np.searchsorted(numbers, shown)] = right
    return Compared(numbers, before, after)


def changed_images(found: Compared | None) -> Changes | None:
    """What is told of images that were compared; None where they were not."""
    if found is None:
        return None
    lost = found.lost
    n, n_lost, n_gained = len(found.numbers), len(lost), int(np.count_nonzero(found.after & ~found.before))
    low, high = (_rounded(end) for end in paired_interval(n_lost, n_gained, n))
    p_value = _rounded(mcnemar(n_lost, n_gained))
    return Changes(n, n_lost, n_gained, low, high, p_value, tuple(int(i) for i in lost[:MOST_LISTED]))


def _rounded(value: float) -> float:
    """To what is the same on all machines, whatever their math library makes of the last digits."""
    return float(f"{value:.6g}")
