"""halves: all INT8, then the first half of the layers in FP32, then all; the first that meets the tolerance."""

from distcalib.quantize.candidate import Candidate
from distcalib.search import Search, strategy
from distcalib.search.strategy import measure


@strategy("halves")
class Halves:
    """Three candidates at the most."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def search(self, start: Candidate) -> Search:
        """Yields what is to be measured, returns the winner."""
        layers = start.movable
        for n in (0, len(layers) // 2, len(layers)):
            [found] = yield from measure([start.without(*layers[:n])])
            if found.drop <= self._tolerance:
                break
        return found.candidate
