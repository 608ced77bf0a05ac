"""A file of anybody's, read once by a child process before this one opens it.

liblmdb and libhdf5 trust what they read: of some 13,000 mutated files 11 killed the process inside libhdf5 (SIGSEGV),
others inside liblmdb (SIGBUS where an offset leaves the file, an assertion that aborts). No exception comes of that,
so a child takes the blow, and the signal becomes a sentence. The child is forked, not started anew: it costs
milliseconds, and does nothing but read and leave by _exit."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import select
import signal
import warnings
from collections.abc import Iterator
from typing import NoReturn

from distcalib.errors import DataError, described

_PATIENCE_SECONDS = 60.0  # for one step; a damaged tree of pages can go round in circles


def walk(steps: Iterator[str], remedy: str) -> None:
    """Run `steps` in a child process; each begins with what it is about to read, a path.

    Raises DataError that names the path of the last step where the child is killed, stands still, or meets an error."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12's, of threads beside a fork
        pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _walk_here(steps, write_end)
    os.close(write_end)
    try:
        output, is_over = _heard(read_end)
        if not is_over:
            os.kill(pid, signal.SIGKILL)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(read_end)
    status = os.waitpid(pid, 0)[1]
    lines = output.decode("utf-8", "surrogateescape").split("\0")
    where = lines[-2] if len(lines) > 1 else "the data"
    if not is_over:
        raise DataError(f"{where}: reading does not come to an end; it is damaged: {remedy}")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise DataError(f"{where}: is damaged, so that the library that reads it crashes ({name}); {remedy}")
    if os.WEXITSTATUS(status):
        raise DataError(f"{where}: cannot be read ({lines[-1]}); {remedy}")


def _heard(read_end: int) -> tuple[bytes, bool]:
    """The end of what the child says, and whether it is gone; if not, it is silent for too long."""
    output = b""
    while select.select([read_end], [], [], _PATIENCE_SECONDS)[0]:
        piece = os.read(read_end, 65536)
        if not piece:
            return output, True
        output = (output + piece)[-65536:]
    return output, False


def _walk_here(steps: Iterator[str], write_end: int) -> NoReturn:
    """In the child: paths, each with a null byte behind it; at last the reason, if there is one."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGBUS):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()  # of tests, and of whoever imports this
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # liblmdb shows its assertion there
        for step in steps:
            os.write(write_end, os.fsencode(step) + b"\0")
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            reason = described(error) if isinstance(error, Exception) else type(error).__name__
            os.write(write_end, reason.replace("\0", " ").encode("utf-8", "replace"))
    finally:
        os._exit(code)
