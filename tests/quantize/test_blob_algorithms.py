"""The search for algorithms, by made-up errors in place of nets."""

import math
from collections.abc import Callable, Mapping

import pytest

from distcalib.caffe.graph import Blob
from distcalib.quantize.blob_algorithms import Choice, search_choices
from distcalib.quantize.thresholds import ALGORITHMS

BLOBS = [Blob(name, 0) for name in "abcdefgh"]
A, B, C, D = BLOBS[:4]

Error = Callable[[Choice], float]


def planted(best: Mapping[Blob, str], elsewhere: str = "KL") -> Error:
    """1 for each blob with another algorithm than it wants; what `best` does not name wants `elsewhere`."""
    return lambda choice: float(sum(choice.algorithm(blob) != best.get(blob, elsewhere) for blob in BLOBS))


def run(error: Error, blobs: list[Blob] = BLOBS, algorithms: tuple[str, ...] = ALGORITHMS) -> tuple[Choice, list[int]]:
    """The winner and how many choices each round had; what every search must hold is checked."""
    search = search_choices(blobs, algorithms)
    seen: dict[Choice, float] = {}
    sizes: list[int] = []
    try:
        asked = next(search)
        for _ in range(10):
            assert asked
            assert len(set(asked)) == len(asked)
            assert not seen.keys() & set(asked)
            sizes.append(len(asked))
            found = [error(choice) for choice in asked]
            seen.update(zip(asked, found, strict=True))
            asked = search.send(found)
    except StopIteration as stop:
        winner: Choice = stop.value
        assert not seen or winner in seen
        numbers = [found for found in seen.values() if not math.isnan(found)]
        assert not numbers or seen[winner] == min(numbers), "the least of all that was evaluated"
        return winner, sizes
    raise AssertionError("the search does not end")


def test_choice_forgets_what_says_nothing() -> None:
    assert Choice.of("KL", {A: "KL", B: "MA"}) == Choice("KL", frozenset({(B, "MA")}))
    assert Choice.of("KL", {B: "MA"}).algorithm(B) == "MA"
    assert Choice.of("KL", {B: "MA"}).algorithm(A) == "KL"


@pytest.mark.parametrize(
    ("error", "winner", "sizes"),
    [
        pytest.param(planted({}), Choice("KL"), [5, 32], id="one_for_all"),
        pytest.param(planted({A: "MA"}), Choice.of("KL", {A: "MA"}), [5, 32], id="one_blob"),
        pytest.param(
            planted({A: "MA", D: "DIRECT", C: "MSE"}),
            Choice.of("KL", {A: "MA", D: "DIRECT", C: "MSE"}),
            [5, 32, 1],
            id="three_blobs",
        ),
        pytest.param(lambda _: 1.0, Choice("DIRECT"), [5, 32], id="all_equal"),
        pytest.param(lambda _: math.nan, Choice("DIRECT"), [5, 32], id="no_numbers"),
        pytest.param(
            lambda choice: math.nan if choice.base == "DIRECT" else 1.0, Choice("MA"), [5, 32], id="one_no_number"
        ),
    ],
)
def test_search_choices_finds_what_was_planted(error: Error, winner: Choice, sizes: list[int]) -> None:
    assert run(error) == (winner, sizes)


def test_search_choices_tries_fewer_together_where_all_do_harm() -> None:
    """Each change to MA alone helps, by its place in the net; more than two of them do not."""

    def error(choice: Choice) -> float:
        if choice.base != "DIRECT":
            return 100.0
        changed = [BLOBS.index(blob) for blob, name in choice.others if name == "MA"]
        harm = 50.0 if len(changed) > 2 else 0.0
        return 30.0 + harm - sum(1.0 + index for index in changed) + 40.0 * (len(choice.others) > len(changed))

    winner, sizes = run(error)
    assert winner == Choice.of("DIRECT", {BLOBS[6]: "MA", BLOBS[7]: "MA"})
    assert sizes == [5, 32, 3]  # 8, 4 and 2 changes together


def test_search_choices_returns_one_change_where_two_do_harm() -> None:
    def error(choice: Choice) -> float:
        return 10.0 - (len(choice.others) == 1) if choice.base == "MSE" else 20.0

    assert run(error)[0] == Choice.of("MSE", {A: "DIRECT"}), "the first blob and the first algorithm of equals"


@pytest.mark.parametrize(
    ("blobs", "algorithms", "winner", "sizes"),
    [
        pytest.param([], ALGORITHMS, Choice("DIRECT"), [], id="no_blob"),
        pytest.param([A], ALGORITHMS, Choice("KL"), [5, 4], id="one_blob"),
        pytest.param(BLOBS, ("MA",), Choice("MA"), [1], id="one_algorithm"),
    ],
)
def test_search_choices_asks_for_nothing_needless(
    blobs: list[Blob], algorithms: tuple[str, ...], winner: Choice, sizes: list[int]
) -> None:
    assert run(planted({}), blobs, algorithms) == (winner, sizes)
