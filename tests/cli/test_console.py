"""What a run looks like without a terminal: plain lines."""

import io

import pytest
from rich.console import Console

from distcalib.cli import console as module
from distcalib.cli.console import Plain
from distcalib.cli.pace import duration


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


def test_plain_writes_plain_lines_now_and_then(clock: Clock) -> None:
    file = io.StringIO()
    reporter = Plain(Console(file=file, width=20))
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


def test_plain_cuts_a_name_of_thousands_of_letters() -> None:
    file = io.StringIO()
    Plain(Console(file=file, width=20)).note(f"layer '{'x' * 5000}' is left out")
    [line] = file.getvalue().splitlines()
    assert len(line) < 500
    assert line.endswith("xxx' is left out")


def test_plain_ends_where_less_was_needed(clock: Clock) -> None:
    file = io.StringIO()
    reporter = Plain(Console(file=file))
    reporter.phase("round 1", 100, 50)
    clock.now += 1.0
    reporter.advance(10, 100)
    clock.now += 1.0
    reporter.advance(30, 30)
    assert file.getvalue().splitlines()[-1] == "round 1: 30/30 iterations, 1,000 images/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
