"""The processes of a local Ray that a run does without."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distcalib.actors.ray_monitors import no_monitors

Sleepers = dict[str, "subprocess.Popen[bytes]"]


@pytest.fixture
def sleepers(tmp_path: Path) -> Iterator[Sleepers]:
    """By its place in a folder, a program that only sleeps."""
    found: Sleepers = {}
    for name in ("_private/log_monitor.py", "mine/log_monitor.py"):
        program = tmp_path / name
        program.parent.mkdir()
        program.write_text("import time\ntime.sleep(600)\n")
        found[name] = subprocess.Popen([sys.executable, str(program)])
    yield found
    for process in found.values():
        process.kill()
        process.wait()


def test_children_with_these_programs_alone_are_ended(sleepers: Sleepers, tmp_path: Path) -> None:
    with no_monitors(tmp_path):
        assert sleepers["_private/log_monitor.py"].wait(10) != 0
    assert sleepers["mine/log_monitor.py"].poll() is None, "a program of the user's own"


def test_what_comes_last_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcalib.actors.ray_monitors._POLL_SECONDS", 600.0)
    program = tmp_path / "autoscaler/_private/monitor.py"
    program.parent.mkdir(parents=True)
    program.write_text("import time\ntime.sleep(600)\n")
    with no_monitors(tmp_path):
        process = subprocess.Popen([sys.executable, str(program)])
    assert process.wait(10) != 0
