"""How a calibration ends on a terminal: a table of five lines, and the paths."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from distcalib.cli.console import say
from distcalib.errors import printable
from distcalib.report import CalibrationReport
from distcalib.report.scores import all_int8_drop


def show_outcome(report: CalibrationReport, console: Console) -> None:
    """Print both; of a run that measured nothing the paths alone."""
    if report.fp32_score is not None:
        console.print(outcome_table(report))
        n_all = len(report.int8_layers) + len(report.fp32_layers)
        fallen = f"; in FP32: {', '.join(map(printable, report.fp32_layers))}" if report.fp32_layers else ""
        word = Text("met", "bold green") if report.met else Text("NOT met", "bold red")
        console.print(Text(f"  layers     {len(report.int8_layers)} of {n_all} in INT8{fallen}"))
        console.print(Text.assemble(f"  tolerance  {report.tolerance:g} ", word))
        console.print()
    for name, path in paths(report).items():
        say(console, f"  {name:<10} {path}")


def outcome_table(report: CalibrationReport) -> Table:
    """FP32, all INT8 and the delivered net by score, drop and speed."""
    table = Table("", escape(printable(report.metric)), "drop", "images/s of one core", box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    speeds = report.core_images_per_second
    rows = (
        ("FP32", report.fp32_score, None),
        ("all INT8", report.all_int8_score, all_int8_drop(report)),
        ("delivered", report.score, report.drop),
    )
    for name, score, drop in rows:
        table.add_row(name, _score(score), "" if drop is None else f"{drop:.4g}", _speed(name, speeds))
    return table


def paths(report: CalibrationReport) -> dict[str, str]:
    """What was written, by what it is."""
    folder = Path(report.output).parent
    weights = {"weights": report.output_weights} if report.output_weights else {}
    return {
        "prototxt": printable(report.output),
        **{name: printable(path) for name, path in weights.items()},
        "page": printable(str(folder / "report.html")),
        "report": printable(str(folder / "report.json")),
    }


def _score(score: float | None) -> str:
    return "stopped early" if score is None else f"{score:.6g}"


def _speed(name: str, found: Mapping[str, float]) -> str:
    if name not in found:
        return ""
    ratio = f" ({found[name] / found['FP32']:.2f} ×)" if name != "FP32" and found.get("FP32") else ""
    return f"{found[name]:,.0f}{ratio}"
