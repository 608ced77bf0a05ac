import json
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from distcalib.journal import Journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With two runs."""
    with Journal(tmp_path) as journal:
        first = journal.begin("calibrate [a].prototxt", {"iterations": 3}, {"distcalib": "1"})
        journal.end(first, "done", "Tolerance 0.01 met", n_measured=40, n_recorded=2)
        journal.begin("calibrate b", {}, {})
    return tmp_path


def test_runs_lists_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--out", str(folder)]) == OK
    out = capsys.readouterr().out.split()  # lines break where the terminal ends
    for word in ("run", "done", "running", "40", "[a].prototxt"):
        assert word in out


def test_runs_show_prints_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "1", "--out", str(folder)]) == OK
    out = capsys.readouterr().out
    for said in ("calibrate [a].prototxt", "iterations 3", "Tolerance 0.01 met", "distcalib 1"):
        assert said in out


def test_runs_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--out", str(folder), "--json"]) == OK
    assert [run["state"] for run in json.loads(capsys.readouterr().out)] == ["done", "running"]
    assert main(["runs", "show", "1", "--out", str(folder), "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["options"] == {"iterations": 3}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param(["show", "7"], "has no run 7; its runs are 1 to 2", id="unknown"),
        pytest.param(["show", "x"], "unknown argument 'show x'", id="no number"),
        pytest.param(["show"], "unknown argument 'show'", id="without a number"),
        pytest.param(["delete", "1"], "unknown argument 'delete 1'", id="another word"),
    ],
)
def test_runs_refuses(folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    assert main(["runs", *args, "--out", str(folder)]) == ERROR
    assert said in capsys.readouterr().err
