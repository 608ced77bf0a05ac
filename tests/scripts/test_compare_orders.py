"""Which order refuses sooner, on rows made by hand."""

import pytest

from distcalib.metrics import Decider, Partial
from scripts.bench.compare_orders import share_until_refused, shares
from tests.every import every

FP32 = [Partial(right, 10, 10) for right in (10, 10, 10, 0)]
WORSE = [Partial(right, 10, 10) for right in (8, 8, 8, 0)]


@pytest.mark.parametrize(("order", "share"), [((0, 1, 2, 3), 1.0), ((3, 2, 1, 0), 0.5)], ids=["natural", "worst first"])
def test_share_until_refused_is_where_it_is_certain(order: tuple[int, ...], share: float) -> None:
    # FP32 has 30 of 40 right, so 29.2 must be: after the last one and another of the rest at most 28 can be
    assert share_until_refused(order, WORSE, Decider(FP32, 0.02)) == share


def test_share_until_refused_is_all_where_it_meets() -> None:
    assert share_until_refused(range(4), FP32, Decider(FP32, 0.0)) == 1.0


def test_shares_are_by_tolerance_in_both_orders() -> None:
    found = list(shares(FP32, WORSE, is_loss=False))
    assert [tolerance for tolerance, *_ in found] == pytest.approx([0.0, 0.075, 0.12])
    assert every(worst <= natural for _, natural, worst in found)
    assert list(shares(FP32, FP32, is_loss=False)) == []


def test_shares_of_a_loss_take_the_largest_first() -> None:
    fp32 = [Partial(loss, 1, 1) for loss in (0.1, 0.1, 5.0, 0.1)]
    worse = [Partial(loss, 1, 1) for loss in (0.1, 0.1, 7.0, 0.1)]
    assert [worst for *_, worst in shares(fp32, worse, is_loss=True)] == [0.25, 0.25, 0.25]
