"""The interval of a paired difference and McNemar's test, against tables and a count by hand."""

from math import comb

import pytest

from distcalib.metrics import mcnemar, paired_interval


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 1), (1, 5), (10, 10), (59, 6), (300, 260)])
def test_mcnemar_is_the_binomial_test_of_a_fair_coin(lost: int, gained: int) -> None:
    n, least = lost + gained, min(lost, gained)
    exact = min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)
    assert mcnemar(lost, gained) == pytest.approx(exact, rel=1e-9)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_mcnemar_of_very_many_does_not_overflow() -> None:
    assert mcnemar(60_000, 60_000) == 1.0
    assert 0.0 <= mcnemar(70_000, 50_000) < 1e-100


def test_the_interval_holds_the_difference_and_shrinks_with_the_images() -> None:
    wide, narrow = paired_interval(5, 1, 900), paired_interval(500, 100, 90_000)
    assert wide[0] < 0.0 < 4 / 900 < wide[1]
    assert 0.0 < narrow[0] < 400 / 90_000 < narrow[1]
    assert paired_interval(1, 5, 900) == pytest.approx((-wide[1], -wide[0]))


def test_the_interval_of_no_change_is_not_a_point() -> None:
    low, high = paired_interval(0, 0, 100)
    assert -0.05 < low < 0.0 < high < 0.05
    assert paired_interval(3, 0, 3)[1] <= 1.0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """By counting all outcomes of 60 images, of which each is lost with 0.1 and gained with 0.05."""
    n, lose, gain = 60, 0.1, 0.05
    covered = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            low, high = paired_interval(lost, gained, n)
            if low <= lose - gain <= high:
                ways = comb(n, lost) * comb(n - lost, gained)
                covered += ways * lose**lost * gain**gained * (1 - lose - gain) ** (n - lost - gained)
    assert 0.94 < covered < 0.985
