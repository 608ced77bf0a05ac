"""How fast the nets are that a report compares: a few iterations of each on the actors, when the search is done."""

from collections.abc import Mapping

from distcalib.actors import Job
from distcalib.calibration.search_driver import Searching
from distcalib.engine.spec import NetSpec
from distcalib.engine.timing import REST, TimingSpec
from distcalib.quantize.candidate import Candidate
from distcalib.session.backend import rows

PHASE = "speed"
N_ITERATIONS = 3
"""Timed of each net, the fastest counts: whatever else a machine does makes it slower, nothing makes it faster."""


def core_speeds(searching: Searching, fp32: NetSpec, winner: Candidate, n_cores: int) -> Mapping[str, float]:
    """Images a second of one core, the inference alone, by actors of `n_cores`; of nets that can be run.

    None are measured where the engine is a build of Caffe's: its nets are not these programs.  What this takes is not
    counted as a cost of the search.
    """
    measuring, start = searching.measuring, searching.programs.start
    if measuring.options.root is not None:
        return {}
    order = measuring.ranked[:N_ITERATIONS]
    wanted = {"FP32": fp32}
    for name, candidate in (("all INT8", start), ("delivered", winner)):
        if candidate.int8 and candidate not in measuring.failed:
            wanted[name] = searching.programs.spec(candidate)
    nets = {name: spec for name, spec in wanted.items() if name != "delivered" or winner != start}
    jobs = [
        Job(f"{PHASE}/{name}", TimingSpec(spec, n_cores, whole=True), len(order), PHASE, order=order, may_fail=True)
        for name, spec in nets.items()
    ]
    found: dict[str, float] = {}
    for name, result in zip(nets, measuring.session.run(PHASE, jobs), strict=True):
        if result.error is None and result.rows:
            seconds = min(row.seconds[REST] for row in rows(result))
            found[name] = measuring.session.batch / seconds / n_cores
    same = "all INT8" if winner == start else "FP32"
    if "delivered" not in found and same in found and (winner == start or not winner.int8):
        found["delivered"] = found[same]
    _tell(searching, found)
    return found


def _tell(searching: Searching, found: Mapping[str, float]) -> None:
    if "FP32" in found and "delivered" in found:
        text = ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items())
        ratio = found["delivered"] / found["FP32"]
        searching.measuring.session.reporter.note(f"images/s of one core: {text} ({ratio:.2f} times FP32)")
