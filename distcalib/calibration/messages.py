"""What the search for layers says of its rounds."""

from collections.abc import Iterator, Sequence

from distcalib.calibration.goal import Goal
from distcalib.calibration.scoreboard import Scoreboard
from distcalib.quantize.candidate import Candidate
from distcalib.report import drop_text
from distcalib.search import Decide, Measure, Measurement
from distcalib.session.progress import Decided


def round_name(number: int, n_candidates: int) -> str:
    """A round as progress names it."""
    return f"round {number}, {n_candidates} candidate{'s' if n_candidates > 1 else ''}"


def round_lines(
    phase: str, label: str, requests: Sequence[Measure | Decide], board: Scoreboard, goal: Goal
) -> Iterator[str]:
    """A line on the best of a round, or on each candidate that was decided only; `label`: of the search."""
    failed = board.failed
    for request in requests:
        if request.candidate in failed:
            yield f"set aside: {failed[request.candidate]}"
    measured = [board.measurement(r.candidate) for r in requests if isinstance(r, Measure) and not board.is_lost(r)]
    if measured:
        best = min(measured, key=lambda m: m.drop)
        yield f"{phase}: {score_text(best, goal)}, {fp32_text(best.candidate)}"
        return
    for request in requests:
        candidate = request.candidate
        if candidate in failed or not board.is_known(request):
            continue  # set aside, as was said, or not of interest any more
        share = board.shares.get(candidate, board.n_measured(candidate) / board.n_iterations)
        word = "meets the tolerance" if board.meets(candidate) else "loses too much"
        if board.hard_first and isinstance(request, Measure):
            word += f", about {board.likely_drop(candidate):.2g}"
        yield f"{label}{fp32_text(candidate)}: {word} (after {share:.0%} of the data)"


def round_verdicts(requests: Sequence[Measure | Decide], board: Scoreboard) -> Iterator[Decided]:
    """What is known now of the candidates of a round, for who watches."""
    for request in filter(board.is_known, requests):
        yield Decided(len(request.candidate.fp32_layers), board.meets(request.candidate))


def score_text(measured: Measurement, goal: Goal) -> str:
    """A score, and what it loses against FP32."""
    return f"{goal.metric} = {measured.score:.6g}, {drop_text(measured.drop, goal.lower_is_better)}"


def fp32_text(candidate: Candidate) -> str:
    """The layers in FP32 as far as a line has room for them."""
    fallen = candidate.fp32_layers
    if not fallen:
        return "no layer in FP32"
    names = ", ".join(fallen[:4]) + (", ..." if len(fallen) > 4 else "")
    return f"{len(fallen)} layer{'s' if len(fallen) > 1 else ''} in FP32: {names}"
