"""How a ranking is divided: as many pieces as actors, each candidate on each iteration once."""

import numpy as np
import pytest

from distcalib.engine.ranking_split import Most, Pace, divided, most_pieces
from distcalib.engine.spec import NetSpec
from tests.every import every

ITERATIONS = (0, 3, 4)
ANY = Most(9, 9)
SLOW_TO_COMPILE, SLOW_TO_RUN = Pace(1.0, 0.1, 0.1), Pace(0.1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("pace", "n_actors", "most", "expected"),
    [
        (SLOW_TO_COMPILE, 1, ANY, ["ab 3", "c 3"]),  # as the chunks are
        (SLOW_TO_COMPILE, 2, ANY, ["ab 3", "c 3"]),
        (SLOW_TO_COMPILE, 4, ANY, ["a 3", "b 3", "c 1", "c 2"]),
        (SLOW_TO_COMPILE, 6, ANY, ["a 1", "a 2", "b 1", "b 2", "c 1", "c 2"]),
        (SLOW_TO_COMPILE, 5000, ANY, [f"{name} 1" for name in "aaabbbccc"]),
        (SLOW_TO_COMPILE, 6, Most(9, 1), ["ab 1", "ab 1", "ab 1", "c 1", "c 1", "c 1"]),
        (SLOW_TO_COMPILE, 6, Most(2, 9), ["a 3", "b 3", "c 1", "c 2"]),
        (SLOW_TO_RUN, 2, ANY, ["ab 3", "c 3"]),
        (SLOW_TO_RUN, 4, ANY, ["ab 1", "ab 1", "ab 1", "c 3"]),
        (SLOW_TO_RUN, 6, ANY, ["ab 1", "ab 1", "ab 1", "c 1", "c 1", "c 1"]),
        (SLOW_TO_RUN, 5000, ANY, [f"{name} 1" for name in "aaabbbccc"]),
        (Pace(0.0, 0.0, 0.0), 5000, ANY, ["ab 3", "c 3"]),  # all rows were in the journal
    ],
)
def test_divided_gives_every_actor_something_and_each_candidate_each_iteration_once(
    pace: Pace, n_actors: int, most: Most, expected: list[str]
) -> None:
    specs = {name: NetSpec(name.encode(), name) for name in "abc"}
    chunks = [(2, {"a": specs["a"], "b": specs["b"]}), (5, {"c": specs["c"]})]
    pieces = list(divided(chunks, ITERATIONS, n_actors, most, pace))
    assert [f"{''.join(piece.candidates)} {len(piece.iterations)}" for piece in pieces] == expected
    assert {(piece.begin, piece.head.where, *piece.candidates) for piece in pieces} >= {(5, "c", "c")}
    assert every(piece.head is specs["a"] for piece in pieces if piece.begin == 2)
    for name in specs:
        assert sorted(i for p in pieces if name in p.candidates for i in p.iterations) == list(ITERATIONS)


def test_most_pieces_fit_into_the_bytes_that_they_may_take() -> None:
    weights = (np.zeros(25, np.float32), np.zeros(5, np.float32))
    spec = NetSpec(b"net", "net", changed={"conv": weights})
    chunks = [(0, {"a": spec, "b": spec}), (3, {"c": NetSpec(b"net", "net", changed={"conv": weights})})]
    reference = {i: (np.zeros(10, np.float32),) for i in range(3)}
    assert most_pieces(chunks, reference, 1200) == Most(10, 10)
    assert most_pieces(chunks, reference, 100) == Most(1, 1)
    assert most_pieces([(0, {"a": NetSpec(b"net", "net")})], reference, 1200).pieces >= 1200
