"""Tells the user what a ranked search bought, and takes DIRECT where all INT8 loses less with it than with `auto`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.results import Observed, SearchResult
from distcalib.calibration.search_driver import Searching
from distcalib.metrics import Drawing, Partial, PartialScore, drawn
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.thresholds import AUTO, DIRECT
from distcalib.report import Changes
from distcalib.report.scores import rounded_up
from distcalib.search import Measure, Rank
from distcalib.search.price import Knee, Loss, knee, shorter

ESTIMATED = 0.95
"""The confidence that a candidate loses too much, where nothing but words depends on it."""


def price_warnings(searching: Searching, result: SearchResult, changes: Changes | None) -> tuple[str, ...]:
    """What is to be said of a set that fell back: that its last layers bought little, that its drop may be chance."""
    start, goal, winner = searching.programs.start, searching.goal, result.winner
    if winner == start or goal.options.strategy != "ranked" or result.stopped_by is not None:
        return ()
    warnings = [_noise_warning(goal.options.accuracy_loss, searching.fp32, result, changes)]
    candidates = shorter(start, winner, searching.ranked(Rank(start.movable)))
    if candidates:
        last = Loss(winner, searching.board.measurement(winner).drop)
        first, *inner = estimates(searching, "what the layers in FP32 buy", [start, *candidates])
        warnings.append(_knee_warning(knee(first, inner, last), last, goal.metric))
    return tuple(filter(None, warnings))


def estimates(searching: Searching, phase: str, candidates: Sequence[Candidate]) -> list[Loss]:
    """About what `candidates` lose, for words and not for verdicts: by images that are drawn, where these may be."""
    board = searching.board
    unknown = [one for one in candidates if not board.is_known(Measure(one, unless_lost=True))]
    if not (unknown and board.hard_first) or (searching.goal.options.confidence or 1.0) <= ESTIMATED:
        return searching.losses(phase, candidates)
    found = {loss.candidate: loss for loss in _drawing(searching).losses(phase, unknown)}
    return [found[one] if one in found else board.loss(Measure(one, unless_lost=True)) for one in candidates]


def _drawing(searching: Searching) -> Searching:
    """One that takes the images as they are drawn for a confidence."""
    goal, fp32 = searching.goal, searching.fp32
    options = replace(goal.options, confidence=ESTIMATED)
    order = fp32.order if isinstance(fp32.order, Drawing) else drawn(fp32.images, searching.meter.session.batch)
    return replace(searching, goal=replace(goal, options=options), fp32=replace(fp32, order=order), is_main=False)


def _knee_warning(found: Knee | None, last: Loss, metric: str) -> str:
    if found is None:
        return ""
    layers, n_all = found.loss.candidate.fp32_layers, len(last.candidate.fp32_layers)
    shown = ", ".join(layers[:4]) + (", ..." if len(layers) > 4 else "")
    drop = max(found.loss.drop, 0.0)
    # An estimate is told with two digits, and the tolerance with something to spare.
    enough = rounded_up(1.1 * drop, 2) if found.loss.about else math.ceil(1e6 * drop) / 1e6
    about, text = ("about ", f"{drop:.2g}") if found.loss.about else ("", f"{found.loss.drop:.6g}")
    return (
        f"{found.n_more} of the {n_all} layers in FP32 win {about}{found.gain:.{2 if about else 3}g} of {metric} "
        f"together; with {len(layers)} ({shown}) the drop is {about}{text}, and -l {enough:g} would "
        f"{'probably ' if about else ''}deliver as few"
    )


def _noise_warning(tolerance: float, fp32: Fp32Pass, result: SearchResult, changes: Changes | None) -> str:
    if fp32.order is not None:  # batches of another order than the iterations of FP32: image by image then
        told = None if changes is None else noise_of(changes)
    else:
        told = noise(fp32.values, result.values)
    if told is None or not 0.0 < tolerance < told[0]:
        return ""
    return (
        f"-l {tolerance:g} is below the noise of {told[1]} labels: the drop is known within "
        f"{told[0]:.2g}; give more data, or all there are (without -i)"
    )


def better_search(searching: Searching, observed: Observed) -> Iterator[tuple[Searching, Observed]]:
    """With `-a auto` the search with DIRECT, where all INT8 loses less with that; else nothing.

    auto goes by the error at the output on the sampled iterations, which is no score.  Biases are corrected for the
    scales of one algorithm, so with those its choice stands.
    """
    start, chosen, calibration = searching.programs.start, observed.chosen, observed.calibration
    direct, tolerance = Choice(DIRECT), searching.goal.options.accuracy_loss
    if chosen is None or not start.int8 or calibration.corrected or set(chosen.algorithms.values()) <= {DIRECT}:
        return
    [auto] = searching.losses(None, [start])
    of_direct = replace(calibration, choice=direct)
    other = searching.other(f"{AUTO} against {DIRECT}", of_direct)
    [loss] = other.losses(None, [start])
    # What loses too much is estimated, so it counts behind what is known not to.
    if (not auto.meets(tolerance), auto.drop) <= (not loss.meets(tolerance), loss.drop):
        return
    against = f"{auto.drop:.2g} with its choice" if math.isfinite(auto.drop) else "and cannot be run with its choice"
    searching.meter.note(
        f"{AUTO}: with {DIRECT} for all blobs all INT8 loses {loss.drop:.2g}, {against}; so that is kept"
    )
    other.label = ""
    yield other, replace(observed, calibration=of_direct, chosen=replace(chosen, choice=direct))


def noise_of(changes: Changes) -> tuple[float, int]:
    """The standard error of the drop, from the images that were lost and gained, and how many images there are."""
    n, changed, net = changes.n_images, changes.lost + changes.gained, changes.lost - changes.gained
    return math.sqrt(changed - net**2 / n) / n, n


def noise(fp32: Sequence[PartialScore], other: Sequence[PartialScore]) -> tuple[float, int] | None:
    """The standard error of the drop from one score to another, and how many values count.

    From how the difference varies over the iterations, which are paired; None of what is no mean, or of less than two.
    """
    pairs = list(zip(fp32, other, strict=False))
    if len(pairs) < 2:
        return None
    differences, counts = [], []
    for one, two in pairs:
        if not (isinstance(one, Partial) and isinstance(two, Partial)) or one.denominator != two.denominator:
            return None
        differences.append(two.numerator - one.numerator)
        counts.append(one.denominator)
    n, n_values = len(pairs), sum(counts)
    if not n_values:
        return None
    mean = math.fsum(differences) / n
    spread = math.fsum((difference - mean) ** 2 for difference in differences) / (n - 1)
    return math.sqrt(n * spread) / n_values, n_values
