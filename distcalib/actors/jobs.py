"""What goes into the pool and what comes out: the words that callers, dispatcher and actors share.

A job knows nothing of nets: its `spec` means something to the Worker only. That keeps scheduling testable with workers
that sleep, and lets the same dispatcher run behind a simulated clock."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distcalib.actors.nodes import NodeInfo
from distcalib.errors import DistcalibError

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

    def run(self, key: str, iterations: Sequence[int]) -> Sequence[object]:
        """One row an iteration, in the order of `iterations`, a range unless the job has an order of its own. A row
        depends on program and iteration alone."""
        ...

    def drop(self, key: str) -> None:
        """Forget the program `key`; no `run` of it follows."""
        ...


WorkerFactory = Callable[..., Worker]
"""factory(shared, placement), or factory(shared, placement, pieces) where the pool has a cargo: called in the actor
after env and affinity are in place; must be picklable.
Arrays inside `shared` and pieces are read-only views into the object store, one copy a machine."""


@dataclass(frozen=True)
class Cargo:
    """What all actors need and is too much for one object; `pieces`, called with the nodes that there are, gives it
    piece by piece, so that the driver never holds all of it beside the object store."""

    pieces: Callable[[Sequence[NodeInfo]], Iterable[object]]


@dataclass(frozen=True)
class Job:
    """`n_iterations` >= 1 rows of the program made from `spec`; `key` is unique among the jobs of one call.

    `row_sizes`: where a row stands for a block of iterations, how many each is of, all >= 1; None: one each. Progress
    counts them.
    `order`: the distinct iteration numbers that positions 0 to n_iterations-1 stand for; None: their own. It may be a
    part of the data, as what a stopped call left missing, and rows come back in it.
    `homes`: how many positions, one actor's after the other's, each actor should do; None: an even part each.
    `ranks`: with `homes`, by position when it is wanted, rising in each of these parts; the lower the sooner.
    `in_order`: positions are handed out first to last, since `enough` looks at beginnings.
    `may_fail`: an error of its worker, or MAX_DEATHS actors that die on the same task of it, end this job alone.
    """

    key: str
    spec: object
    n_iterations: int
    label: str
    row_sizes: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    homes: tuple[int, ...] | None = None
    ranks: tuple[int, ...] | None = None
    in_order: bool = False
    may_fail: bool = False

    def iterations_at(self, positions: range) -> Sequence[int]:
        """The iteration numbers at `positions`."""
        return positions if self.order is None else self.order[positions.start : positions.stop]

    def size_of(self, positions: Iterable[int]) -> int:
        """The sum of the row sizes at `positions`."""
        return sum(1 if self.row_sizes is None else self.row_sizes[position] for position in positions)

    @property
    def size(self) -> int:
        """The sum of all row sizes."""
        return self.size_of(range(self.n_iterations))


@dataclass(frozen=True)
class JobResult:
    """The rows of a job in the order of positions, and the actor-seconds spent on it, summed over actors.

    Only a job that was stopped or failed may be not `complete`. Which rows it then has depends on timing; what each of
    them is does not.
    """

    key: str
    rows: tuple[object, ...]
    size: int
    """The sum of the sizes of `rows`."""
    iterations: Sequence[int]
    """Those of `rows`, one each."""
    complete: bool
    run_seconds: float
    compile_seconds: float
    load_seconds: float
    error: DistcalibError | None = None
    """Why a job that may fail did."""
    n_recorded: int = 0
    """How many of `rows` were not run now but recorded before; `run_seconds` has what they took then."""


@dataclass(frozen=True)
class Progress:
    """A shard of the job `label` was finished: `n_done` of `n_total` are, the sizes of the rows of all jobs.

    The total counts what is sure to be done: it falls when a job is stopped, and takes up what comes back of it later.
    """

    label: str
    n_done: int
    n_total: int
    n_busy: int = 0
    """Actors that have work now."""
    n_actors: int = 0


Enough = Callable[[int, Mapping[int, object]], bool]
"""enough(place, rows): whether the job at `place` in the list of the call needs no more than `rows`, by position."""

OnRows = Callable[[int, range, Sequence[object], float], None]
"""on_rows(place, positions, rows, run_seconds): a shard of the job at `place` was finished; called before `enough`.

A shard that nobody waits for when the call ends is handed out in a later call, or when the pool settles; one that two
actors have done may be handed out twice then."""


def describe_iterations(iterations: Iterable[int]) -> str:
    """A non-empty choice of iterations in words: "iteration 3", "iterations 3-7", "iterations 9, 2, 4, 7, ... 5"."""
    numbers = list(iterations)
    if len(numbers) == 1:
        return f"iteration {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"iterations {numbers[0]}-{numbers[-1]}"
    listed = numbers if len(numbers) <= 6 else [*numbers[:4], "...", numbers[-1]]
    return f"iterations {', '.join(map(str, listed))}".replace("..., ", "... ")
