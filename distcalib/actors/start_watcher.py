"""Run as a program while a local Ray starts: `python -I -S start_watcher.py PID SECONDS MORE SENTENCE`, stdin a pipe.

After SECONDS it kills the processes that PID has started, so that its start fails; after MORE it kills PID itself. When
the pipe is closed and nothing was written to it, PID is dead: then it prints SENTENCE on stderr. It is a process of its
own because nothing in PID would do: where Ray (2.60) may make no more threads its core, in C++, aborts, or waits for
ever and keeps Python's lock; seen with pids.max 155. It imports nothing of distcalib, so as to be there in 20 ms.
"""

import os
import select
import signal
import sys


def descendants(pid: int) -> list[int]:
    """The processes that `pid` has started, and that these have, but this one."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):  # ended meanwhile
                continue
    processes, grows = {pid}, True
    while grows:
        more = {child for child, parent in parents.items() if parent in processes} - processes - {os.getpid()}
        processes |= more
        grows = bool(more)
    return sorted(processes - {pid})


def kill(pids: list[int]) -> None:
    """Kill those that still live."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def watch(pid: int, seconds: float, more: float, sentence: str) -> None:
    """See the module's docstring."""
    if not select.select([0], [], [], seconds)[0]:
        kill(descendants(pid))
        if not select.select([0], [], [], more)[0]:
            kill([*descendants(pid), pid])
    if not os.read(0, 1):
        kill(descendants(pid))
        print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver answers it
    watch(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
