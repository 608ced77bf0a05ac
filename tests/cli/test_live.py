"""What a terminal shows of a run."""

import io
import logging
import re
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from distcalib.cli import live as module
from distcalib.cli.console import Several, draws, reporting
from distcalib.cli.live import WIDEST, Live, verdicts_text
from distcalib.session.progress import Decided, Watcher
from tests.cli.test_console import Clock
from tests.every import every


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def shown(live: Live, width: int) -> list[str]:
    """The lines of the view, as a terminal of that width gets them."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(live.view())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, _environ={})


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_view_fits_the_terminal_and_stays_small(clock: Clock, width: int) -> None:
    live = Live(terminal(width), searches=True)
    live.phase("round 12, 123 candidates of a name that is far too long for it", 123_000, 50)
    clock.now += 30.0
    live.advance(10, 123_000)
    clock.now += 10.0
    live.advance(4_010, 123_000)
    live.busy(63, 64)
    for i in range(100):
        live.decided(Decided(i, i % 2 == 0))
    lines = shown(live, width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= min(width, WIDEST)
    assert "4010/123000" in lines[0] or width < 80


def test_view_says_phase_candidates_actors_and_what_is_left(clock: Clock) -> None:
    live = Live(terminal(120), searches=True)
    assert shown(live, 120)[0].startswith("starting actors ")
    assert shown(live, 120)[-1] == "0 s so far"
    live.phase("FP32 and ranges", 20, 50)
    assert "compiling" in shown(live, 120)[0]
    clock.now += 2.0
    live.advance(2, 20)
    live.busy(2, 2)
    clock.now += 4.0
    live.advance(10, 20)
    lines = shown(live, 120)
    assert lines[0].startswith("FP32 and ranges ")
    assert lines[0].endswith(" 10/20 100 images/s, 5 s left")
    # 10 iterations in 5 s: 5 s for the others, then all INT8, of 10 s, and the 2 s that compiling takes
    assert lines[1] == "actors: 2 of 2 busy; 6 s so far; left: about 17 s, and more if it must search"


def test_what_is_left_is_a_bound_or_unknown(clock: Clock) -> None:
    live = Live(terminal(80), searches=True)
    live.phase("FP32 and ranges", 20, 50)
    clock.now += 1.0  # compiling
    live.advance(10, 20)
    clock.now += 5.0
    live.advance(20, 20)  # 10 iterations in 5 s: a pass of 20 takes 10 s
    live.decided(Decided(0, False))
    assert live.left == "not known, none meets it yet"
    live.decided(Decided(5, True))
    assert live.left == "up to 55 s"
    live.decided(Decided(2, False))
    live.decided(Decided(3, True))
    assert live.left == "up to 33 s"
    live.decided(Decided(0, True))
    assert live.left == "seconds"


def test_a_net_that_is_evaluated_has_no_estimate_of_a_search(clock: Clock) -> None:
    live = Live(terminal(80))
    live.phase("evaluate", 20, 50)
    clock.now += 1.0
    live.advance(10, 20)
    live.busy(1, 2)
    assert shown(live, 80)[-1] == "actors: 1 of 2 busy; 1 s so far"


def test_verdicts_are_the_last_that_fit() -> None:
    assert verdicts_text([Decided(0, False), Decided(5, True)]) == "layers in FP32 tried: 0 no, 5 yes"
    text = verdicts_text([Decided(i, False) for i in range(99)])
    assert text.startswith("layers in FP32 tried: ..., ")
    assert text.endswith("97 no, 98 no")
    assert len(text) <= WIDEST


def plain(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def arguments(quiet: bool = False, log_file: Path | None = None) -> Namespace:
    return Namespace(quiet=quiet, log_file=log_file)


def test_notes_and_the_log_stay_above_the_view() -> None:
    log = logging.getLogger("distcalib")
    before = log.handlers[:]
    console = terminal(40)
    with reporting(arguments(), console) as reporter:
        assert isinstance(reporter, Watcher)
        reporter.phase("FP32", 4, 2)
        reporter.note("a [note] that is folded between its words on a terminal")
        logging.getLogger("distcalib.actors.fleet").warning("actor 1 died\x1b[2J")
    lines = [line.strip() for line in plain(console).replace("\r", "\n").splitlines()]
    assert "a [note] that is folded between its" in lines
    assert "words on a terminal" in lines
    assert "actor 1 died\\x1b[2J" in lines
    assert log.handlers == before


@pytest.mark.parametrize(
    ("environment", "drawn"),
    [({}, True), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False), ({"TERM": "unknown"}, False)],
)
def test_a_dumb_terminal_gets_plain_lines(environment: dict[str, str], drawn: bool) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, _environ=environment)
    assert draws(console) is drawn
    with reporting(arguments(), console) as reporter:
        reporter.phase("FP32", 4, 2)
        reporter.advance(4, 4)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert ("\x1b[?25l" in text) is drawn, "the cursor is hidden where something is drawn"
    assert ("FP32: 4 iterations of 2 images" in text) is not drawn
    colours = re.findall(r"\x1b\[[0-9;]*3[0-7][0-9;]*m", text)
    assert not (environment and colours)


def test_quiet_says_nothing_and_a_log_file_has_all(tmp_path: Path) -> None:
    console, file = Console(file=io.StringIO(), width=40), tmp_path / "run.log"
    for _ in range(2):  # it is appended to
        with reporting(arguments(quiet=True, log_file=file), console) as reporter:
            reporter.phase("FP32", 4, 2)
            reporter.advance(4, 4)
            reporter.note("a note longer than the console is wide, which the file does not care about")
            logging.getLogger("distcalib").warning("actor 1 died")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""
    lines = file.read_text().splitlines()
    assert len(lines) == 8
    assert every(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[0].endswith(" FP32: 4 iterations of 2 images")
    assert lines[2].endswith(" which the file does not care about")
    assert lines[3].endswith(" actor 1 died")


def test_reporters_that_do_not_watch_are_not_asked_to() -> None:
    class Three:
        def phase(self, name: str, n_iterations: int, batch: int) -> None: ...
        def advance(self, n_done: int, n_total: int) -> None: ...
        def note(self, text: str) -> None: ...

    assert not isinstance(Three(), Watcher)
    several = Several(Three())
    several.busy(1, 2)
    several.decided(Decided(1, True))


def test_what_is_noted_while_the_view_is_drawn_has_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen as a terminal would show it: no note stands behind the view, and nothing of the view is left."""
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.0001)
    console = terminal(60)
    with Live(console) as live:
        assert "starting actors" in plain(console), "drawn at once: a note before the first view would share its line"
        live.phase("FP32", 400, 2)
        for i in range(400):
            if i == 200:
                live.decided(Decided(0, False))  # a line more
            live.advance(i, 400)
            live.note(f"note {i}")
    assert isinstance(console.file, io.StringIO)
    screen = Screen()
    screen.feed(console.file.getvalue())
    assert [line.rstrip() for line in screen.lines if line.strip()] == [f"note {i}" for i in range(400)]


class Screen:
    """What is left of the few controls that rich sends: lines up, erased lines, line ends."""

    def __init__(self) -> None:
        self.lines, self._row, self._column = [""], 0, 0

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self._row, self._column = self._row + 1, 0
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif part == "\r":
                self._column = 0
            elif part.startswith("\x1b["):
                if part[-1] == "A":
                    self._row -= int(part[2:-1] or 1)
                elif part[-1] == "K":
                    self.lines[self._row] = "" if part[2:-1] == "2" else self.lines[self._row][: self._column]
            else:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + part + line[self._column + len(part) :]
                self._column += len(part)
