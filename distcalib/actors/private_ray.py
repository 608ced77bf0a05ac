"""What a local Ray has to itself: a folder, a token, addresses that nobody else reaches, and a limit on its start.

By itself Ray (2.60) keeps its token in HOME, its sockets and logs in /tmp/ray, which belongs to whoever came first, and
listens on all addresses of the machine; and `--address auto` of anybody finds it. So each local Ray gets a folder of
its own, 0700, with the token, 0600, in it; it goes with the run. What the user has set (RAY_AUTH_TOKEN and the like)
wins. Nothing here imports Ray.
"""

import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from distcalib.actors import start_watcher
from distcalib.actors.surroundings import ray_folder

_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_PREFIX, _TOKEN, _LOCK = "ray-", "distcalib-token", "distcalib-lock"
_OLD_SECONDS = 86400.0  # that long the logs of a run that failed can be read
_END_SECONDS = 20.0  # after its processes were killed, Ray's own trials may take that long to end
_SAID = re.compile(
    r"Permission denied|No space left on device|Resource temporarily unavailable|Cannot allocate memory|bad_alloc|"
    r"Too many open files|Address already in use|Read-only file system|can't start new thread"
)
_MOST_OF_A_LOG = 2**20


class PrivateFolder:
    """A folder for one local Ray, and the environment that names its token."""

    def __init__(self) -> None:
        parent = ray_folder()
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self.path.chmod(0o700)  # whatever the umask has left of that
        self._lock: int | None = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        token = os.open(self.path / _TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(token, secrets.token_hex(32).encode())
        finally:
            os.close(token)

    @property
    def inner(self) -> Path:
        """What Ray is given, and opens to everybody (0777)."""
        return self.path / "r"

    @property
    def logs(self) -> Path:
        """Where Ray writes its logs."""
        return self.inner / "session_latest" / "logs"

    @property
    def environment(self) -> Mapping[str, str]:
        """What Ray finds the token by; none where the user has given one, or wants none."""
        if any(os.environ.get(name) for name in _TOKEN_VARIABLES):
            return {}
        return {"RAY_AUTH_TOKEN_PATH": str(self.path / _TOKEN)}

    def remove(self, keep_logs: bool = False) -> None:
        """Let go of it; the token goes in any case. Twice does no harm."""
        with suppress(OSError):
            (self.path / _TOKEN).unlink()
        if not keep_logs:
            shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:  # its number may be another file's by the second time
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove the folders of runs of this user that were killed a day ago or before; nobody holds their locks."""
    for lock in parent.glob(f"{_PREFIX}????????/{_LOCK}"):
        with suppress(OSError):
            status = lock.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _OLD_SECONDS:
                continue
            file = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(file)


@contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Whatever this process writes to stderr inside the block, Python or not, goes to the end of the file `path`."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)


@contextmanager
def watched(seconds: float, sentence: str) -> Iterator[None]:
    """Once the block takes longer than `seconds` all processes that this one has started are killed, so that the block
    fails; and where this one dies in it, or has to be killed, the sentence is printed. See start_watcher.py."""
    command = [sys.executable, "-I", "-S", start_watcher.__file__, str(os.getpid()), str(seconds), str(_END_SECONDS)]
    try:
        watcher = subprocess.Popen([*command, sentence], stdin=subprocess.PIPE)
    except OSError:  # no process can be made; then Ray makes none either
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            watcher.communicate(b"well")


def kill_children(known: set[int]) -> None:
    """Kill all descendants of this process but those of the numbers `known`."""
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            if child.pid not in known:
                with suppress(psutil.Error):
                    child.send_signal(signal.SIGKILL)


def cause_in(folder: Path) -> str:
    """What the logs below a folder say of the system, as the system says it; "" where they say nothing."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".err", ".log", ".out") and path.is_file():
            with suppress(OSError), path.open(errors="replace") as file:
                match = _SAID.search(file.read(_MOST_OF_A_LOG))
                if match:
                    return f"{path.name} says: {match[0]}"
    return ""
