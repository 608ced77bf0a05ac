"""Hold Ctrl-C back while Ray starts or ends, and keep what SIGTERM and SIGHUP were to do.

Interrupted in the middle of ray.init, Ray 2.60 leaves agents of its node running for ever, and now and then the driver
ends in a segmentation fault seconds later (both seen often in 20 trials). Starting takes about two seconds, so waiting
for it keeps Ctrl-C prompt. For SIGTERM ray.init installs handlers of its own, in Python and below, that end the process
with the stack of the driver on stderr."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def interrupt_held() -> Iterator[None]:
    """SIGINT inside the block takes effect at its end; a second one is let through at once.

    Only the main thread receives signals, so elsewhere this does nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _is_main() or before is None:  # None: not installed by Python
        yield
        return
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hold:
            signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


_ENDING = (signal.SIGTERM, signal.SIGHUP)  # of a batch system before it kills; of a terminal that is closed

_ended_by = signal.SIGINT


def ended_by() -> signal.Signals:
    """The signal that a KeyboardInterrupt stands for: Ctrl-C, SIGTERM or SIGHUP. No class of exceptions could tell:
    interrupted while it waits, Ray raises a KeyboardInterrupt of its own in place of whatever the handler has raised.
    """
    return _ended_by


@contextmanager
def termination_told() -> Iterator[None]:
    """The first SIGTERM or SIGHUP inside the block is a KeyboardInterrupt; those that follow are not heard.

    Only the main thread may install handlers, so elsewhere this does nothing, nor for a signal that somebody else
    handles, or that is ignored, as SIGHUP is under nohup.
    """
    global _ended_by
    _ended_by = signal.SIGINT
    ours = [number for number in _ENDING if _is_main() and signal.getsignal(number) is signal.SIG_DFL]

    def terminate(number: int, frame: FrameType | None) -> None:
        global _ended_by
        if number == signal.SIGHUP:
            _leave_terminal()
        if _ended_by == signal.SIGINT:
            _ended_by = signal.Signals(number)
            raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, terminate)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leave_terminal() -> None:
    """Send to nowhere what would be printed on a terminal that is gone: printing would fail, and with it whatever the
    run still has to write."""
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


@contextmanager
def termination_kept() -> Iterator[None]:
    """SIGTERM and SIGHUP inside the block take effect at its end, and after it do what they did before, where that was
    a function of Python's; else they are left to Ray.

    Raised in the middle of ray.init (2.60), an exception leaves a half of it that is in nobody's hands, and the process
    aborts when that is taken down at its very end. A Ray that handles SIGTERM all the same raises SystemExit for it.
    """
    before = {number: signal.getsignal(number) for number in _ENDING if _is_main()}
    ours = {number: handler for number, handler in before.items() if callable(handler)}
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)

    for number in ours:
        signal.signal(number, hold)
    try:
        yield
    except SystemExit:
        came += [number for number in ours if number == signal.SIGTERM]
        raise
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
