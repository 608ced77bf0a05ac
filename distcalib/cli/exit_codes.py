"""Exit codes of every command."""

import signal

from distcalib.actors.signals import ended_by

OK = 0
ERROR = 1
BELOW_FLOOR = 2
"""The tolerance is not met; the best file was written all the same."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells have it."""
TERMINATED = 143
"""The same for SIGTERM."""
HUNG_UP = 129
"""And for SIGHUP, which comes when the terminal is closed."""


def interrupted_by() -> int:
    """The exit code for the signal that ended the run."""
    return {signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}.get(ended_by(), INTERRUPTED)
