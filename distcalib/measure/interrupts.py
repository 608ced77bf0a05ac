"""Hold Ctrl-C back while Ray starts or ends, and keep what SIGTERM was to do.

Interrupted in the middle of ray.init, Ray 2.60 leaves agents of its node running for ever, and now and then the driver
ends in a segmentation fault seconds later (both seen often in 20 trials). Starting takes about two seconds, so waiting
for it keeps Ctrl-C prompt. For SIGTERM ray.init installs handlers of its own, in Python and below, that end the process
with the stack of the driver on stderr."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


_terminated = False


def was_terminated() -> bool:
    """Whether a KeyboardInterrupt stands for SIGTERM. No class of exceptions could tell: interrupted while it waits,
    Ray raises a KeyboardInterrupt of its own in place of whatever the handler has raised.
    """
    return _terminated


@contextmanager
def termination_told() -> Iterator[None]:
    """The first SIGTERM inside the block, as batch systems send it before they kill, is a KeyboardInterrupt; those that
    follow are not heard.

    Only the main thread may install handlers, so elsewhere this does nothing, nor where somebody else handles it.
    """
    global _terminated
    _terminated = False
    if not _is_main() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        global _terminated
        if not _terminated:
            _terminated = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def termination_kept() -> Iterator[None]:
    """SIGTERM after the block does what it did before, if that was a function of Python's; else it is left to Ray. One
    that comes inside the block, where Ray raises SystemExit for it, counts at the end.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not _is_main() or not callable(before):
        yield
        return
    came = False
    try:
        yield
    except SystemExit:
        came = True
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
