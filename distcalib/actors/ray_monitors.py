"""A local Ray without what it only has for clouds and for showing logs: its autoscaler and its log monitor.

Each is a Python interpreter that loads Ray while the actors' machine is busy with starting, and the first waits a
second before it heeds Ray's shutdown. On two cores a run begins 0.8 s earlier and ends 1.0 s earlier without them
(Ray 2.60, `python scripts/bench/bench_start.py`). Nothing that Ray offers leaves them out; nothing asks for them again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import psutil

_PROGRAMS = ("autoscaler/_private/monitor.py", "_private/log_monitor.py")
_POLL_SECONDS = 0.1  # each look reads all of /proc, which takes 60 ms where there are thousands of processes


@contextmanager
def no_monitors(ray_folder: Path) -> Iterator[None]:
    """While a Ray of the package in `ray_folder` is started by this process, end its monitors as soon as they come."""
    unwanted = {str(ray_folder / program) for program in _PROGRAMS}
    done = Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            end_children(unwanted)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        end_children(unwanted)  # what came last


def end_children(programs: set[str]) -> None:
    """Kill the child processes of this one that have one of `programs` among their arguments."""
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if not programs.isdisjoint(child.cmdline()):
                    child.kill()
