"""What becomes of a process that meets a signal of which no exception comes: SIGBUS, SIGSEGV and their like.

Who reads behind the end of a file that was cut while it was mapped gets SIGBUS. Weights, arrays and an LMDB are mapped,
in the driver too, since half a gigabyte of weights costs page cache that way and no memory. So in the driver a handler
says which file it was, and ends the process with exit code 1, where else there would be no word. It is set by libc and
not by `signal`: Python's handlers run after the instruction that was interrupted, and that one would be tried again for
ever. For that a handler in Python may run at once, for the signal comes of an instruction that read a file, not of one
that holds a lock of malloc or of Python; should it get stuck all the same, an alarm ends it.

Ray (2.60) has handlers of its own for these signals, which show its stack, and met a fault while they did: seen in an
actor, which then wrote the same line to its log for ever, took 5 GB, and never died. So actors do without them.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distcalib.errors import printable

_SA_SIGINFO, _SA_NODEFER = 0x4, 0x40000000
_ADDRESS_AT = 16  # si_addr in siginfo_t, as Linux has it on x86-64
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Action(ctypes.Structure):
    """glibc's struct sigaction."""

    _fields_ = (
        ("handler", _Handler),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_PATIENCE_SECONDS = 10
_is_told = False


@contextmanager
def lost_pages_told() -> Iterator[None]:
    """Inside the block a page that a file has lost ends this process with a sentence that names the file."""
    global _is_told
    before = {number: _Action() for number in (signal.SIGBUS, *_CRASHES)}
    for number, action in before.items():
        _libc().sigaction(int(number), None, ctypes.byref(action))
    _is_told = True
    _handle(signal.SIGBUS)
    try:
        yield
    finally:
        _is_told = False
        for number, action in before.items():
            _libc().sigaction(int(number), ctypes.byref(action), None)


def crashes_told() -> None:
    """Within the block, once Ray has started: from now on its handlers are not heard. Before that its start is watched
    from outside, see start_watcher.py."""
    if _is_told:
        for number in (signal.SIGBUS, *_CRASHES):
            _handle(number)


def die_at_once() -> None:
    """In an actor: the driver finds out why, see Fleet. Only the main thread may do this; elsewhere nothing is done."""
    for number in (signal.SIGBUS, *_CRASHES):
        with suppress(ValueError):
            signal.signal(number, signal.SIG_DFL)


def sentence(address: int, maps: str) -> str:
    """What is said of a page at `address` that is not there; `maps`: /proc/self/maps."""
    for line in maps.splitlines():
        span, *_, path = line.split(maxsplit=5)
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= address < end and path.startswith("/") and not path.startswith("/dev/shm/"):
            return (
                f"{path.removesuffix(' (deleted)')}: was cut while it was read; nothing may change data or weights "
                "during a run: put it back as it was, and give the command again"
            )
    return (
        "memory that is shared with others could not be had (SIGBUS); /dev/shm is full, or its limit is reached: "
        "see df /dev/shm"
    )


def crash(number: int) -> str:
    """What is said of any other signal."""
    return (
        f"a library crashed ({signal.Signals(number).name}), and this process with it; a damaged file may be the "
        "cause, or a fault of the library: give the command again, and report it if that ends alike"
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _handle(number: signal.Signals) -> None:
    action = _Action(_end, (ctypes.c_ulong * 16)(), _SA_SIGINFO | _SA_NODEFER, None)
    _libc().sigaction(int(number), ctypes.byref(action), None)


def _told(number: int, info: int | None, _context: int | None) -> None:
    try:
        _libc().alarm(_PATIENCE_SECONDS)
        address = ctypes.c_void_p.from_address((info or 0) + _ADDRESS_AT).value or 0
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
        said = printable(sentence(address, maps)) if number == signal.SIGBUS else crash(number)
        os.write(2, f"distcalib: {said}\n".encode(errors="backslashreplace"))
        sys.stdout.flush()
    finally:
        os._exit(1)


_end = _Handler(_told)
