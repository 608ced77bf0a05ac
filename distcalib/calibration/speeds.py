"""How fast the nets are that a report compares, and their layers: a few iterations on the actors, when the search is
done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distcalib.actors import JobResult
from distcalib.calibration.looks import Look
from distcalib.calibration.meter import Meter
from distcalib.calibration.pareto import LayerTimes, timing_jobs
from distcalib.calibration.results import SearchResult
from distcalib.calibration.search_driver import Searching
from distcalib.engine.spec import NetSpec
from distcalib.session.backend import rows

PHASE, ALL_INT8 = "speed", "all INT8"
N_ITERATIONS = 3
"""Timed of each net, the fastest counts: whatever else a machine does makes it slower, nothing makes it faster."""


@dataclass(frozen=True)
class Speeds:
    """`rates`: images a second of one core, the inference alone, by net. `layers`: seconds of one iteration in an
    actor, by layer and of all else as `REST`: in FP32, and with all INT8 that can be."""

    rates: Mapping[str, float]
    layers: Mapping[str, tuple[float, float]]


def speeds(
    searching: Searching, fp32: NetSpec, found: SearchResult, times: LayerTimes | None, n_cores: int
) -> Look[Speeds]:
    """Those of the nets that can be run, by actors of `n_cores`; the fastest iteration counts. `times` of layers stand
    where the search has measured them.

    None are measured where the engine is a build of Caffe's: its nets are not these programs.  What this takes is not
    counted as a cost of the search; but the unit of that is learned from it, where little of all INT8 was run.
    """
    start, winner = searching.programs.start, found.winner
    known = {} if times is None else _of_layers(times)
    if searching.goal.options.root is not None:
        return Look((), lambda _: Speeds({}, known))
    order = searching.goal.ranked[:N_ITERATIONS]
    nets = {"FP32": fp32}
    for name, candidate in ((ALL_INT8, start), ("delivered", winner)):
        if candidate.int8 and candidate not in found.failed and (name == ALL_INT8 or winner != start):
            nets[name] = searching.programs.spec(candidate)
    jobs = timing_jobs(PHASE, nets, order, n_cores, may_fail=True)

    def made(results: Sequence[JobResult]) -> Speeds:
        timed = {n: one for n, one in zip(nets, results, strict=True) if one.error is None and one.rows}
        batch = searching.meter.session.batch
        rates = {n: batch / min(row.whole_seconds for row in rows(one)) / n_cores for n, one in timed.items()}
        same = ALL_INT8 if winner == start else "FP32"
        if "delivered" not in rates and same in rates and (winner == start or not winner.int8):
            rates["delivered"] = rates[same]
        _tell(searching.meter, rates)
        if rates.keys() >= {"FP32", ALL_INT8}:
            searching.meter.learn_speeds(rates["FP32"], rates[ALL_INT8])
        if times is None and timed.keys() >= {"FP32", ALL_INT8}:
            return Speeds(rates, _of_layers(LayerTimes.of([timed["FP32"], timed[ALL_INT8]], min)))
        return Speeds(rates, known)

    return Look(jobs, made)


def _of_layers(times: LayerTimes) -> Mapping[str, tuple[float, float]]:
    return {name: (seconds, times.int8.get(name, seconds)) for name, seconds in times.fp32.items()}


def _tell(meter: Meter, speeds: Mapping[str, float]) -> None:
    if "FP32" in speeds and "delivered" in speeds:
        text = ", ".join(f"{name} {rate:,.0f}" for name, rate in speeds.items())
        ratio = speeds["delivered"] / speeds["FP32"]
        meter.note(f"images/s of one core: {text} ({ratio:.2f} times FP32)")
