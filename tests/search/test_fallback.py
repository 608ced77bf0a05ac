"""What the exact strategies choose."""

import pytest

from distcalib.errors import OptionError
from distcalib.search import STRATEGIES, make_strategy
from tests.every import every
from tests.search.test_strategy import CASES, NAMES, Case, planted, run


@pytest.mark.parametrize(
    ("name", "fp32"),
    [
        pytest.param("harmless", "", id="none"),
        pytest.param("one_layer", "c", id="one"),
        pytest.param("two_layers", "cf", id="two"),
        pytest.param("cascade", "bdg", id="with_what_needs_it"),
        pytest.param("last_layer", "h", id="last"),
        pytest.param("no_number", "e", id="no_number"),
    ],
)
def test_greedy_finds_the_planted_layers(name: str, fp32: str) -> None:
    assert run("greedy", CASES[name]).winner.fp32_layers == tuple(fp32)


def test_greedy_drops_what_helps_most_first() -> None:
    rounds = run("greedy", Case(planted(a=0.25, c=0.5, e=0.125), 0.125)).rounds
    assert [len(asked) for asked in rounds] == [1, 8, 7]
    assert every("c" in candidate.fp32_layers for candidate in rounds[2])


def test_greedy_measures_all_of_a_round_at_once() -> None:
    rounds = run("greedy", CASES["one_layer"]).rounds
    assert ["".join(c.fp32_layers) for c in rounds[1]] == ["a", "bdg", "c", "dg", "e", "f", "g", "h"]


def test_greedy_of_equals_keeps_more_layers() -> None:
    assert run("greedy", Case(planted(b=0.25, c=0.25), 0.25)).winner.fp32_layers == ("c",)  # not bdg


def test_greedy_of_equals_takes_the_first() -> None:
    rounds = run("greedy", CASES["all_equal"]).rounds
    assert every("a" in candidate.fp32_layers for candidate in rounds[2])


def test_topological_drops_front_to_back() -> None:
    rounds = run("topological", CASES["last_layer"]).rounds
    assert ["".join(c.fp32_layers) for [c] in rounds] == ["", "a", "abdg", "abcdg", "abcdeg", "abcdefg", NAMES]


def test_topological_stops_where_it_is_good_enough() -> None:
    assert run("topological", CASES["one_layer"]).winner.fp32_layers == tuple("abcdg")


def test_none_delivers_all_int8_whatever_it_loses() -> None:
    done = run("none", CASES["every_layer"])
    assert (len(done.measured), done.winner.fp32_layers) == (1, ())


def test_make_strategy_names_those_that_exist() -> None:
    with pytest.raises(OptionError) as caught:
        make_strategy("quickest", 0.01)
    assert str(caught.value) == f"--strategy quickest: unknown; choose {', '.join(STRATEGIES)}"
