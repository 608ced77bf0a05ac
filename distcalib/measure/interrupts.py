"""Hold Ctrl-C back while Ray starts or ends.

Interrupted in the middle of ray.init, Ray 2.60 leaves agents of its node running for ever, and now and then the driver
ends in a segmentation fault seconds later (both seen often in 20 trials). Starting takes about two seconds, so waiting
for it keeps Ctrl-C prompt. SIGTERM is left to Ray, which installs a handler of its own below Python's."""

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
    if threading.current_thread() is not threading.main_thread() or before is None:  # None: not installed by Python
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
