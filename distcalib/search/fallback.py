"""The exact strategies: each measures whole candidates, and decides on nothing else."""

from collections.abc import Callable

from distcalib.errors import OptionError
from distcalib.quantize.candidate import Candidate
from distcalib.search.ranked import RankedFallback
from distcalib.search.strategy import Measurement, Search, Strategy, measure


class NoFallback:
    """Measure the all-INT8 candidate and deliver it, whatever it loses."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def search(self, start: Candidate) -> Search:
        """One candidate."""
        yield from measure([start])
        return start


class TopologicalFallback:
    """Return layers to FP32 from the front of the net until the drop is at most the tolerance: the predecessor's
    order.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def search(self, start: Candidate) -> Search:
        """One candidate a round."""
        [best] = yield from measure([start])
        while best.drop > self._tolerance and best.candidate.movable:
            [best] = yield from measure([best.candidate.without(best.candidate.movable[0])])
        return best.candidate


class GreedyFallback:
    """Return one layer to FP32 a round, the one that helps most, until the drop is at most the tolerance."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance

    def search(self, start: Candidate) -> Search:
        """As many candidates a round as there are INT8 layers left, all measured in parallel."""
        [best] = yield from measure([start])
        while best.drop > self._tolerance and best.candidate.movable:
            tried = yield from measure([best.candidate.without(layer) for layer in best.candidate.movable])
            best = min(tried, key=_preference)
        return best.candidate


def _preference(measurement: Measurement) -> tuple[float, int, tuple[str, ...]]:
    """Least drop first; of equals the one with more INT8 layers, then the first by name, so that no tie stays open."""
    candidate = measurement.candidate
    return measurement.drop, -len(candidate.int8), candidate.fp32_layers


STRATEGIES: dict[str, Callable[[float], Strategy]] = {
    "ranked": RankedFallback,
    "greedy": GreedyFallback,
    "topological": TopologicalFallback,
    "none": NoFallback,
}


def strategy(name: str) -> Callable[[Callable[[float], Strategy]], Callable[[float], Strategy]]:
    """Register what makes a strategy for a tolerance, for plugins.  Raises ValueError for a name that is taken."""

    def register(make: Callable[[float], Strategy]) -> Callable[[float], Strategy]:
        if name in STRATEGIES:
            raise ValueError(f"strategy {name} exists already")
        STRATEGIES[name] = make
        return make

    return register


def make_strategy(name: str, tolerance: float) -> Strategy:
    """The strategy of that name; OptionError naming those that exist."""
    if name not in STRATEGIES:
        raise OptionError(f"--strategy {name}: unknown; choose {', '.join(STRATEGIES)}")
    return STRATEGIES[name](tolerance)
