"""How fast the nets are that a report compares, and their layers: a few iterations on the actors, when the search is
done.
"""

from collections.abc import Mapping, Sequence

from distcalib.actors import Job, JobResult
from distcalib.calibration.looks import Look
from distcalib.calibration.meter import Meter
from distcalib.calibration.pareto import LayerTimes, timing_jobs
from distcalib.calibration.results import SearchResult
from distcalib.calibration.search_driver import Searching
from distcalib.engine.spec import NetSpec
from distcalib.engine.timing import REST, TimingSpec
from distcalib.session.backend import rows

PHASE = "speed"
N_ITERATIONS = 3
"""Timed of each net, the fastest counts: whatever else a machine does makes it slower, nothing makes it faster."""


def core_speeds(searching: Searching, fp32: NetSpec, found: SearchResult, n_cores: int) -> Look[Mapping[str, float]]:
    """Images a second of one core, the inference alone, by actors of `n_cores`; of nets that can be run.

    None are measured where the engine is a build of Caffe's: its nets are not these programs.  What this takes is not
    counted as a cost of the search.
    """
    start, winner, batch = searching.programs.start, found.winner, searching.meter.session.batch
    if searching.goal.options.root is not None:
        return Look((), lambda _: {})
    order = searching.goal.ranked[:N_ITERATIONS]
    wanted = {"FP32": fp32}
    for name, candidate in (("all INT8", start), ("delivered", winner)):
        if candidate.int8 and candidate not in found.failed:
            wanted[name] = searching.programs.spec(candidate)
    nets = {name: spec for name, spec in wanted.items() if name != "delivered" or winner != start}
    jobs = [
        Job(f"{PHASE}/{name}", TimingSpec(spec, n_cores, whole=True), len(order), PHASE, order=order, may_fail=True)
        for name, spec in nets.items()
    ]

    def made(results: Sequence[JobResult]) -> Mapping[str, float]:
        speeds: dict[str, float] = {}
        for name, result in zip(nets, results, strict=True):
            if result.error is None and result.rows:
                speeds[name] = batch / min(row.seconds[REST] for row in rows(result)) / n_cores
        same = "all INT8" if winner == start else "FP32"
        if "delivered" not in speeds and same in speeds and (winner == start or not winner.int8):
            speeds["delivered"] = speeds[same]
        _tell(searching.meter, speeds)
        return speeds

    return Look(jobs, made)


def layer_seconds(
    searching: Searching, fp32: NetSpec, result: SearchResult, times: LayerTimes | None, n_cores: int
) -> Look[Mapping[str, tuple[float, float]]]:
    """By layer, and of all else as `REST`, the seconds of one iteration in an actor of `n_cores`: in FP32, and with all
    INT8 that can be.

    `times`: where the search has measured them.  Else they are measured on a few iterations, and the fastest of each
    counts; none where the engine is a build of Caffe's, or a net cannot be run.  That is not a cost of the search.
    """
    start = searching.programs.start
    if times is not None:
        known = _of_layers(times)
        return Look((), lambda _: known)
    if searching.goal.options.root is not None or not start.int8 or start in result.failed:
        return Look((), lambda _: {})
    order, int8 = searching.goal.ranked[:N_ITERATIONS], searching.programs.spec(start)

    def made(results: Sequence[JobResult]) -> Mapping[str, tuple[float, float]]:
        if any(one.error is not None or not one.rows for one in results):
            return {}
        return _of_layers(LayerTimes.of(results, min))

    return Look(timing_jobs(order, fp32, int8, n_cores, may_fail=True), made)


def _of_layers(times: LayerTimes) -> Mapping[str, tuple[float, float]]:
    return {name: (seconds, times.int8.get(name, seconds)) for name, seconds in times.fp32.items()}


def _tell(meter: Meter, speeds: Mapping[str, float]) -> None:
    if "FP32" in speeds and "delivered" in speeds:
        text = ", ".join(f"{name} {rate:,.0f}" for name, rate in speeds.items())
        ratio = speeds["delivered"] / speeds["FP32"]
        meter.note(f"images/s of one core: {text} ({ratio:.2f} times FP32)")
