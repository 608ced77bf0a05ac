"""--equalize, --bias-correction: how many FP32 layers each saved, by a search without it.

Options apply one after the other, and each is credited with the difference that it made to those before it.  The search
with the weights given begins with the all-INT8 net, whose score is wanted anyway; where that meets the tolerance there
was nothing to save, and the search ends with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distcalib.calibration.search_driver import Searching
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration


@dataclass(frozen=True)
class Saved:
    """FP32 layers saved by each option, empty where that was not searched or a search failed; and the score of the
    all-INT8 net with the weights given, None where it was not measured to the end.
    """

    layers: Mapping[str, int] = field(default_factory=dict)
    all_int8_score: float | None = None


def count_saved(searching: Searching, without: Mapping[str, Calibration], winner: Candidate) -> Saved:
    """What the options saved: `without` holds, in the order in which they apply, what each was given.

    `searching` is the search that found `winner` with all of them.  Nothing is counted where the user limits the
    search, or asks for none: then the score alone is measured.
    """
    options, start = searching.measuring.options, searching.programs.start
    first = next(iter(without.values()))
    if options.strategy == "none" or options.max_candidates is not None or options.max_time is not None:
        found = searching.other("weights given", first).scores("all INT8", [start])
        return Saved(all_int8_score=found[0].score if found else None)
    needed: list[int | None] = []
    score: float | None = None
    for flag, calibration in without.items():
        other = searching.other(f"without {flag}", calibration)
        needed.append(_needed(other, other.run()))
        if calibration is first:
            found = other.scores("all INT8", [start])  # the search may have seen only that it loses too much
            score = found[0].score if found else None
    needed.append(_needed(searching, winner))
    counts = [count for count in needed if count is not None]
    if len(counts) < len(needed):
        return Saved(all_int8_score=score)
    saved = {flag: before - after for flag, before, after in zip(without, counts, counts[1:], strict=False)}
    text = ", ".join(f"{flag} {n}" for flag, n in saved.items())
    searching.measuring.session.reporter.note(f"FP32 layers saved: {text}")
    return Saved(saved, score)


def _needed(searching: Searching, winner: Candidate) -> int | None:
    """The FP32 layers of a winner that meets the tolerance."""
    measured = searching.measuring.measured(winner)
    met = measured is not None and measured.drop <= searching.measuring.options.accuracy_loss
    return len(winner.fp32_layers) if met else None
