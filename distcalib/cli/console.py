"""What a run looks like on a terminal: a bar that moves; anywhere else: a plain line every few seconds."""

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from distcalib.errors import printable

# Often enough to see that a run lives, seldom enough to keep the log of a night readable.
PLAIN_SECONDS = 5.0
_LOG = logging.getLogger("distcalib")


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long, but for what is not printable."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


class _Drawn(logging.Handler):
    """Draws messages of the log above the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """A line that stays."""
        say(self._console, record.getMessage())


class ConsoleReporter:
    """Draws phases and progress on `console`: phase, iterations done, images/s, time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name, self._total, self._batch = "", 0, 0
        self._begin = self._said = self._first = 0.0
        self._first_done = 0
        self._progress: Progress | None = None
        self._handlers: list[logging.Handler] = []
        self._task: TaskID | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.completed}/{task.total} iterations"),
                TextColumn("{task.fields[rate]}"),
                console=console,
                expand=True,
                transient=True,  # what stays are the notes; the last line is the verdict
            )

    def __enter__(self) -> "ConsoleReporter":
        if self._progress is not None:
            self._progress.start()
            self._handlers, _LOG.handlers[:] = _LOG.handlers[:], [_Drawn(self._console)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            _LOG.handlers[:] = self._handlers

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """Begin a phase of `n_iterations` batches of `batch` images."""
        name = printable(name)
        self._name, self._total, self._batch = name, n_iterations, batch
        self._begin = self._said = time.monotonic()
        self._first = 0.0
        if self._progress is None:
            self.note(f"{name}: {n_iterations} iterations of {batch} images")
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=n_iterations, rate="compiling")

    def advance(self, n_done: int, n_total: int) -> None:
        """Show that `n_done` iterations of the phase are done, of `n_total` that it turned out to need."""
        now = time.monotonic()
        self._total = n_total
        if not self._first:  # the rate counts from the first result on, so that compiling does not spoil it
            self._first, self._first_done = now, n_done
        elapsed, done = now - self._first, n_done - self._first_done
        if not done:
            elapsed, done = now - self._begin, n_done
        rate = done * self._batch / elapsed if elapsed > 0.0 else 0.0
        left = (self._total - n_done) * self._batch / rate if rate else 0.0
        told = f"{rate:,.0f} images/s" + (f", {duration(left)} left" if n_done < self._total else "")
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=n_done, total=n_total, rate=told)
            if n_done == self._total:  # else it would stand there while the next phase is prepared
                self._progress.remove_task(self._task)
                self._task = None
        elif now - self._said >= PLAIN_SECONDS or n_done == self._total:
            self._said = now
            self.note(f"{self._name}: {n_done}/{self._total} iterations, {told}")

    def note(self, text: str) -> None:
        """A line that stays."""
        say(self._console, text)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
