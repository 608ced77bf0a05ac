"""One run a folder: a lock that the kernel drops with its process, however that ends.

The lock is on a file of its own: SQLite's are on the database, and closing any other handle of that would drop them."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from datetime import datetime, timezone
from pathlib import Path

from distcalib.errors import OutputError

FILE_NAME = "distcalib.lock"
_BEGINS = "process "


class FolderLock:
    """Held from its making to `release`.  Raises OutputError, naming the holder, if another process has it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file: int | None = None
        while self._file is None:
            self._file = self._acquired(folder)

    def _acquired(self, folder: Path) -> int | None:
        """The locked file; None if it was removed by its last holder in between."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:  # its target would be emptied, whatever that is
                raise OutputError(f"{self._path}: is a symbolic link; remove it, or give another --out") from None
            reason = error.strerror or str(error)
            raise OutputError(f"{folder}: cannot be written to ({reason}); give another folder with --out") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_at_path(file):
                os.close(file)
                return None
            if why := _foreign(file):
                os.close(file)
                raise OutputError(f"{self._path}: is no lock of a run: {why}; move it away, or give another --out")
            os.ftruncate(file, 0)
            # Short, and only to name the holder: a full disk is met by the journal.
            with contextlib.suppress(OSError):
                os.pwrite(file, _who().encode(), 0)
        except BlockingIOError:
            holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise OutputError(
                f"{folder}: {holder} is running in it; wait for it, stop it, or give another folder with --out"
            ) from None
        except OSError as error:
            os.close(file)
            raise OutputError(f"{self._path}: cannot be locked ({error.strerror}); give another --out") from None
        return file

    def _is_at_path(self, file: int) -> bool:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(file), there)

    def is_in_place(self) -> bool:
        """Whether it still lies in the folder: removed with that, it keeps nobody out."""
        return self._file is not None and self._is_at_path(self._file)

    def release(self) -> None:
        """Let others in; twice does no harm."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._is_at_path(self._file):  # else it is another run's
                    self._path.unlink()
            os.close(self._file)
            self._file = None


def _foreign(file: int) -> str:
    """Why an open file is no lock that a run has left, and must not be emptied; "" if it may be one."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if status.st_nlink > 1:
        return "it has another name, a hard link"
    begins = os.pread(file, len(_BEGINS), 0)
    return "" if begins == _BEGINS.encode()[: len(begins)] else "it holds something else than the name of a run"


def _who() -> str:
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return f"{_BEGINS}{os.getpid()} of {socket.gethostname()}, since {since} UTC,"
