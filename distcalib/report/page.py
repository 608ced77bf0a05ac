"""The result of a calibration as a page: report.html, one file that needs no other and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from distcalib.report.charts import Chart, Point, chart
from distcalib.report.record import CalibrationReport, CandidateRecord, CurvePoint, drop_text, score_name

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class LayerRow:
    """A layer that could be INT8."""

    name: str
    is_int8: bool
    distance: float | None
    """Of the net's output from FP32's with it alone in INT8; None: not looked at, or it could not be run."""
    width: float
    """Of its bar, in percent of the largest."""


@dataclass(frozen=True)
class ClassRow:
    """A class of a detection net."""

    name: str
    fp32: float
    ap: float
    is_absent: bool = False
    """The data has no object of it."""


def page(report: CalibrationReport) -> str:
    """report.html; the same bytes for the same report."""
    return _template().render(
        r=report,
        title=Path(report.model).name,
        score_name=score_name(report.metric, report.lower_is_better),
        change=None if report.drop is None else drop_text(report.drop, report.lower_is_better),
        layers=_layers(report),
        classes=_classes(report),
        candidates_chart=_candidates_chart(report),
        pareto_chart=_pareto_chart(report),
    )


@cache
def _template() -> jinja2.Template:
    import jinja2  # not before it is needed: a command that writes no page would start later for it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distcalib.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")


def _number(value: float | None, digits: int = 6) -> str:
    """As the terminal shows it."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}g}"


def _layers(report: CalibrationReport) -> list[LayerRow]:
    """Those that were ranked in net order, then the others, FP32 first."""
    int8 = frozenset(report.int8_layers)
    names = dict.fromkeys([*report.distances, *report.fp32_layers, *report.int8_layers])
    finite = {name: value for name, value in report.distances.items() if math.isfinite(value)}
    largest = max(finite.values(), default=0.0) or 1.0
    return [
        LayerRow(name, name in int8, finite.get(name), 100.0 * max(finite.get(name, 0.0), 0.0) / largest)
        for name in names
    ]


def _classes(report: CalibrationReport) -> list[ClassRow]:
    rows = {
        label: ClassRow(_class_name(report, label), fp32, report.average_precisions[label])
        for label, fp32 in report.fp32_average_precisions.items()
        if label in report.average_precisions
    }
    rows |= {label: ClassRow(_class_name(report, label), 0.0, 0.0, True) for label in report.classes_without_objects}
    return [rows[label] for label in sorted(rows)]


def _class_name(report: CalibrationReport, label: int) -> str:
    return report.class_names.get(label, str(label))


def _candidates_chart(report: CalibrationReport) -> Chart | None:
    """What candidates lose by the number of their FP32 layers, of those that were measured."""
    points = _points(report, [(len(one.fp32_layers), one) for one in report.candidates])
    return chart(points, "layers in FP32", _loses(report), report.tolerance, whole=True) if len(points) > 1 else None


def _pareto_chart(report: CalibrationReport) -> Chart | None:
    points = _points(report, [(one.images_per_second, one) for one in report.pareto])
    return chart(points, "images/s of an actor, predicted", _loses(report), report.tolerance) if points else None


def _points(report: CalibrationReport, placed: Sequence[tuple[float, CandidateRecord | CurvePoint]]) -> list[Point]:
    """What is lost by each, at its x, of those of which that is known."""
    return [
        Point(x, one.drop, _told(one.fp32_layers, one.drop), one.fp32_layers == report.fp32_layers)
        for x, one in placed
        if one.drop is not None and math.isfinite(one.drop)
    ]


def _loses(report: CalibrationReport) -> str:
    return f"what {report.metric} " + ("rises" if report.lower_is_better else "loses")


def _told(fp32_layers: Sequence[str], drop: float) -> str:
    """What a point says when it is pointed at."""
    return f"{', '.join(fp32_layers) or 'no layer'} in FP32: {drop:.6g}"
