"""What a run looks like where nobody watches: a plain line every few seconds, on a console or in a file.

A terminal is drawn by live.py.
"""

import argparse
import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from distcalib.caffe.paths import special
from distcalib.cli.live import Live
from distcalib.cli.pace import Pace
from distcalib.errors import OptionError, OutputError, printable, shortened
from distcalib.session.progress import Decided, Reporter, Watcher

# Often enough to see that a run lives, seldom enough to keep the log of a night readable.
PLAIN_SECONDS = 5.0
_LOG = logging.getLogger("distcalib")


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long, but for what is not printable."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def tell(console: Console, line: str) -> None:
    """Print a line, on a terminal folded between words; `say` leaves that to the terminal, so that it can be copied."""
    console.print(printable(shortened(line)), markup=False, highlight=False, soft_wrap=not draws(console))


def draws(console: Console) -> bool:
    """Whether it can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


class Plain:
    """A line a phase, and one every few seconds: iterations done, images/s, time left."""

    def __init__(self, console: Console, stamped: bool = False) -> None:
        """`stamped`: each line begins with the time."""
        self._console, self._stamped = console, stamped
        self._pace, self._said = Pace(), 0.0

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """Begin a phase of `n_iterations` batches of `batch` images."""
        self._said = time.monotonic()
        self._pace = Pace(printable(name), n_iterations, batch, self._said)
        self.note(f"{self._pace.name}: {n_iterations} iterations of {batch} images")

    def advance(self, n_done: int, n_total: int) -> None:
        """Show that `n_done` iterations of the phase are done, of `n_total` that it turned out to need."""
        now, pace = time.monotonic(), self._pace
        pace.advance(n_done, n_total, now)
        if now - self._said >= PLAIN_SECONDS or n_done == n_total:
            self._said = now
            self.note(f"{pace.name}: {n_done}/{n_total} iterations, {pace.text}")

    def note(self, text: str) -> None:
        """A line that stays."""
        text = shortened(text)
        say(self._console, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}" if self._stamped else text)


class Log(Plain):
    """Plain lines with the time, in the file `path`.  Raises OutputError where one does not fit any more."""

    def __init__(self, path: Path, console: Console) -> None:
        super().__init__(console, stamped=True)
        self._path = path

    def note(self, text: str) -> None:
        """A line that stays."""
        try:
            super().note(text)
        except OSError as error:
            raise _unwritable(self._path, error) from None


class Several:
    """What is told to each of several reporters."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        """To each."""
        for one in self._reporters:
            one.phase(name, n_iterations, batch)

    def advance(self, n_done: int, n_total: int) -> None:
        """To each."""
        for one in self._reporters:
            one.advance(n_done, n_total)

    def note(self, text: str) -> None:
        """To each."""
        for one in self._reporters:
            one.note(text)

    def busy(self, n_busy: int, n_actors: int) -> None:
        """To those that watch."""
        for one in self._reporters:
            if isinstance(one, Watcher):
                one.busy(n_busy, n_actors)

    def decided(self, verdict: Decided) -> None:
        """To those that watch."""
        for one in self._reporters:
            if isinstance(one, Watcher):
                one.decided(verdict)


class _Told(logging.Handler):
    """Messages of the log, as lines of a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """A line that stays."""
        self._reporter.note(record.getMessage())


@contextmanager
def reporting(args: argparse.Namespace, console: Console, searches: bool = False) -> Iterator[Reporter]:
    """The reporter that --quiet and --log-file ask for: a view on a terminal, else plain lines.  While it is there,
    messages of the log go where its lines go.

    `searches`: what is left of the whole is estimated, too.  Raises OutputError for a file that cannot be written.
    """
    with ExitStack() as stack:
        reporters: list[Reporter] = []
        handlers = _LOG.handlers[:]
        if not args.quiet:
            shown: Reporter = stack.enter_context(Live(console, searches)) if draws(console) else Plain(console)
            reporters.append(shown)
            if isinstance(shown, Live):  # what stderr is told would tear it
                handlers = [_Told(shown)]
        if args.log_file is not None:
            refuse_input(args.log_file, args)
            logged = Log(args.log_file, stack.enter_context(_opened(args.log_file)))
            reporters.append(logged)
            handlers.append(_Told(logged))
        before, _LOG.handlers[:] = _LOG.handlers[:], handlers
        stack.callback(_LOG.handlers.__setitem__, slice(None), before)
        yield Several(*reporters)


@contextmanager
def _opened(path: Path) -> Iterator[Console]:
    try:
        file = open(path, "a", encoding="utf-8", opener=_without_waiting)  # noqa: SIM115  closed below
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield Console(file=file, no_color=True, width=10_000)
    finally:
        with suppress(OSError):  # each line was flushed, or Log has said that it cannot be
            file.close()


def _without_waiting(path: str, flags: int) -> int:
    """Open what is to be written; OSError (ENXIO) for a pipe that nobody reads: open() would wait for a reader."""
    file = os.open(path, flags | os.O_NONBLOCK, 0o666)
    os.set_blocking(file, True)
    return file


def _unwritable(path: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENXIO and special(path) == "a pipe":
        return OutputError(f"--log-file {path}: is a pipe that nobody reads; name another file")
    return OutputError(f"--log-file {path}: cannot be written ({error.strerror}); name another file")


def refuse_input(log_file: Path, args: argparse.Namespace) -> None:
    """Raise OptionError where a line of the log would go into a file that the run reads."""
    for name in ("model", "model_path", "weights", "data", "config", "file"):
        path = getattr(args, name, None)
        if path is not None and log_file.exists() and path.exists() and log_file.samefile(path):
            raise OptionError(f"--log-file {log_file}: is a file that the run reads; name another file")
