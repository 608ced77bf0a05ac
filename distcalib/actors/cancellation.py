"""An end of a run that another thread asks for: what Ctrl-C is to a terminal."""

import threading


class Cancelled(KeyboardInterrupt):
    """The run was cancelled. A KeyboardInterrupt: what ends a run on Ctrl-C ends it now, and delivers the same."""


class Cancellation:
    """A token that is given to a run, and ends it within a second once it is cancelled; from any thread.

    token = distcalib.Cancellation()
    threading.Timer(3600, token.cancel).start()
    distcalib.calibrate("net.prototxt", "net.caffemodel", cancellation=token)
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """End the run that has this token, now or when it begins; twice does no harm."""
        self._event.set()

    def check(self) -> None:
        """Raise Cancelled once it was cancelled."""
        if self._event.is_set():
            raise Cancelled
