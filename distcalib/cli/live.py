"""What a run looks like on a terminal: lines that stay above, and below them one view that is drawn again and again.

    round 3, 2 candidates  ━━━━━━━━━━━━━━━━━━╸━━━━━━━  24/36  10,743 images/s, 1 s left
    layers in FP32 tried: 0 no, 5 yes, 3 yes, 1 no
    actors: 2 of 2 busy; 14 s so far; left: up to 6 s

It is never wider than 79 columns: where a terminal that becomes narrower folds what stands on it, the lines of the view
could no longer be counted, and would stay.  Drawn by rich, which leaves out colours for NO_COLOR.
"""

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live as Drawn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distcalib.cli.pace import Pace, duration
from distcalib.errors import printable
from distcalib.session.progress import Decided

WIDEST = 79
REFRESH_SECONDS = 0.25


class Live:
    """Draws phase, candidates, actors and what is left on `console`; a context manager."""

    def __init__(self, console: Console, searches: bool = False) -> None:
        """`searches`: what is left of the whole is estimated, not of the phase alone."""
        self._console, self._searches = console, searches
        self._pace = Pace("starting actors", begin=time.monotonic())
        self._begin = time.monotonic()
        self._n_busy = self._n_actors = 0
        self._verdicts: list[Decided] = []
        self._pass_seconds = self._compile_seconds = 0.0
        # Not rich's own thread: what is printed while it draws its first view would stand behind that on a line.
        self._drawn = Drawn(console=console, get_renderable=self.view, auto_refresh=False, transient=True)
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="distcalib-view", daemon=True)

    def __enter__(self) -> "Live":
        self._drawn.start(refresh=True)
        self._thread.start()
        return self

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            with self._lock:
                if not self._ended.is_set():
                    self._drawn.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended.set()
            self._drawn.stop()
        self._thread.join()

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """Begin a phase of `n_iterations` batches of `batch` images."""
        self._pace = Pace(printable(name), n_iterations, batch, time.monotonic())

    def advance(self, n_done: int, n_total: int) -> None:
        """So many iterations of the phase are done, of `n_total` that it turned out to need."""
        pace, now = self._pace, time.monotonic()
        pace.advance(n_done, n_total, now)
        if n_done == n_total and not self._pass_seconds and pace.rate:
            self._pass_seconds = n_total * pace.batch / pace.rate
        self._compile_seconds = max(self._compile_seconds, pace.first - pace.begin)

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._console.print(printable(text), markup=False, highlight=False)

    def busy(self, n_busy: int, n_actors: int) -> None:
        """So many of the actors have work."""
        self._n_busy, self._n_actors = n_busy, n_actors

    def decided(self, verdict: Decided) -> None:
        """A candidate was measured, or decided."""
        self._verdicts.append(verdict)

    def view(self) -> RenderableType:
        """What is drawn."""
        lines: list[RenderableType] = [self._phase_line()]
        if self._verdicts:
            lines.append(_line(verdicts_text(self._verdicts)))
        told = [f"actors: {self._n_busy} of {self._n_actors} busy"] if self._n_actors else []
        told.append(f"{duration(time.monotonic() - self._begin)} so far")
        if self._searches and self._n_actors:
            told.append(f"left: {self.left}")
        lines.append(_line("; ".join(told)))
        return Group(*lines)

    @property
    def left(self) -> str:
        """What is left of the whole, as far as it can be known: a bound, or what it depends on."""
        pace = self._pace
        of_phase, whole = pace.left_seconds or 0.0, pace.n_total * pace.batch / pace.rate if pace.rate else 0.0
        each = (self._pass_seconds or whole) + self._compile_seconds
        if not self._verdicts:
            return f"about {duration(of_phase + each)}, and more if it must search"
        best = min((one.n_fp32 for one in self._verdicts if one.meets), default=None)
        if best is None:
            return "not known, none meets it yet"
        return f"up to {duration(max(of_phase, best * each))}" if best else "seconds"

    def _phase_line(self) -> RenderableType:
        pace = self._pace
        width = min(self._console.width - 1, WIDEST)
        table = Table.grid(padding=(0, 1), expand=True)
        table.width = width
        started = pace.n_total > 0
        counted = f"{pace.n_done}/{pace.n_total}" if started else ""
        told = pace.text if pace.first else "compiling" if started else ""
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, width // 3))
        table.add_column(ratio=1, min_width=4)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=pace.n_total or None, completed=pace.n_done, pulse=not pace.first)
        table.add_row(Text(pace.name), bar, counted, Text(told))
        return table


def verdicts_text(verdicts: Sequence[Decided]) -> str:
    """The last of them, as many as a line has room for."""
    words = [f"{one.n_fp32} {'yes' if one.meets else 'no'}" for one in verdicts[-WIDEST:]]
    head, left_out = "layers in FP32 tried: ", "..., "
    while len(head + ", ".join(words)) + len(left_out) > WIDEST:
        words.pop(0)
    return head + (left_out if len(words) < len(verdicts) else "") + ", ".join(words)


def _line(text: str) -> Text:
    line = Text(text, style="dim", no_wrap=True, overflow="ellipsis")
    line.truncate(WIDEST, overflow="ellipsis")
    return line
