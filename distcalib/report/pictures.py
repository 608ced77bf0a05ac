"""What the page's pictures show of a report."""

import math
from collections.abc import Sequence

from distcalib.report.charts import Chart, Point, chart
from distcalib.report.record import CalibrationReport


def candidates_chart(report: CalibrationReport) -> Chart | None:
    """What candidates lose by the number of their FP32 layers, FP32 itself among them.

    Of those that were stopped early it is what they lose on the part of the data that decided.
    """
    if report.fp32_score is None or not report.candidates:
        return None
    n_all = len(report.int8_layers) + len(report.fp32_layers)
    points = [] if len(report.fp32_layers) == n_all else [Point(n_all, 0.0, "FP32", label="FP32")]
    for one in report.candidates:
        drop = one.likely_drop if one.drop is None else one.drop
        if drop is not None and math.isfinite(drop):
            points.append(_point(report, len(one.fp32_layers), one.fp32_layers, drop, is_exact=one.drop is not None))
    return chart(points, "layers in FP32", _loses(report), report.tolerance, whole=True) if len(points) > 1 else None


def pareto_chart(report: CalibrationReport) -> Chart | None:
    """--pareto: what is lost by the speed that is predicted, with the front."""
    if not report.pareto:
        return None
    points = [_point(report, one.images_per_second, one.fp32_layers, one.drop) for one in report.pareto]
    front = [(one.images_per_second, one.drop) for one in report.pareto if one.optimal]
    return chart(points, "images/s of an actor, predicted", _loses(report), report.tolerance, front=front)


def _point(
    report: CalibrationReport, x: float, fp32_layers: Sequence[str], drop: float, is_exact: bool = True
) -> Point:
    """A candidate at its x; what it says when it is pointed at."""
    about = "" if is_exact else "about "
    told = f"{', '.join(fp32_layers) or 'no layer'} in FP32: {about}{drop:.6g}"
    is_delivered = frozenset(fp32_layers) == frozenset(report.fp32_layers)
    return Point(x, drop, told, is_delivered, is_exact, "delivered" if is_delivered else "")


def _loses(report: CalibrationReport) -> str:
    return f"what {report.metric} " + ("rises" if report.lower_is_better else "loses")
