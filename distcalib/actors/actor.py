"""The inside of an actor: a pinned process that holds one worker and answers the pool.

Nothing here needs Ray. Errors are returned, not raised: Ray would wrap them in its own traceback, and the pool wants
the sentence. The traceback of an unexpected one travels along as text, as multiprocessing does it.

It starts in two steps because Ray unpickles a call's arguments before the call: unpickling the factory imports its
module and so perhaps openvino, which reads its environment once, when imported. So `prepare` comes first and alone.
(Ray's runtime_env would do it too, but cannot use the processes started ahead: 1.6-1.9 s an actor, not 0.03 s.)"""

import os
import pickle
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from distcalib.actors.affinity import pin_process, take_parents_priority
from distcalib.actors.jobs import Blob, Worker, WorkerFactory, describe_iterations
from distcalib.actors.lost_pages import die_at_once
from distcalib.actors.machine import oom_kills
from distcalib.actors.topology import Placement
from distcalib.errors import DistcalibError, MeasureError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Outcome:
    """What a task gave: rows if it ran, busy seconds of the actor by kind; `error` if it failed, with its traceback."""

    rows: Sequence[object] = ()
    run_seconds: float = 0.0
    compile_seconds: float = 0.0
    load_seconds: float = 0.0
    oom_kills: int = 0
    """How many processes the kernel of the machine has killed for lack of memory; told by `prepare`."""
    error: DistcalibError | None = None
    trace: str = ""
    not_loaded: bool = False
    """`load_and_run` failed before it ran: the actor does not have the program."""

    @property
    def seconds(self) -> float:
        """All busy seconds of the task."""
        return self.run_seconds + self.compile_seconds + self.load_seconds


class ActorProcess:
    """One a process; the pool calls `prepare`, then `make_worker`, then any of the others, one at a time."""

    def __init__(self) -> None:
        self._placement: Placement | None = None
        self._worker: Worker | None = None
        self._loaded: set[str] = set()

    def prepare(self, placement: Placement, env: Mapping[str, str]) -> Outcome:
        """Put the environment in place, pin every thread and take the raylet's priority.

        The module's docstring says why this is separate.
        """
        self._placement = placement
        die_at_once()
        os.environ.update(env)
        take_parents_priority()
        return _guarded(f"actor {placement.actor}", lambda: self._pin(placement))

    def make_worker(self, factory: WorkerFactory, shared: object, *pieces: object) -> Outcome:
        """Make the worker; `shared` comes out of the object store, its arrays are read-only views."""
        placement = self._placement
        assert placement is not None, "prepare() comes first"

        def make() -> Outcome:
            self._worker = factory(shared, placement, pieces) if pieces else factory(shared, placement)
            return Outcome()

        return _guarded(f"actor {placement.actor}: making its worker", make)

    def compile(self, key: str, label: str, spec: object, drop: Sequence[str]) -> tuple[Blob | None, Outcome]:
        """Compile and load; the blob is returned beside the outcome, so that it is an object of its own in the store
        and goes from there to other actors without passing through the driver."""
        blobs: list[Blob] = []

        def compile_and_load() -> Outcome:
            self._drop(drop)
            blob, compile_seconds = _timed(lambda: self._live_worker.compile(spec))
            if not (isinstance(blob, np.ndarray) and blob.dtype == np.uint8 and blob.ndim == 1):
                raise TypeError(f"the worker's program is {type(blob).__name__}, not a flat uint8 array")
            blobs.append(blob)
            return Outcome(compile_seconds=compile_seconds, load_seconds=self._load(key, blob))

        outcome = _guarded(f"{label}: compiling its program", compile_and_load)
        return (None if outcome.error else blobs[0]), outcome

    def load(self, key: str, label: str, blob: Blob, drop: Sequence[str]) -> Outcome:
        """Load a program that another actor compiled; `blob` is a read-only view into the object store."""

        def load() -> Outcome:
            self._drop(drop)
            return Outcome(load_seconds=self._load(key, blob))

        return _guarded(f"{label}: loading its program", load)

    def run(self, key: str, label: str, iterations: Sequence[int], drop: Sequence[str]) -> Outcome:
        """The rows of `iterations`, in order."""

        def run() -> Outcome:
            self._drop(drop)
            rows, seconds = _timed(lambda: self._live_worker.run(key, iterations))
            return Outcome(rows=rows, run_seconds=seconds)

        return _guarded(f"{label}, {describe_iterations(iterations)}", run)

    def load_and_run(self, key: str, label: str, blob: Blob, iterations: Sequence[int], drop: Sequence[str]) -> Outcome:
        """`load`, then `run` unless that failed, in one call; the seconds of a load count though its run fails."""
        loaded = self.load(key, label, blob, drop)
        if loaded.error is not None:
            return replace(loaded, not_loaded=True)
        return replace(self.run(key, label, iterations, ()), load_seconds=loaded.load_seconds)

    def run_packed(self, arguments: bytes) -> Outcome:
        """`run` of pickled arguments: Ray looks at each argument by itself, which takes longer than sending it."""
        return self.run(*pickle.loads(arguments))

    def load_and_run_packed(self, blob: Blob, arguments: bytes) -> Outcome:
        """The same of `load_and_run`, but for `blob`: Ray puts the value in the place of a reference only where that is
        an argument of its own."""
        key, label, iterations, drop = pickle.loads(arguments)
        return self.load_and_run(key, label, blob, iterations, drop)

    def clear(self) -> Outcome:
        """Drop every program; the pool asks for it at the end of each call, whether it went well or not."""

        def clear() -> Outcome:
            self._drop(sorted(self._loaded))
            return Outcome()

        return _guarded("dropping programs", clear)

    @property
    def _live_worker(self) -> Worker:
        assert self._worker is not None, "make_worker() comes first"
        return self._worker

    def _pin(self, placement: Placement) -> Outcome:
        pin_process(placement.cpus)
        return Outcome(oom_kills=oom_kills())

    def _load(self, key: str, blob: Blob) -> float:
        self._loaded.add(key)  # before loading: a program loaded by half is dropped too
        _, seconds = _timed(lambda: self._live_worker.load(key, blob))
        return seconds

    def _drop(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key in self._loaded:  # the dispatcher does not know that compiling failed on this actor
                self._loaded.remove(key)
                self._live_worker.drop(key)


def _timed(call: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def _guarded(where: str, call: Callable[[], Outcome]) -> Outcome:
    """Any exception as an outcome: ours as it is, another as a MeasureError that says where."""
    try:
        return call()
    except DistcalibError as error:
        return Outcome(error=error, trace=traceback.format_exc())
    except Exception as error:
        sentence = f"{where}: {type(error).__name__}: {error}; this is unexpected, --verbose shows where it happened"
        return Outcome(error=MeasureError(sentence), trace=traceback.format_exc())
