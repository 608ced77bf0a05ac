"""Exit codes of every command."""

OK = 0
ERROR = 1
BELOW_FLOOR = 2
"""The tolerance is not met; the best file was written all the same."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells have it."""
TERMINATED = 143
"""The same for SIGTERM."""
