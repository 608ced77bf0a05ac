"""What the last layers of a set bought."""

from __future__ import annotations

import pytest

from distcalib.quantize.candidate import Candidate, Space
from distcalib.search import Ranking
from distcalib.search.price import Loss, knee, shorter

NAMES = tuple(f"l{i:02}" for i in range(12))


def space() -> Space:
    return Space(NAMES, {})


def with_fp32(n: int) -> Candidate:
    return space().all_int8.without(*NAMES[:n]) if n else space().all_int8


def measured(n: int, drop: float) -> Loss:
    return Loss(with_fp32(n), drop)


def test_shorter_has_the_most_harmful_halves() -> None:
    start, winner = with_fp32(0), with_fp32(8)
    harm = {name: float(i) for i, name in enumerate(NAMES)}  # the last does most harm
    found = shorter(start, winner, Ranking(harm, dict.fromkeys(NAMES, 1)))
    assert [one.fp32_layers for one in found] == [NAMES[4:8], NAMES[6:8], NAMES[7:8]]


def test_shorter_leaves_few_layers_alone() -> None:
    assert shorter(with_fp32(0), with_fp32(3), Ranking(dict.fromkeys(NAMES, 1.0), dict.fromkeys(NAMES, 1))) == []


def test_knee_is_where_most_is_won_by_few() -> None:
    found = knee(measured(0, 0.04), [measured(5, 0.012), measured(2, 0.018), measured(1, 0.037)], measured(10, 0.009))
    assert found is not None
    assert (len(found.loss.candidate.fp32_layers), found.n_more) == (2, 8)
    assert found.gain == pytest.approx(0.009)


@pytest.mark.parametrize(
    ("inner", "last"),
    [
        ([measured(5, 0.025), measured(2, 0.034)], measured(10, 0.01)),
        ([], measured(10, 0.01)),
        ([measured(1, 0.02)], measured(3, 0.01)),
        ([measured(5, 0.05)], measured(10, 0.05)),
    ],
    ids=["all buy alike", "none was measured", "few", "nothing is won"],
)
def test_no_knee(inner: list[Loss], last: Loss) -> None:
    assert knee(measured(0, 0.04), inner, last) is None
