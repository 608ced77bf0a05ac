"""SIGTERM to a run, in a process of its own: in that of the tests, Ray's handlers would have it end them."""

import os
import subprocess
import sys
from pathlib import Path

from distcalib.cli.exit_codes import TERMINATED
from distcalib.journal import read_runs
from tests.calibration.reports import fields_of
from tests.conftest import ROOT
from tests.session.tiny import ITERATIONS, Tiny

_TERMINATED = """
import signal, sys
from distcalib.calibration import search_driver
from distcalib.cli.main import main

search_driver.round_lines = lambda *_: signal.raise_signal(signal.SIGTERM)
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_in_the_search_delivers_the_best_that_was_measured(tiny: Tiny, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _TERMINATED, "calibrate", *tiny.args, "-i", str(ITERATIONS), "-l", "0"]
    command += ["--strategy", "greedy", "--actors", "1", "--keep-weights", "--out", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, env={**env, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == TERMINATED, done.stderr
    report = fields_of(tmp_path / "report.json")
    assert (report["stopped_by"], report["fp32_layers"]) == ("SIGTERM", [])
    assert [run.state for run in read_runs(tmp_path)] == ["interrupted"]
