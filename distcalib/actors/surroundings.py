"""What a local Ray needs of the machine that it starts on, looked at before it is started.

Ray itself (2.60) goes on trying for minutes where it may make no more threads, or has no loopback device, and then
shows the stack of the process that gave up. All here is pure but `start_lacks`, and takes milliseconds."""

import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distcalib.actors.machine import ancestors, memory, read_text

# Threads of all processes at their peak: 107 in a run with 1 actor, 123 with 2 and 255 with 8 (Ray 2.60). With a limit
# (pids.max of a cgroup), 92, 112 and 242 were enough; with 102 for 2 actors a run died in its middle, with 92 Ray's
# processes aborted at the start, and with 222 for 8 the start took minutes.
_HELPER_THREADS = 80  # more where Ray has its agents and monitors, see ray_helpers.py
_THREADS, _THREADS_AN_ACTOR = 72, 14
_THREADS_WELL, _THREADS_AN_ACTOR_WELL = 80, 22
# Address space of the largest process, beside the object store, which each of them maps: 1.1 GB there.
_ADDRESS_BYTES = 3 * 2**29
_STORE_SHARE = 0.3  # of the memory, or what /dev/shm has: Ray's default
# "/session_2026-11-30_05-25-12_290649_4194304/sockets/plasma_store" and the private folder before it; a socket's path
# may have 107 bytes.
_SOCKET_BYTES, MOST_PATH_BYTES = 65 + len("/ray-abcdefgh/r"), 107
_GB = 2**30


@dataclass(frozen=True)
class Lack:
    """What is wrong, and what would do; `refused`: a local Ray cannot start so, else it may not."""

    what: str
    remedy: str
    refused: bool = True

    @property
    def sentence(self) -> str:
        """Both."""
        return f"{self.what}; {self.remedy}"


def ray_folder() -> Path:
    """Where a local Ray has its files: RAY_TMPDIR if that is not empty, else TMPDIR, else /tmp."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def start_lacks(n_actors: int, root: Path = Path("/"), helpers: bool = False) -> tuple[Lack, ...]:
    """What stands in the way of a local Ray with so many actors, with its `helpers` or without; `root`: of a recorded
    tree."""
    lacks = [*_lacks_of_working_folder(), *_lacks_of_folder(), *_lacks_of_loopback()]
    room = free_threads(root)
    if room is not None:
        lacks += thread_lacks(n_actors, *room, helpers)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        lacks += address_lacks(limit, store_bytes(root))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        lacks += file_lacks(limit, store_bytes(root))
    return tuple(lacks)


def thread_lacks(n_actors: int, limit: int, free: int, helpers: bool = False) -> Iterator[Lack]:
    """What is wrong if `free` threads may be made, of `limit` in all, for a Ray with its `helpers` or without."""
    more = _HELPER_THREADS if helpers else 0
    needs = more + _THREADS_WELL + n_actors * _THREADS_AN_ACTOR_WELL
    least = more + _THREADS + n_actors * _THREADS_AN_ACTOR
    if free < needs:
        yield Lack(
            f"{free} of the {limit} processes and threads allowed here (pids.max, ulimit -u) are free, and Ray makes "
            f"about {needs} for {n_actors} actor(s)",
            "allow more (docker --pids-limit, TasksMax of systemd, ulimit -u), or use fewer: --actors",
            refused=free < least,
        )


def address_lacks(limit: int, store: int) -> Iterator[Lack]:
    """What is wrong if a process may have `limit` bytes of addresses, with an object store of `store` bytes."""
    needs = store + _ADDRESS_BYTES
    if limit < needs:
        yield Lack(
            f"a process may have {limit / _GB:.1f} GB of address space here (ulimit -v), and those of Ray want "
            f"{needs / _GB:.1f} GB, most of it for the object store that they map",
            "ulimit -v unlimited; a limit on memory belongs to the container",
        )


def file_lacks(limit: int, store: int) -> Iterator[Lack]:
    """What is wrong if a file may have `limit` bytes, with an object store of `store` bytes, which is one."""
    if limit < store:
        yield Lack(
            f"a file may have {limit / _GB:.1f} GB here (ulimit -f), and Ray's object store is one of "
            f"{store / _GB:.1f} GB",
            "ulimit -f unlimited",
        )


def store_bytes(root: Path = Path("/")) -> int:
    """The size of the object store that Ray would make."""
    total, _ = memory(root)
    try:
        stat = os.statvfs(root / "dev/shm")
        shm = stat.f_frsize * stat.f_blocks
    except OSError:
        shm = 0
    return int(min(_STORE_SHARE * total, 0.95 * shm) if shm else _STORE_SHARE * total)


def free_threads(root: Path = Path("/")) -> tuple[int, int] | None:
    """(limit, free): of the tightest limit on processes and threads of this one's cgroups and user; None: no limit."""
    limits: list[tuple[int, int]] = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            mount = root / "sys/fs/cgroup"
            for base in [mount / "pids"] if controllers else [mount, mount / "unified"]:
                for folder in ancestors(base, path):
                    limit, used = (read_text(folder / name).strip() for name in ("pids.max", "pids.current"))
                    if limit.isdigit() and used.isdigit():
                        limits.append((int(limit), max(0, int(limit) - int(used))))
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if root == Path("/") and own != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is not held to it
        limits.append((own, max(0, own - _threads_of_user(os.getuid()))))
    return min(limits, key=lambda found: found[1], default=None)


def _threads_of_user(uid: int) -> int:
    n = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == uid:
                n += sum(1 for _ in (folder / "task").iterdir())
        except OSError:  # ended meanwhile, or hidden
            continue
    return n


def _lacks_of_working_folder() -> Iterator[Lack]:
    try:
        folder = os.getcwd()
    except OSError:
        yield Lack("the working directory is not there any more", "go to another one (cd)")
        return
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    if mask & 0o700:
        yield Lack(f"umask {mask:03o} takes from this user what Ray's processes make", "umask 022")
    if not os.access(folder, os.X_OK):
        yield Lack(f"{folder}: the working directory is closed to this user", "go to another one (cd)")


def _lacks_of_folder() -> Iterator[Lack]:
    folder = ray_folder()
    if len(os.fsencode(folder)) + _SOCKET_BYTES > MOST_PATH_BYTES:
        yield Lack(
            f"{folder}: is too long a path for the sockets that Ray makes in its temporary folder",
            "set TMPDIR to a shorter one, such as /tmp",
        )
        return
    try:
        with tempfile.TemporaryDirectory(prefix="ray-", dir=folder):
            pass
    except OSError as error:
        yield Lack(
            f"{folder}: no folder can be made there ({error.strerror or error}), and Ray needs one for its files",
            "set TMPDIR to one that you may write to, such as /tmp",
        )


def _lacks_of_loopback() -> Iterator[Lack]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2.0).close()
    except OSError as error:
        yield Lack(
            f"127.0.0.1 does not answer ({error.strerror or error}), and Ray's processes talk to each other there",
            "ip link set lo up",
        )
