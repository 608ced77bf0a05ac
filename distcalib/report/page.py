"""The result of a calibration as a page: report.html, one file that needs no other and no network."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from distcalib.report.changed import class_change_rows, lost_rows
from distcalib.report.gantt import gantt, phase_rows
from distcalib.report.pictures import candidates_chart, pareto_chart, speed_chart
from distcalib.report.record import CalibrationReport, score_name
from distcalib.report.rows import candidate_rows, class_rows, layer_rows
from distcalib.report.scores import NEXT, changes_told, net_scores, what_helps

if TYPE_CHECKING:
    import jinja2


def page(report: CalibrationReport) -> str:
    """report.html; the same bytes for the same report."""
    return _template().render(
        r=report,
        title=Path(report.model).name,
        score_name=score_name(report.metric, report.lower_is_better),
        next=[(told, report.commands[name]) for name, told in NEXT.items() if name in report.commands],
        helps=what_helps(report),
        changes_told=changes_told(report),
        nets=net_scores(report),
        layers=layer_rows(report),
        phases=phase_rows(report),
        gantt=gantt(report),
        classes=class_rows(report),
        class_changes=class_change_rows(report),
        lost=lost_rows(report),
        labelled=any(one.label != one.fp32_class for one in report.changes.records) if report.changes else False,
        candidates=candidate_rows(report),
        candidates_chart=candidates_chart(report),
        speed_chart=speed_chart(report),
        pareto_chart=pareto_chart(report),
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
