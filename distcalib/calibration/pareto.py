"""--pareto: accuracy against predicted speed, from all INT8 to all FP32.

Accuracies are measured over all iterations, as the delivered one is.  Speeds are predicted from the times of single
layers, since a whole net's depends on what else the machine does: a mixture takes each layer's time from the net in
which all that can be INT8 is, or from the FP32 net; of all else a part that is as large as its part of INT8 layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from distcalib.actors import Job, JobResult
from distcalib.calibration.goal import Goal
from distcalib.calibration.meter import Meter
from distcalib.calibration.search_driver import Searching
from distcalib.engine.spec import NetSpec
from distcalib.engine.timing import REST, TimingSpec
from distcalib.quantize.candidate import Candidate
from distcalib.report import CurvePoint
from distcalib.search import Measurement, Rank, curve
from distcalib.session.backend import rows

PHASE = "times of layers"


@dataclass(frozen=True)
class LayerTimes:
    """Seconds of one iteration in one actor by layer, and of `REST`: in the FP32 net, and with all INT8 that can be."""

    fp32: Mapping[str, float]
    int8: Mapping[str, float]

    @classmethod
    def of(cls, results: Sequence[JobResult], middle: Callable[[Iterator[float]], float]) -> "LayerTimes":
        """Of each layer what `middle` makes of its iterations; `results`: of both nets."""
        seconds = [[row.seconds for row in rows(result)] for result in results]
        return cls(*({name: middle(row[name] for row in times) for name in times[0]} for times in seconds))

    def seconds(self, candidate: Candidate) -> float:
        """What an iteration of `candidate` will take."""
        n_all = len(candidate.space.order)
        share = len(candidate.int8) / n_all if n_all else 0.0
        seconds = (1 - share) * self.fp32[REST] + share * self.int8[REST]
        for layer in sorted(self.fp32.keys() - {REST}):
            int8 = layer in candidate.int8 or layer not in candidate.space.order
            seconds += self.int8.get(layer, self.fp32[layer]) if int8 else self.fp32[layer]
        return seconds

    def saved(self, layer: str) -> float:
        """What `layer` gains by being INT8; not below 0."""
        return max(self.fp32.get(layer, 0.0) - self.int8.get(layer, 0.0), 0.0)


def timing_jobs(
    phase: str, nets: Mapping[str, NetSpec], order: tuple[int, ...], n_cores: int, may_fail: bool = False
) -> list[Job]:
    """What times each of `nets` and its layers on the iterations of `order`, by actors of `n_cores`."""
    return [
        Job(f"{phase}/{name}", TimingSpec(spec, n_cores), len(order), phase, order=order, may_fail=may_fail)
        for name, spec in nets.items()
    ]


def layer_times(meter: Meter, goal: Goal, fp32: NetSpec, int8: NetSpec, n_cores: int) -> LayerTimes:
    """Measure both nets on the iterations that a ranking looks at; of each layer the median."""
    jobs = timing_jobs(PHASE, {"FP32": fp32, "INT8": int8}, goal.ranked, n_cores)
    return LayerTimes.of(meter.run(PHASE, jobs), median)


def measure_curve(searching: Searching, winner: Candidate, times: LayerTimes) -> tuple[CurvePoint, ...]:
    """The curve, the `winner` among its points, from the fastest to the slowest."""
    batch, start = searching.meter.session.batch, searching.programs.start
    candidates = [start]
    if start.movable:
        candidates = curve(start, searching.ranked(Rank(start.movable)))
    candidates = list(dict.fromkeys([*candidates, winner]))
    points = [_point(m, times, batch) for m in searching.scores("curve", candidates)]
    return best_marked(sorted(points, key=lambda p: (-p.images_per_second, p.drop, len(p.fp32_layers))))


def best_marked(points: Sequence[CurvePoint]) -> tuple[CurvePoint, ...]:
    """`points`, which fall in speed, with those marked that no faster one beats: the Pareto front."""
    marked: list[CurvePoint] = []
    least = float("inf")
    for point in points:
        marked.append(replace(point, optimal=point.drop < least))
        least = min(least, point.drop)
    return tuple(marked)


def _point(measured: Measurement, times: LayerTimes, batch: int) -> CurvePoint:
    rate = batch / times.seconds(measured.candidate)
    return CurvePoint(measured.candidate.fp32_layers, measured.score, measured.drop, rate, False)
