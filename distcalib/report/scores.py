"""The nets that a report compares: FP32, all INT8, the one delivered; and what helps where none was good enough."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from distcalib.report.record import CalibrationReport, drop_text

SIGNIFICANT = 0.05
"""Below it a p value says that a difference is more than chance."""


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
        NetScore("FP32", report.fp32_score, _speed(report, "FP32")),
        NetScore("all INT8", report.all_int8_score, (_all_int8(report), *_speed(report, "all INT8"))),
        NetScore("delivered", report.score, (*delivered, *_speed(report, "delivered"))),
    ]


def _speed(report: CalibrationReport, name: str) -> tuple[str, ...]:
    """Lines on how fast a net is, where that was measured."""
    speeds = report.core_images_per_second
    rate, fp32 = speeds.get(name), speeds.get("FP32")
    if rate is None:
        return ()
    ratio = () if fp32 is None or name == "FP32" else (f"{rate / fp32:.2f} times FP32",)
    return f"{rate:,.0f} images/s", *ratio


def changes_told(report: CalibrationReport) -> str:
    """What the images that changed say of the drop; "" where that is not known."""
    changes = report.changes
    if changes is None or report.drop is None:
        return ""
    chance = "is more than chance" if changes.p_value < SIGNIFICANT else "may be chance"
    return (
        f"Of {changes.n_images:,} images {changes.lost:,} that FP32 has right are lost, and {changes.gained:,} that it "
        f"has wrong are gained. What is lost in all lies between {changes.low:.3g} and {changes.high:.3g} with 95 % "
        f"confidence (paired, after Agresti and Min); by McNemar's exact test the difference {chance} "
        f"(p = {changes.p_value:.2g})."
    )


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
    if report.met is not False or report.drop is None or not 0.0 < report.drop < math.inf:
        return []
    command, lines = report.commands.get("calibrate", ""), []
    if report.stopped_by is not None:
        lines.append((f"The search was ended by {report.stopped_by}; without that it may find a net that is good.", ""))
    lines.append(
        (
            f"The best net that was measured has a {drop_text(report.drop, report.lower_is_better)}: it meets -l "
            f"{rounded_up(report.drop, 4):g} and more.",
            "",
        )
    )
    if command and not _weights_tried(report):
        lines.append(
            (
                "New weights that fit INT8 better, which often bring the loss down.",
                f"{command.replace(' --recover off', '')} --recover",
            )
        )
    if command and report.calibration_algo == "DIRECT":
        lines.append(("Scales chosen for each blob by the error at the output.", f"{command} -a auto"))
    return lines


def rounded_up(value: float, n_digits: int) -> float:
    """A number of so many digits that is not less than `value`, which is finite and not below 0."""
    if value == 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - n_digits + 1)
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.{n_digits}g}")


def _weights_tried(report: CalibrationReport) -> bool:
    others = ("equalize", "bias_correction", "first_conv_force_u8", "root")
    return report.recover == "auto" or any(flag in report.flags for flag in others)


NEXT: Mapping[str, str] = {
    "evaluate": "Measure the delivered net again, with all its scores",
    "export": "Write it for OpenVINO, measured there too",
}
"""What can be run with what was written, by command."""
