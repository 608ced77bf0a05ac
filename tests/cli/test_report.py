"""`distcalib report` and `distcalib compare`, on written reports."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from distcalib.report import page
from tests.report.reports import REPORT

OTHER = replace(REPORT, tolerance=0.001, met=False, fp32_layers=("[b]conv2[/b]", "conv3"), int8_layers=())


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two folders."""
    found = [tmp_path / "a", tmp_path / "b"]
    for folder, report in zip(found, (REPORT, OTHER), strict=True):
        folder.mkdir()
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return found


@pytest.mark.parametrize("named", ["", "report.json"])
def test_report_makes_the_page_again(runs: list[Path], capsys: pytest.CaptureFixture[str], named: str) -> None:
    assert main(["report", str(runs[0] / named)]) == OK
    assert (runs[0] / "report.html").read_text(encoding="utf-8") == page(REPORT)
    assert REPORT.verdict in " ".join(capsys.readouterr().out.split())


def test_report_writes_elsewhere_if_asked(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    target = runs[1] / "page.html"
    assert main(["report", str(runs[0]), "--out", str(target), "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {"page": str(target), "verdict": REPORT.verdict}
    assert target.read_text(encoding="utf-8") == page(REPORT)
    assert not (runs[0] / "report.html").exists()


def test_report_of_no_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == ERROR
    assert "report.json: cannot be read (No such file or directory); check the path" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_report_refuses_a_page_that_cannot_be_written(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs[0]), "--out", str(runs[0] / "none" / "page.html")]) == ERROR
    assert "page.html" in capsys.readouterr().err


def test_compare_shows_runs_side_by_side(
    runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", *map(str, runs)]) == OK
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    for cells in (
        ["*", "tolerance", "0.01", "0.001"],
        ["*", "verdict", "met", "NOT met"],
        ["FP32", "0.75", "0.75"],
        ["*", "layers in FP32", "conv3", "[b]conv2[/b], conv3"],
        ["* differs"],
    ):
        assert cells in lines


def test_compare_tells_what_cannot_be_compared(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (runs[1] / "report.json").write_text(replace(OTHER, metric="mAP").to_json(), encoding="utf-8")
    assert main(["compare", *map(str, runs), "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["not_comparable"] == "the scores are of different blobs"
    assert [one["score"] for one in found["runs"]] == ["accuracy-top1", "mAP"]
    assert main(["compare", *map(str, runs)]) == OK
    assert "cannot be compared: the scores are of different blobs" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({}, ""),
        ({"tolerance": 0.5}, ""),
        ({"n_iterations": 11}, "the scores are of different numbers of images"),
        ({"fp32_score": 0.5}, "the FP32 scores differ, so nets, weights or data do"),
    ],
)
def test_compare_doubts(
    runs: list[Path], capsys: pytest.CaptureFixture[str], changes: dict[str, float], doubt: str
) -> None:
    (runs[1] / "report.json").write_text(replace(OTHER, **changes).to_json(), encoding="utf-8")  # type: ignore[arg-type]
    assert main(["compare", *map(str, runs), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["not_comparable"] == doubt


def test_compare_wants_two(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs[0])]) == ERROR
    assert "a: is one run alone; give two or more to compare" in capsys.readouterr().err
