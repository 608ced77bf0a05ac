"""How a ranking is divided: as many pieces as actors, each candidate on each iteration once."""

import numpy as np
import pytest

from distcalib.engine.ranking import Plan
from distcalib.engine.ranking_split import STACKED, Most, Pace, divided, most_pieces, stacked
from distcalib.engine.spec import NetSpec
from tests.every import every

ITERATIONS = (0, 3, 4)
ANY = Most(99, 99)
SLOW_TO_COMPILE, SLOW_TO_RUN = Pace(1.0, 0.01), Pace(0.01, 1.0)


def plan(names: str, last: float = 0.75) -> Plan:
    """Candidates that begin at even distances, and eight cuts."""
    begins = {name: last * i / len(names) for i, name in enumerate(names)}
    return Plan(NetSpec(b"net", "net"), ((),) * 8, {name: NetSpec(name.encode(), name) for name in names}, begins)


@pytest.mark.parametrize(
    ("pace", "n_actors", "most", "expected"),
    [
        (SLOW_TO_COMPILE, 1, ANY, ["ab 3", "cd 3", "ef 3"]),
        (SLOW_TO_COMPILE, 1, Most(1, 99), ["abcdef 3"]),
        (SLOW_TO_COMPILE, 2, ANY, ["ab 3", "cd 3", "ef 3"]),
        (SLOW_TO_COMPILE, 6, ANY, ["a 3", "b 3", "c 3", "d 3", "e 3", "f 3"]),
        (SLOW_TO_COMPILE, 11, ANY, ["a 3", "b 3", "c 3", "d 3", "e 3", "f 3"]),
        (SLOW_TO_COMPILE, 4, Most(99, 1), ["abcdef 1"] * 3),
        (SLOW_TO_COMPILE, 9, Most(2, 99), ["abc 3", "def 3"]),
        (SLOW_TO_RUN, 2, ANY, ["ab 3", "cd 3", "ef 3"]),
        (SLOW_TO_RUN, 9, ANY, ["ab 1"] * 3 + ["cd 1"] * 3 + ["ef 1"] * 3),
        (SLOW_TO_RUN, 5000, ANY, [f"{name} 1" for name in "aaabbbcccdddeeefff"]),
        (Pace(0.0, 0.0), 2, ANY, ["ab 3", "cd 3", "ef 3"]),  # all rows were in the journal
        (Pace(0.0, 0.0), 5000, ANY, [f"{name} 1" for name in "aaabbbcccdddeeefff"]),
    ],
)
def test_divided_gives_every_actor_something_and_each_candidate_each_iteration_once(
    pace: Pace, n_actors: int, most: Most, expected: list[str]
) -> None:
    ranking = plan("abcdef")
    pieces = list(divided(ranking, ITERATIONS, n_actors, most, pace))
    assert [f"{''.join(piece.candidates)} {len(piece.iterations)}" for piece in pieces] == expected
    for name, spec in ranking.candidates.items():
        assert sorted(i for p in pieces if name in p.candidates for i in p.iterations) == list(ITERATIONS)
        assert every(p.candidates.get(name, spec) is spec for p in pieces)


def test_candidates_that_begin_late_are_more_to_a_piece() -> None:
    pieces = list(divided(plan("abcdefghijkl", last=1.0), (0,), 2, ANY, SLOW_TO_RUN))
    assert ["".join(piece.candidates) for piece in pieces] == ["ab", "cde", "fgh", "ijkl"]


@pytest.mark.parametrize("n_actors", range(1, 5))
def test_on_few_actors_no_time_matters(n_actors: int) -> None:
    ranking = plan("abcdefgh")
    one, other = (list(divided(ranking, ITERATIONS, n_actors, ANY, pace)) for pace in (SLOW_TO_COMPILE, SLOW_TO_RUN))
    assert one == other
    assert len(one) == 4, "pairs"


def test_a_piece_can_be_taken_apart() -> None:
    [piece] = divided(plan("abc"), ITERATIONS, 1, Most(1, 1), SLOW_TO_RUN)
    assert [(list(one.candidates), one.iterations) for one in piece.alone] == [([n], ITERATIONS) for n in "abc"]


def test_most_pieces_fit_into_the_bytes_that_they_may_take() -> None:
    weights = (np.zeros(25, np.float32), np.zeros(5, np.float32))
    base, one = (NetSpec(b"net", "net", changed={"conv": weights}) for _ in range(2))
    other = NetSpec(b"net", "net", changed={"conv": (np.zeros(25, np.float32), np.zeros(5, np.float32))})
    ranking = Plan(base, (), {"a": one, "b": one, "c": other}, dict.fromkeys("abc", 0.0))
    reference = {i: (np.zeros(10, np.float32),) for i in range(3)}
    assert most_pieces(ranking, reference, 1200) == Most(5, 10)
    assert most_pieces(ranking, reference, 100) == Most(1, 1)
    assert most_pieces(plan("a"), reference, 1200).pieces >= 1200


@pytest.mark.parametrize(
    ("n_candidates", "n_actors", "most", "n_parts", "n_blocks"),
    [
        (1, 1, ANY, 1, 1),
        (STACKED, 2, ANY, 1, 2),
        (STACKED + 1, 2, ANY, 2, 1),
        (STACKED + 1, 5, ANY, 2, 2),
        (53, 5000, ANY, 5, 3),
        (53, 5000, Most(99, 12), 5, 2),
        (53, 5000, Most(5, 99), 5, 1),
        (53, 1, Most(4, 99), 0, 0),
        (53, 1, Most(99, 4), 0, 0),
    ],
)
def test_which_candidates_are_one_net_does_not_depend_on_the_actors(
    n_candidates: int, n_actors: int, most: Most, n_parts: int, n_blocks: int
) -> None:
    ranking = plan("".join(chr(ord("a") + i) for i in range(n_candidates)))
    pieces = stacked(ranking, ITERATIONS, n_actors, most, STACKED)
    assert len(pieces) == n_parts * n_blocks
    together = list(dict.fromkeys(tuple(piece.candidates) for piece in pieces))
    assert len(together) == n_parts
    assert [name for names in together for name in names] == (list(ranking.candidates) if n_parts else [])
    assert max(map(len, together), default=0) <= STACKED
    for names in together:
        assert [i for p in pieces if tuple(p.candidates) == names for i in p.iterations] == list(ITERATIONS)
