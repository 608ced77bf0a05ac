"""The way from all INT8 to all FP32."""

import itertools
from dataclasses import replace

import pytest

from distcalib.quantize.candidate import Space
from distcalib.search import Ranking, curve
from distcalib.search.curve import lengths
from tests.every import every
from tests.search.test_strategy import NAMES, SPACE

ALIKE = dict.fromkeys(NAMES, 1.0)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(0, []), (1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (21, [1, 2, 3, 4, 7, 10, 15, 21])],
)
def test_lengths_grow_and_end_with_all(n: int, expected: list[int]) -> None:
    assert lengths(n) == expected


def test_curve_goes_from_all_int8_to_all_fp32_in_nested_sets() -> None:
    found = curve(SPACE.all_int8, Ranking(ALIKE, dict.fromkeys(NAMES, 1)))
    assert found[0] == SPACE.all_int8
    assert not found[-1].int8
    assert every(after.int8 < before.int8 for before, after in itertools.pairwise(found))


def test_curve_begins_with_most_harm_for_the_work() -> None:
    space = Space(tuple("abc"))
    ranking = Ranking({"a": 4.0, "b": 3.0, "c": 0.5}, {"a": 8, "b": 2, "c": 2})
    assert [one.fp32_layers for one in curve(space.all_int8, ranking)] == [(), ("b",), ("a", "b"), ("a", "b", "c")]


def test_curve_leaves_pinned_layers_int8() -> None:
    space = replace(SPACE, kept_int8=frozenset("cf"))
    found = curve(space.all_int8, Ranking(ALIKE, dict.fromkeys(NAMES, 1)))
    assert found[-1].int8_layers == ("c", "f")
    kept_int8 = replace(SPACE, kept_int8=frozenset(NAMES))
    assert curve(kept_int8.all_int8, Ranking({}, {})) == [kept_int8.all_int8]
