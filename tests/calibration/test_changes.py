"""Images lost and gained, whatever the order in which the search took them."""

from dataclasses import replace

import numpy as np
import pytest

from distcalib.calibration.changes import changed_images, compared
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.results import SearchResult
from distcalib.metrics import ByImage, Hits, drawn, hard_first
from distcalib.quantize.candidate import Candidate, Space

BATCH = 4
BEFORE = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1], bool)
AFTER = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0], bool)  # in places 1, 6 and 10 lost, in 2 gained


def candidate(*int8: str) -> Candidate:
    return Candidate(frozenset(int8), Space(("conv1", "conv2")))


def measured(by_confidence: bool, after: np.ndarray | None = AFTER) -> tuple[Fp32Pass, SearchResult]:
    """Three iterations of four images, of which number 8 could not be read; `after`: None: of the FP32 net."""
    numbers = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11], np.int32)
    margins = np.linspace(3.0, 0.1, len(numbers)).astype(np.float32)
    images = []
    for i in range(3):
        mine = numbers // BATCH == i
        images.append(ByImage((numbers[mine] % BATCH).astype(np.int32), BEFORE[mine], margins[mine]))
    order = (drawn if by_confidence else hard_first)(images, BATCH)
    values = []
    if after is not None:
        right = dict(zip(numbers.tolist(), after.tolist(), strict=True))
        for row in order.images:
            hits = [right[i] for i in row.tolist() if i >= 0]
            values.append(Hits(sum(hits), len(hits), 1, np.array(hits).tobytes()))
    fp32 = Fp32Pass(0.8, (), images=images, order=order)
    return fp32, SearchResult(candidate() if after is None else candidate("conv1"), values=values)


@pytest.mark.parametrize("by_confidence", [False, True], ids=["hard first", "drawn"])
def test_images_lost_and_gained_are_found_again_in_the_order_of_the_data(by_confidence: bool) -> None:
    found = changed_images(compared(*measured(by_confidence)))
    assert found is not None
    assert (found.n_images, found.lost, found.gained, found.lost_images) == (11, 3, 1, (1, 6, 11))
    assert found.low < 2 / 11 < found.high
    assert found.p_value == 0.625


def test_the_fp32_net_changes_nothing() -> None:
    found = changed_images(compared(*measured(False, None)))
    assert found is not None
    assert (found.lost, found.gained, found.lost_images, found.p_value) == (0, 0, (), 1.0)


def test_nothing_is_told_of_images_that_were_not_looked_at() -> None:
    fp32, whole = measured(False)
    assert changed_images(compared(fp32, replace(whole, values=()))) is None  # ended before its last iteration
    assert changed_images(compared(fp32, replace(whole, values=whole.values[:-1]))) is None
    assert changed_images(compared(replace(fp32, order=None), whole)) is None


def test_no_more_are_listed_than_can_be_looked_at() -> None:
    n = 200
    images = [ByImage(np.arange(n, dtype=np.int32), np.ones(n, bool), np.linspace(1, 2, n).astype(np.float32))]
    fp32 = Fp32Pass(1.0, (), images=images, order=hard_first(images, n))
    found = changed_images(compared(fp32, SearchResult(candidate("conv1"), values=[Hits(0, n, 1, bytes(n))])))
    assert found is not None
    assert (found.lost, found.lost_images) == (n, tuple(range(50)))
