"""--equalize, --bias-correction: how many FP32 layers each saved, by a search without it.

Options apply one after the other, and each is credited with the difference that it made to those before it.  The search
with the weights given begins with the all-INT8 net, whose score is wanted anyway; where that meets the tolerance there
was nothing to save, and the search ends with it.
"""

from collections.abc import Mapping

from distcalib.calibration.goal import Goal
from distcalib.calibration.results import Savings, SearchResult
from distcalib.calibration.search_driver import Searching
from distcalib.quantize.scales import Calibration


def count_saved(searching: Searching, without: Mapping[str, Calibration], result: SearchResult) -> Savings:
    """What the options saved: `without` holds, in the order in which they apply, what each was given.

    `searching` is the search that found `result` with all of them.  Nothing is counted where the user limits the
    search, or asks for none: then the score alone is measured.
    """
    options, start = searching.goal.options, searching.programs.start
    first = next(iter(without.values()))
    if options.strategy == "none" or options.max_candidates is not None or options.max_time is not None:
        scored = searching.other("weights given", first).scores("all INT8", [start])
        return Savings(all_int8_score=scored[0].score if scored else None)
    needed: list[int | None] = []
    score: float | None = None
    for flag, calibration in without.items():
        other = searching.other(f"without {flag}", calibration)
        needed.append(_needed(other.run(), searching.goal))
        if calibration is first:
            scored = other.scores("all INT8", [start])  # the search may have seen only that it loses too much
            score = scored[0].score if scored else None
    needed.append(_needed(result, searching.goal))
    counts = [count for count in needed if count is not None]
    if len(counts) < len(needed):
        return Savings(all_int8_score=score)
    saved = {flag: before - after for flag, before, after in zip(without, counts, counts[1:], strict=False)}
    text = ", ".join(f"{flag} {n}" for flag, n in saved.items())
    searching.meter.note(f"FP32 layers saved: {text}")
    return Savings(saved, score)


def _needed(result: SearchResult, goal: Goal) -> int | None:
    """The FP32 layers of a winner that meets the tolerance."""
    measured = result.measured(result.winner)
    met = measured is not None and goal.is_met(measured.drop)
    return len(result.winner.fp32_layers) if met else None
