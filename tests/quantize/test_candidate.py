"""Sets of INT8 layers that really run."""

import pytest

from distcalib.quantize.candidate import Candidate, Space

# d sums onto a, e onto d; f needs nothing.
SPACE = Space(("a", "b", "d", "e", "f"), {"d": frozenset({"a"}), "e": frozenset({"d"})})


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        pytest.param([], "abdef", id="nothing"),
        pytest.param(["b"], "adef", id="needed_by_none"),
        pytest.param(["a"], "bf", id="cascade_of_two"),
        pytest.param(["d"], "abf", id="cascade_of_one"),
        pytest.param(["e", "f"], "abd", id="two"),
        pytest.param(["unknown"], "abdef", id="not_there"),
    ],
)
def test_without_takes_along_what_cannot_run_alone(dropped: list[str], left: str) -> None:
    candidate = SPACE.all_int8.without(*dropped)
    assert candidate.int8_layers == tuple(left)
    assert candidate.fp32_layers == tuple(name for name in SPACE.order if name not in left)


def test_without_does_not_bring_layers_back() -> None:
    assert SPACE.all_int8.without("a").without("b").int8 == {"f"}


def test_candidate_of_a_space_is_closed() -> None:
    assert SPACE.candidate(["e", "d", "b"]).int8 == {"b"}
    assert SPACE.candidate(["e", "a", "d"]).int8 == {"a", "d", "e"}


def test_candidates_of_the_same_layers_are_one() -> None:
    other = Space(SPACE.order)
    assert len({SPACE.candidate("ab"), SPACE.candidate("ba"), Candidate(frozenset("ab"), other)}) == 1
    assert SPACE.candidate("ab") != SPACE.candidate("af")
