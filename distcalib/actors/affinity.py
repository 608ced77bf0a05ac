"""Pin the whole process to its CPUs, and believe it only when the kernel says so.

A Ray worker has a dozen threads of its own before any of our code runs, and affinity belongs to a thread: pinning the
main thread alone would leave the others, and whatever they start, roaming over the cores of the other actors. So every
thread is pinned; threads that the engine starts later inherit it. Linux only."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from distcalib.actors.machine import read_text
from distcalib.actors.topology import parse_cpu_list
from distcalib.errors import MeasureError

_ACTOR = "ray::ActorProce"  # ActorProcess, cut off by the kernel after 15 characters
_PASSES = 8  # a thread born while the list is read is caught by the next pass; two were enough in every trial


def take_parents_priority() -> None:
    """Run at the niceness of the process that started this one, the raylet, if the kernel lets us: Ray starts workers
    15 nicer than itself where nobody set RAY_worker_niceness, and beside any other work they would then hardly run.

    Lowering one's niceness takes root or CAP_SYS_NICE; without it all stays as it is.
    """
    with contextlib.suppress(OSError):
        wanted = os.getpriority(os.PRIO_PROCESS, os.getppid())
        for thread in _threads():
            os.setpriority(os.PRIO_PROCESS, thread, wanted)


def pin_process(cpus: Iterable[int]) -> None:
    """Pin all threads of this process to the logical CPUs `cpus` and verify each by reading it back.

    Raises MeasureError when the kernel refuses or when a thread is elsewhere afterwards.
    """
    wanted = set(cpus)
    names = ",".join(map(str, sorted(wanted)))
    for _ in range(_PASSES):
        try:
            for thread in _threads():
                _pin_thread(thread, wanted)
        except (OSError, ValueError) as error:
            raise MeasureError(
                f"pinning: the kernel refuses CPUs {names} ({error}); this process may use "
                f"{','.join(map(str, sorted(os.sched_getaffinity(0))))}; check taskset and the container's CPU set"
            ) from error
        astray = stray_threads(wanted)
        if not astray:
            return
    raise MeasureError(
        f"pinning: {len(astray)} thread(s) run outside CPUs {names} although the kernel agreed; "
        "another program moves them, or the container's CPU set changed; stop that one"
    )


def pinned_by_others(root: Path = Path("/")) -> tuple[int, ...]:
    """The logical CPUs that actors of other runs on this machine are pinned to, ascending.

    An actor is known by the name that Ray gives its process, and is pinned if it may not use all CPUs that this process
    may.  Containers on one machine, each with a network of its own, are other machines.
    """
    mine, pinned = os.sched_getaffinity(0), set[int]()
    for process in _actors(root / "proc"):
        lines = (line for line in read_text(process / "status").splitlines() if line.startswith("Cpus_allowed_list:"))
        cpus = set(parse_cpu_list(next(lines, "").partition(":")[2]))
        if cpus and cpus < mine:
            pinned |= cpus
    return tuple(sorted(pinned))


def _actors(proc: Path) -> Iterator[Path]:
    """The folders of the processes of actors in this network."""
    network = _network(proc / "self")
    for process in proc.iterdir():
        is_actor = process.name.isdigit() and read_text(process / "comm").startswith(_ACTOR)
        if is_actor and int(process.name) != os.getpid() and _network(process) in (network, ""):
            yield process


def _network(process: Path) -> str:
    try:
        return os.readlink(process / "ns" / "net")
    except OSError:  # of another user, or gone
        return ""


def stray_threads(cpus: Iterable[int]) -> tuple[int, ...]:
    """Ids of this process's threads whose affinity is not exactly `cpus`."""
    wanted = set(cpus)
    return tuple(thread for thread in _threads() if _affinity(thread) not in (None, wanted))


def _pin_thread(thread: int, cpus: set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended between being listed and being pinned
        os.sched_setaffinity(thread, cpus)


def _affinity(thread: int) -> set[int] | None:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return None


def _threads() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
