"""The nets that a report compares: FP32, all INT8, the one delivered; and what helps where none was good enough."""

from collections.abc import Mapping
from dataclasses import dataclass

from distcalib.report.record import CalibrationReport, drop_text


@dataclass(frozen=True)
class NetScore:
    """One net: its score, or None, and lines on what it loses and how fast it is."""

    name: str
    score: float | None
    lines: tuple[str, ...]


def net_scores(report: CalibrationReport) -> list[NetScore]:
    """The three of them, of what was measured."""
    if report.fp32_score is None:
        return []
    lower = report.lower_is_better
    delivered = () if report.drop is None else (drop_text(report.drop, lower),)
    return [
        NetScore("FP32", report.fp32_score, ()),
        NetScore("all INT8", report.all_int8_score, (_all_int8(report),)),
        NetScore("delivered", report.score, delivered),
    ]


def all_int8_drop(report: CalibrationReport) -> float | None:
    """What the net with all layers in INT8 loses, where that was measured."""
    if report.fp32_score is None or report.all_int8_score is None:
        return None
    drop = report.fp32_score - report.all_int8_score
    return round(-drop if report.lower_is_better else drop, 12)


def _all_int8(report: CalibrationReport) -> str:
    drop = all_int8_drop(report)
    if drop is not None:
        return drop_text(drop, report.lower_is_better)
    first = next((one for one in report.candidates if not one.fp32_layers), None)
    if first is None:
        return "not measured"
    about = "" if first.likely_drop is None else f", about {first.likely_drop:.2g}"
    return "could not be run" if first.failed else f"loses too much{about}"


def what_helps(report: CalibrationReport) -> list[tuple[str, str]]:
    """Where the tolerance is not met: sentences, each with the command that it is about, "" where there is none."""
    if report.met is not False or report.drop is None:
        return []
    command, found = report.commands.get("calibrate", ""), []
    if report.stopped_by is not None:
        found.append((f"The search was ended by {report.stopped_by}; without that it may find a net that is good.", ""))
    lower = report.lower_is_better
    found.append(
        (
            f"The best net that was measured has a {drop_text(report.drop, lower)}: it is good for a tolerance (-l) of "
            f"{report.drop:.6g} or more.",
            "",
        )
    )
    if command and not _weights_made(report):
        found.append(("New weights that fit INT8 better, which often bring the loss down.", f"{command} --recover"))
    if command and report.calibration_algo == "DIRECT":
        found.append(("Scales chosen for each blob by the error at the output.", f"{command} -a auto"))
    return found


def _weights_made(report: CalibrationReport) -> bool:
    others = ("equalize", "bias_correction", "first_conv_force_u8", "root")
    return any(flag in report.flags for flag in others)


NEXT: Mapping[str, str] = {
    "evaluate": "Measure the delivered net again, with all its scores",
    "export": "Write it for OpenVINO, measured there too",
}
"""What can be run with what was written, by command."""
