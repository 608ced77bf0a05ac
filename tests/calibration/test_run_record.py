"""Runs of the tiny net that are interrupted, killed and given again; each starts its actors.

One that ends its Ray with it is in test_termination.py."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import distcalib
from distcalib.actors.cancellation import Cancellation, Cancelled
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.run_record import CONTINUES, Interrupted, described
from distcalib.calibration.scoreboard import Scoreboard
from distcalib.cli.exit_codes import INTERRUPTED
from distcalib.cli.main import main
from distcalib.errors import OutputError
from distcalib.journal import FILE_NAME, Journal, read_runs
from distcalib.quantize.candidate import Candidate
from distcalib.session.options import EvaluationOptions
from distcalib.session.session import Session
from tests.calibration.disturbed import Ending, interrupt
from tests.calibration.reports import fields_of, lasting
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = CalibrationOptions(
    iterations=ITERATIONS, recover="off", sampling_iterations=2, accuracy_loss=0.02, n_actors=1
)


def _results(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The net, and of the report what has to be the same."""
    return (folder / "net_quantized.prototxt").read_bytes(), lasting((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def reference(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed, on two actors."""
    folder = tmp_path_factory.mktemp("reference")
    calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=folder, n_actors=2))
    return folder


@pytest.mark.parametrize("n_actors", [2, 1])
def test_the_same_command_measures_nothing_again(tiny: Tiny, reference: Path, tmp_path: Path, n_actors: int) -> None:
    shutil.copy(reference / FILE_NAME, tmp_path)
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, n_actors=n_actors))
    assert _results(tmp_path) == _results(reference)
    first, second = read_runs(tmp_path)
    assert first.state == second.state == "done"
    assert first.n_measured > 0 == first.n_recorded
    assert second.n_measured == 0 < second.n_recorded == report.n_rows_from_journal
    assert second.verdict == report.verdict
    assert second.options["accuracy_loss"] == 0.02


def test_another_tolerance_takes_what_was_measured_and_other_data_do_not(
    reference: Path, tiny: Tiny, tmp_path: Path
) -> None:
    shutil.copy(reference / FILE_NAME, tmp_path)
    options = replace(OPTIONS, out=tmp_path, accuracy_loss=0.5, max_candidates=1)
    calibrate(tiny.prototxt, tiny.weights, options)
    data = tiny.database / "data.mdb"
    stat = data.stat()
    try:
        os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        report = calibrate(tiny.prototxt, tiny.weights, options)
    finally:
        os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _, second, third = read_runs(tmp_path)
    assert second.n_measured < 2 * ITERATIONS < second.n_recorded, (
        "all INT8 is measured to the end, which the first run left, and the images that it loses are looked at"
    )
    assert report.n_rows_from_journal == third.n_recorded == 0 < third.n_measured


def test_ctrl_c_in_the_search_delivers_the_best_that_was_measured(tiny: Tiny, reference: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, out=tmp_path, strategy="greedy")  # which measures all INT8 to the end
    with pytest.raises(Interrupted) as interrupted:
        calibrate(tiny.prototxt, tiny.weights, options, reporter=Ending("round 1", interrupt))
    report = interrupted.value.report
    assert (report.stopped_by, report.fp32_layers, report.met) == ("Ctrl-C", (), False)
    assert report.score == report.all_int8_score
    assert fields_of(tmp_path / "report.json")["stopped_by"] == "Ctrl-C"
    assert [run.state for run in read_runs(tmp_path)] == ["interrupted"]
    calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert _results(tmp_path) == _results(reference)


def test_ctrl_c_before_anything_was_measured_to_the_end_leaves_the_journal(
    tiny: Tiny, reference: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt, match=CONTINUES):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path), reporter=Ending("ranking", interrupt))
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert _results(tmp_path) == _results(reference)


def test_a_cancelled_run_delivers_the_best_that_was_measured(tiny: Tiny, reference: Path, tmp_path: Path) -> None:
    token = Cancellation()

    def cancel() -> None:
        thread = threading.Thread(target=token.cancel)
        thread.start()
        thread.join()

    options = replace(OPTIONS, out=tmp_path, strategy="greedy")
    with pytest.raises(Interrupted) as interrupted:
        calibrate(tiny.prototxt, tiny.weights, options, reporter=Ending("round 1", cancel), cancellation=token)
    report = interrupted.value.report
    assert (report.stopped_by, report.fp32_layers) == ("cancellation", ())
    assert [run.state for run in read_runs(tmp_path)] == ["interrupted"]
    calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert _results(tmp_path) == _results(reference)


def test_evaluate_with_a_cancelled_token_ends_at_once(tiny: Tiny) -> None:
    token = Cancellation()
    token.cancel()
    with pytest.raises(Cancelled):
        distcalib.evaluate(
            tiny.prototxt, tiny.weights, EvaluationOptions(iterations=ITERATIONS, n_actors=1), cancellation=token
        )


def test_ctrl_c_in_a_round_delivers_the_best_of_what_it_measured(
    tiny: Tiny, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Scoreboard.take
    interrupted_at: list[Candidate] = []

    def interrupt(self: Scoreboard, candidate: Candidate, *found: Any) -> None:
        if candidate.fp32_layers and not interrupted_at:
            interrupted_at.append(candidate)
            raise KeyboardInterrupt
        take(self, candidate, *found)

    monkeypatch.setattr(Scoreboard, "take", interrupt)
    with pytest.raises(Interrupted) as interrupted:
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    report = interrupted.value.report
    assert (report.stopped_by, report.met, report.fp32_layers) == ("Ctrl-C", True, interrupted_at[0].fp32_layers)
    assert report.candidates[-1].score == report.score


def test_a_second_run_in_the_folder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(OutputError, match=f"process {os.getpid()} of .* is running in it"):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert not any(tmp_path.iterdir())


def _n_rows(path: Path) -> int:
    try:
        with sqlite3.connect(path) as connection:
            return int(connection.execute("SELECT count(*) FROM result").fetchone()[0])
    except sqlite3.Error:  # not yet made
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, ITERATIONS + 4, 2 * ITERATIONS + 4])
def test_kill_of_the_driver_loses_nothing_that_was_committed(tmp_path: Path, rows: int) -> None:
    tiny = make_tiny(tmp_path)
    options = ["-i", str(ITERATIONS), "-s", "2", "-l", "0.02", "--actors", "1", "--recover", "off"]
    command = [sys.executable, "-m", "distcalib", "calibrate", *tiny.args, *options]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["PYTHONPATH"] = str(ROOT)
    killed = tmp_path / "killed"
    with subprocess.Popen([*command, "--out", str(killed)], env=env, start_new_session=True) as process:
        while _n_rows(killed / FILE_NAME) < rows and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    there = _n_rows(killed / FILE_NAME)
    for folder in (killed, tmp_path / "whole"):
        assert subprocess.run([*command, "--out", str(folder)], env=env, check=False).returncode == 0
    assert _results(killed) == _results(tmp_path / "whole")
    first, second = read_runs(killed)
    assert first.state in ("killed", "done")
    assert second.n_recorded + second.n_measured >= there
    assert _n_rows(killed / FILE_NAME) == there + second.n_measured


def test_described_has_what_differs_from_the_defaults() -> None:
    assert described(CalibrationOptions()) == {}
    options = CalibrationOptions(iterations=3, out=Path("a/b"), keep_fp32=("x",))
    assert described(options) == {"iterations": 3, "out": "a/b", "keep_fp32": ["x"]}


def test_ctrl_c_while_actors_end_does_not_deny_what_was_written(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    close = Session.close

    def interrupt(self: Session) -> None:
        close(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "close", interrupt)
    command = ["calibrate", *tiny.args, "-i", str(ITERATIONS), "-q", "--actors", "1", "--out", str(tmp_path)]
    assert main(command) == INTERRUPTED
    out, err = capsys.readouterr()
    [written] = tmp_path.glob("*_quantized.prototxt")
    assert f"wrote {written}" in out
    assert err == ""
