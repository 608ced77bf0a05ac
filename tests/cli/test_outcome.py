"""How a calibration ends on a terminal."""

import io
from dataclasses import replace

from rich.console import Console

from distcalib.cli.outcome import show_outcome
from distcalib.report import CalibrationReport
from tests.report.reports import REPORT


def shown(report: CalibrationReport, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_outcome(report, console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_outcome_is_a_table_of_five_lines_and_the_paths() -> None:
    speeds = {"FP32": 1000.0, "all INT8": 2500.0, "delivered": 2000.0}
    lines = shown(replace(REPORT, core_images_per_second=speeds))
    head, rule, *rest = lines
    assert head.split() == ["accuracy-top1", "drop", "images/s", "of", "one", "core"]
    assert set(rule) == {" ", "─"}
    assert [line.split() for line in rest] == [
        ["FP32", "0.75", "1,000"],
        ["all", "INT8", "0.5", "0.25", "2,500", "(2.50", "×)"],
        ["delivered", "0.745", "0.005", "2,000", "(2.00", "×)"],
        ["layers", "1", "of", "2", "in", "INT8;", "in", "FP32:", "conv3"],
        ["tolerance", "0.01", "met"],
        ["prototxt", "out/net_quantized.prototxt"],
        ["page", "out/report.html"],
        ["report", "out/report.json"],
    ]


def test_outcome_of_a_loss_and_of_what_was_stopped_early() -> None:
    lines = shown(replace(REPORT, lower_is_better=True, all_int8_score=None, met=False, score=0.8, drop=0.05))
    assert "  all INT8    stopped early" in lines
    assert "  tolerance  0.01 NOT met" in lines
    assert any(line.split() == ["delivered", "0.8", "0.05"] for line in lines)


def test_outcome_of_what_was_not_measured_is_the_paths() -> None:
    lines = shown(replace(REPORT, fp32_score=None, output_weights="out/net_new.caffemodel"))
    assert [line.split()[0] for line in lines] == ["prototxt", "weights", "page", "report"]


def test_outcome_is_hostile_names_escaped_and_paths_whole() -> None:
    report = replace(REPORT, metric="[red]\x1b[2J", fp32_layers=("[/bold]\x1b]0;x",), output="d" * 100 + "/n.prototxt")
    lines = shown(report, 60)
    assert "\x1b" not in "".join(lines)
    assert any("[red]\\x1b[2J" in line for line in lines)
    assert any("[/bold]\\x1b]0;x" in line for line in lines)
    assert any(line.endswith("d" * 100 + "/n.prototxt") for line in lines), "it can be copied"
