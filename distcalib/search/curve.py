"""The way from all INT8 to all FP32: candidates to choose among where one point is not enough.

Nested sets along a ranked list, the layer next that does most harm for the work it costs, at lengths that grow by
half: many where accuracy comes back fast, few where there is little left to win.  So some 12 measurements show the
curve of a net of 53 layers.
"""

from distcalib.quantize.candidate import Candidate
from distcalib.search.ranked import ranked_list
from distcalib.search.strategy import Ranking

GROWTH = 1.5


def curve(start: Candidate, ranking: Ranking) -> list[Candidate]:
    """`start`, some of the sets between, and the one with all in FP32 that may be, in the order of falling layers."""
    listed = [prefix.candidate for prefix in ranked_list(start, ranking, by_work=True)]
    return [start, *(listed[length - 1] for length in lengths(len(listed)))]


def lengths(n: int) -> list[int]:
    """1, 2, 3, 5, 8, 12, ... and `n`, none twice; nothing if n is 0."""
    counts: list[int] = []
    at = 1.0
    while at < n:
        counts.append(round(at))
        at = max(counts[-1] + 1.0, at * GROWTH)
    return [*dict.fromkeys(counts), n] if n else []
