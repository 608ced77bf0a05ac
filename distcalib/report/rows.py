"""The rows of the page's tables: layers and why each is FP32, candidates in the order asked for, classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distcalib.report.layer_pictures import Opened, opened
from distcalib.report.record import CalibrationReport, CandidateRecord


@dataclass(frozen=True)
class LayerRow:
    """A layer that could be INT8."""

    name: str
    is_int8: bool
    distance: float | None
    """Of the net's output from FP32's with it alone in INT8; None: not looked at, or it could not be run."""
    width: float
    """Of its bar, in percent of the largest."""
    why: str
    """Of an FP32 layer: what showed that it must be."""
    opened: Opened | None = None
    """What its scales are made from, where that is known."""


@dataclass(frozen=True)
class CandidateRow:
    """A candidate, in the order in which they were asked for."""

    number: int
    one: CandidateRecord
    share: float | None
    """The part of the data that was measured of it."""
    loses: str
    decided: str
    is_delivered: bool


@dataclass(frozen=True)
class ClassRow:
    """A class of a detection net, or of a classifier whose Accuracy counts by class."""

    name: str
    fp32: float
    delivered: float
    """Its average precision, or accuracy."""
    is_absent: bool = False
    """The data has no object, or no label, of it."""


def layer_rows(report: CalibrationReport) -> list[LayerRow]:
    """In net order; where that is not known, those that were ranked first, then the others, FP32 before INT8."""
    int8 = frozenset(report.int8_layers)
    known = report.quantizable_layers or (*report.distances, *report.fp32_layers, *report.int8_layers)
    names = dict.fromkeys([*known, *report.distances])
    finite = {name: value for name, value in report.distances.items() if math.isfinite(value)}
    largest = max(finite.values(), default=0.0) or 1.0
    return [
        LayerRow(
            name,
            name in int8,
            finite.get(name),
            100.0 * max(finite.get(name, 0.0), 0.0) / largest,
            "" if name in int8 else why_fp32(report, name),
            opened(report, name),
        )
        for name in names
    ]


def why_fp32(report: CalibrationReport, layer: str) -> str:
    """Which candidate showed it: of those with it in INT8 that lose too much the one most like the net delivered."""
    fp32 = frozenset(report.fp32_layers)
    shown = [one for one in report.candidates if layer not in one.fp32_layers and not one.meets]
    if not shown:
        tried = any(layer not in one.fp32_layers for one in report.candidates)
        return "" if tried or not report.candidates else "FP32 in every candidate"
    nearest = min(shown, key=lambda one: len(fp32.symmetric_difference(one.fp32_layers)))
    return f"{_with(nearest, fp32, layer)} {_loss(report, nearest)}"


def _with(one: CandidateRecord, fp32: frozenset[str], layer: str) -> str:
    """The candidate `one` in words, of which `layer` is INT8."""
    if frozenset(one.fp32_layers) == fp32 - {layer}:
        return "with it in INT8 the net"
    if not one.fp32_layers:
        return "all INT8"
    n = len(one.fp32_layers)
    return f"the net with {n} {'layer' if n == 1 else 'layers'} in FP32 and this one in INT8"


def _loss(report: CalibrationReport, one: CandidateRecord) -> str:
    loses = "rises by" if report.lower_is_better else "loses"
    if one.failed:
        return "could not be run"
    if one.drop is not None:
        return f"{loses} {one.drop:.3g}"
    return f"{loses} more than {report.tolerance:g}" + _about(one)


def _about(one: CandidateRecord) -> str:
    return "" if one.likely_drop is None else f", about {one.likely_drop:.2g}"


def candidate_rows(report: CalibrationReport) -> list[CandidateRow]:
    """All, with what each decided."""
    shares: Sequence[float | None] = report.candidate_shares
    if len(shares) != len(report.candidates):
        shares = [None] * len(report.candidates)
    return [
        CandidateRow(
            number,
            one,
            share,
            _loses(one),
            f"could not be run: {one.failed}" if one.failed else "met" if one.meets else "missed",
            frozenset(one.fp32_layers) == frozenset(report.fp32_layers),
        )
        for number, (one, share) in enumerate(zip(report.candidates, shares, strict=True), 1)
    ]


def _loses(one: CandidateRecord) -> str:
    if one.drop is not None:
        return f"{one.drop:.6g}" if math.isfinite(one.drop) else "–"
    return "–" if one.likely_drop is None else f"about {one.likely_drop:.2g}"


def class_rows(report: CalibrationReport) -> list[ClassRow]:
    """By label."""
    names = report.class_names
    before = {**report.fp32_average_precisions, **report.fp32_class_accuracies}
    after = {**report.average_precisions, **report.class_accuracies}
    rows = {
        label: ClassRow(names.get(label, str(label)), fp32, after[label])
        for label, fp32 in before.items()
        if label in after
    }
    absent = (*report.classes_without_objects, *report.classes_without_labels)
    rows |= {label: ClassRow(names.get(label, str(label)), 0.0, 0.0, True) for label in absent}
    return [rows[label] for label in sorted(rows)]
