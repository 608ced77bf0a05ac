"""Reports side by side: what each says, as texts, and whether their scores may be compared."""

from collections.abc import Mapping, Sequence

from distcalib.report.record import CalibrationReport, drop_text, score_name

_MOST_NAMES = 6


def facts(report: CalibrationReport) -> Mapping[str, str]:
    """What is compared of a report, by what it is called; the same names of every report."""
    n_layers = len(report.int8_layers) + len(report.fp32_layers)
    return {
        "net": report.model,
        "weights": report.weights,
        "score": score_name(report.metric, report.lower_is_better),
        "iterations": f"{report.n_iterations} of {report.batch} images",
        "tolerance": f"{report.tolerance:g}",
        "verdict": "not measured" if report.met is None else "met" if report.met else "NOT met",
        "FP32": _number(report.fp32_score),
        "all INT8": _number(report.all_int8_score),
        "delivered": _number(report.score),
        "loses": "–" if report.drop is None else drop_text(report.drop, report.lower_is_better),
        "layers in INT8": f"{len(report.int8_layers)} of {n_layers}",
        "layers in FP32": _names(report.fp32_layers),
        "scales": ", ".join([report.calibration_algo, report.weights_channel, *report.flags]),
        "search": ", ".join(filter(None, [report.strategy, _ended(report)])),
        "candidates": str(len(report.candidates)),
        "cost in passes": "–" if report.cost_passes is None else f"{report.cost_passes:.2f}",
        "seconds": f"{report.seconds:.1f}",
        "target": f"{report.isa}, {report.way}",
        "distcalib": report.versions.get("distcalib", "–"),
        "prototxt": report.output,
        "SHA-256": report.sha256[:16],
    }


def differing(compared: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """The facts that are not the same in all."""
    return frozenset(name for name in compared[0] if len({one[name] for one in compared}) > 1)


def not_comparable(reports: Sequence[CalibrationReport]) -> str:
    """Why what they lose cannot be compared, "" if it can: another score, or other data."""
    if len({(one.metric, one.lower_is_better) for one in reports}) > 1:
        return "the scores are of different blobs"
    if len({one.n_iterations * one.batch for one in reports if one.batch}) > 1:
        return "the scores are of different numbers of images"
    if len({one.fp32_score for one in reports if one.fp32_score is not None}) > 1:
        return "the FP32 scores differ, so nets, weights or data do"
    return ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _names(layers: Sequence[str]) -> str:
    more = len(layers) - _MOST_NAMES
    return ", ".join([*layers[:_MOST_NAMES], *([f"and {more} more"] if more > 0 else [])]) or "none"


def _ended(report: CalibrationReport) -> str:
    return "" if report.stopped_by is None else f"ended by {report.stopped_by}"
