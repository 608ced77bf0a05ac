"""What goes into the pool and what comes out: the words that callers, dispatcher and actors share.

A job knows nothing of nets: its `spec` means something to the Worker only. That keeps scheduling testable with workers
that sleep, and lets the same dispatcher run behind a simulated clock.

Whoever makes a job or gets rows of it speaks of their numbers. Positions in it, 0 to n_iterations-1 whatever the
numbers are, are the dispatcher's, and known in this package only."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
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
    `order`: the numbers of the rows, all different, those of iterations or blocks; None: 0 to n_iterations-1. It may be
    a part of the data, as what a stopped call left missing, and rows come back in it.
    `homes`: how many of the rows, one actor's after the other's, each actor should do; None: an even part each.
    `ranks`: with `homes`, when each row is wanted, rising in each of these parts; the lower the sooner.
    `in_order`: rows are handed out first to last, since `enough` looks at beginnings.
    `may_stop`: `enough` will probably stop it, and answers fast: what an actor has waiting then is lost, so that a few
    actors have nothing waiting, where all jobs are so.
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
    may_stop: bool = False
    may_fail: bool = False

    @property
    def numbers(self) -> Sequence[int]:
        """Those of the rows, in the order of the job."""
        return range(self.n_iterations) if self.order is None else self.order

    def only(self, numbers: Collection[int]) -> "Job":
        """A job of its rows `numbers` alone, in the order that they have in it and for the same actors."""
        wanted = set(numbers)
        kept = [position for position, number in enumerate(self.numbers) if number in wanted]
        if len(kept) == self.n_iterations:
            return self
        return replace(
            self,
            n_iterations=len(kept),
            order=tuple(self.numbers[position] for position in kept),
            row_sizes=None if self.row_sizes is None else tuple(self.row_sizes[position] for position in kept),
            homes=None if self.homes is None else _homes_of(kept, self.homes),
            ranks=None if self.ranks is None else tuple(self.ranks[position] for position in kept),
        )

    def iterations_at(self, positions: range) -> Sequence[int]:
        """The numbers of the rows at `positions`."""
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
    """The rows of a job in its order, and the actor-seconds spent on it, summed over actors.

    Only a job that was stopped or failed may be not `complete`. Which rows it then has depends on timing; what each of
    them is does not.
    """

    key: str
    rows: tuple[object, ...]
    size: int
    """The sum of the sizes of `rows`."""
    iterations: Sequence[int]
    """The numbers of `rows`."""
    complete: bool
    run_seconds: float
    compile_seconds: float
    load_seconds: float
    error: DistcalibError | None = None
    """Why a job that may fail did."""
    n_recorded: int = 0
    """How many of `rows` were not run now but recorded before; `run_seconds` has what they took then."""

    @classmethod
    def of(
        cls,
        job: Job,
        rows: Mapping[int, object],
        run_seconds: float = 0.0,
        compile_seconds: float = 0.0,
        load_seconds: float = 0.0,
        error: DistcalibError | None = None,
        n_recorded: int = 0,
    ) -> "JobResult":
        """What `job` has in `rows`, by number, be it that they came from several runs."""
        there = [position for position, number in enumerate(job.numbers) if number in rows]
        numbers = tuple(job.numbers[position] for position in there)
        return cls(
            job.key,
            tuple(rows[number] for number in numbers),
            job.size_of(there),
            numbers,
            len(there) == job.n_iterations,
            run_seconds,
            compile_seconds,
            load_seconds,
            error,
            n_recorded,
        )

    @property
    def by_number(self) -> dict[int, object]:
        """The rows by their numbers."""
        return dict(zip(self.iterations, self.rows, strict=True))


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
"""enough(place, rows): whether the job at `place` in the list of the call needs no more than `rows`, those so far by
number; they may be a view that grows."""

OnRows = Callable[[int, Sequence[int], Sequence[object], float], None]
"""on_rows(place, numbers, rows, run_seconds): a shard of the job at `place` was finished, the rows `numbers`; called
before `enough`.

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


def _homes_of(positions: Sequence[int], homes: Sequence[int]) -> tuple[int, ...]:
    """How many of `positions` are each actor's, of whom each has the next `homes` of all."""
    ends = list(accumulate(homes))
    n_of = Counter(bisect_right(ends, position) for position in positions)
    return tuple(n_of[home] for home in range(len(ends)))
