"""What goes into the pool and what comes out: the words that callers, dispatcher and actors share.

A job knows nothing of nets: its `spec` means something to the Worker only. That keeps scheduling testable with workers
that sleep, and lets the same dispatcher run behind a simulated clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distcalib.measure.topology import Placement

Blob = npt.NDArray[np.uint8]


class Worker(Protocol):
    """Lives in one actor process, made there by a WorkerFactory after pinning.

    Exceptions: a DistcalibError reaches the caller of ActorPool.run as it is; any other becomes a MeasureError that
    names job and iterations.
    """

    def compile(self, spec: Any) -> Blob:
        """Turn a job's spec into a program, a flat uint8 array that `load` of any actor of the pool takes.

        `load` follows at once with the very same array, so a worker that keeps what it compiled need not import it.
        """
        ...

    def load(self, key: str, blob: Blob) -> None:
        """Make the program ready to run as `key`. `blob` may be a read-only view into the object store."""
        ...

    def run(self, key: str, iterations: range) -> Sequence[object]:
        """One row an iteration, in the order of `iterations`. A row depends on program and iteration alone."""
        ...

    def drop(self, key: str) -> None:
        """Forget the program `key`; no `run` of it follows."""
        ...


WorkerFactory = Callable[[Any, Placement], Worker]
"""factory(shared, placement): called in the actor after env and affinity are in place; must be picklable.
Arrays inside `shared` are read-only views into the object store, one copy a machine."""


@dataclass(frozen=True)
class Job:
    """`n_iterations` >= 1 rows of the program made from `spec`; `key` is unique among the jobs of one call.

    `row_sizes`: where a row stands for a block of iterations, how many each is of, all >= 1; None: one each. Progress
    counts them.
    """

    key: str
    spec: object
    n_iterations: int
    label: str
    row_sizes: tuple[int, ...] | None = None

    def size_of(self, positions: Sequence[int]) -> int:
        """The sum of the row sizes at `positions`."""
        return len(positions) if self.row_sizes is None else sum(self.row_sizes[position] for position in positions)

    @property
    def size(self) -> int:
        """The sum of all row sizes."""
        return self.size_of(range(self.n_iterations))


@dataclass(frozen=True)
class JobResult:
    """All rows of a job in iteration order, the sum of their sizes, and the actor-seconds spent, summed over actors."""

    key: str
    rows: tuple[object, ...]
    size: int
    run_seconds: float
    compile_seconds: float
    load_seconds: float


@dataclass(frozen=True)
class Progress:
    """A shard of the job `label` was finished: `n_done` of `n_total` are, the sizes of the rows of all jobs."""

    label: str
    n_done: int
    n_total: int
