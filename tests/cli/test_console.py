"""What a run looks like: plain lines in a log, a bar on a terminal."""

import io
import logging
import re

import pytest
from rich.console import Console

from distcalib.cli import console as module
from distcalib.cli.console import ConsoleReporter, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_console_reporter_writes_plain_lines_now_and_then(clock: Clock) -> None:
    file = io.StringIO()
    with ConsoleReporter(Console(file=file, width=20)) as reporter:
        reporter.phase("all INT8", 100, 50)
        for n_done in range(1, 101):
            clock.now += 0.125
            reporter.advance(n_done, 100)
        reporter.note("a [note] that is longer than the console is wide")
    lines = file.getvalue().splitlines()
    assert lines[0] == "all INT8: 100 iterations of 50 images"
    assert lines[1] == "all INT8: 40/100 iterations, 400 images/s, 8 s left"
    assert lines[-2] == "all INT8: 100/100 iterations, 400 images/s"
    assert lines[-1] == "a [note] that is longer than the console is wide"
    assert len(lines) == 5


def test_console_reporter_ends_where_less_was_needed(clock: Clock) -> None:
    file = io.StringIO()
    with ConsoleReporter(Console(file=file)) as reporter:
        reporter.phase("round 1", 100, 50)
        clock.now += 1.0
        reporter.advance(10, 100)
        clock.now += 1.0
        reporter.advance(30, 30)
    assert file.getvalue().splitlines()[-1] == "round 1: 30/30 iterations, 1,000 images/s"


@pytest.mark.parametrize("width", [80, 120])
def test_console_reporter_fits_the_terminal(clock: Clock, width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True)
    with ConsoleReporter(console) as reporter:
        reporter.phase("round 12, 123 candidates", 123_000, 50)
        clock.now += 30.0
        reporter.advance(10, 123_000)
        clock.now += 10.0
        reporter.advance(4_010, 123_000)
        assert reporter._progress is not None
        reporter._progress.refresh()
        reporter.advance(123_000, 123_000)
        reporter.note("done")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).replace("\r", "\n").splitlines()
    [line] = {line for line in shown if "4010/123000 iterations" in line}
    assert line.startswith("round 12, 123 candidates ")
    assert "20,000 images/s, 4 min 57 s left" in line
    assert len(line) <= width
    assert "done" in shown, "what was said stays on a line of its own"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_reporter_draws_the_log_above_the_bar_and_hands_it_back() -> None:
    log = logging.getLogger("distcalib")
    before = log.handlers[:]
    out = io.StringIO()
    with ConsoleReporter(Console(file=out, force_terminal=True, width=80)) as reporter:
        reporter.phase("FP32", 4, 2)
        logging.getLogger("distcalib.actors.fleet").warning("actor 1 died\x1b[2J")
    assert "actor 1 died\\x1b[2J" in out.getvalue()
    assert log.handlers == before
