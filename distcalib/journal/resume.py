"""The journal in front of the actors: rows that are in it are not measured again, and new ones are in it before
anybody sees them.

A job asks the actors for its missing rows only, in the order that they have in it; one that misses none is no job at
all.  So the same command after a crash gets the same rows, and goes on where the last one ended.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from distcalib.actors import Enough, Job, JobResult, OnRows
from distcalib.engine.spec import Row
from distcalib.errors import OutputError
from distcalib.journal import Journal, Recorded
from distcalib.journal.codec import decode, encode
from distcalib.journal.keys import Keys

Run = Callable[[Sequence[Job], Enough | None, OnRows | None], list[JobResult]]
"""What runs jobs: the pool, with whatever shows progress."""


@dataclass(frozen=True)
class _Part:
    """What the journal has of a job, and what is missing of it, by position."""

    job: Job
    key: bytes
    recorded: Mapping[int, object]
    n_earlier: int
    """Of `recorded`, those that an earlier run measured; `seconds` are theirs."""
    seconds: float
    missing: tuple[int, ...]

    @property
    def numbers(self) -> Sequence[int]:
        """The row number at each position."""
        return range(self.job.n_iterations) if self.job.order is None else self.job.order

    @property
    def rest(self) -> Job:
        """A job of what is missing."""
        job = self.job
        if not self.recorded:
            return job
        return replace(
            job,
            n_iterations=len(self.missing),
            order=tuple(self.numbers[position] for position in self.missing),
            row_sizes=None if job.row_sizes is None else tuple(job.row_sizes[position] for position in self.missing),
            homes=self._homes,
            ranks=None if job.ranks is None else tuple(job.ranks[position] for position in self.missing),
        )

    @property
    def _homes(self) -> tuple[int, ...] | None:
        """How many of the missing positions each actor should do."""
        if self.job.homes is None:
            return None
        ends = list(accumulate(self.job.homes))
        missing = Counter(bisect_right(ends, position) for position in self.missing)
        return tuple(missing[home] for home in range(len(ends)))

    def merged(self, result: JobResult | None) -> JobResult:
        """The result of the whole job from that of the rest, None where nothing more was asked for."""
        job, rows = self.job, dict(self.recorded)
        if result is not None:
            place_of = {number: position for position, number in enumerate(self.numbers)}
            rows.update(zip((place_of[number] for number in result.iterations), result.rows, strict=True))
        positions = sorted(rows)
        return JobResult(
            key=job.key,
            rows=tuple(rows[position] for position in positions),
            size=job.size_of(positions),
            iterations=tuple(self.numbers[position] for position in positions),
            complete=len(positions) == job.n_iterations,
            run_seconds=self.seconds + (0.0 if result is None else result.run_seconds),
            compile_seconds=0.0 if result is None else result.compile_seconds,
            load_seconds=0.0 if result is None else result.load_seconds,
            error=None if result is None else result.error,
            n_recorded=self.n_earlier,
        )


@dataclass
class Resuming:
    """Runs jobs with a journal."""

    journal: Journal
    keys: Keys
    skip_bad: bool = False
    """Whether rows that records were left out of count as measured; to a run without the flag they are missing."""
    check: Callable[[], None] = lambda: None
    """Asked before rows are stored: raises DataError if they may be of other data."""
    n_recorded: int = field(default=0, init=False)
    """Rows taken from the journal so far, and those measured."""
    n_measured: int = field(default=0, init=False)
    _own: set[tuple[bytes, int]] = field(default_factory=set, init=False)

    def run(self, run: Run, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Results in the order of `jobs`, from the journal and from `run`."""
        parts = [self._look_up(job) for job in jobs]
        self.n_recorded += sum(part.n_earlier for part in parts)
        # Whole parts are shown as well: what they say may be enough for others.
        decided = {p for p, part in enumerate(parts) if enough and part.recorded and enough(p, part.recorded)}
        open_places = [place for place, part in enumerate(parts) if part.missing and place not in decided]
        results: dict[int, JobResult] = {}
        if open_places:
            wanted = [parts[place] for place in open_places]

            def enough_of_all(place: int, rows_so_far: Mapping[int, object]) -> bool:
                assert enough is not None, "it is asked only if it is there"
                part = wanted[place]
                if not part.recorded:
                    return enough(open_places[place], rows_so_far)
                rows = {part.missing[position]: row for position, row in rows_so_far.items()}
                return enough(open_places[place], {**part.recorded, **rows})

            def on_rows(place: int, positions: range, rows: Sequence[object], seconds: float) -> None:
                self._store(wanted[place], positions, rows, seconds)

            rest = [part.rest for part in wanted]
            measured = run(rest, enough_of_all if enough else None, on_rows)
            results = dict(zip(open_places, measured, strict=True))
        return [part.merged(results.get(place)) for place, part in enumerate(parts)]

    def recorded(self, job: Job) -> JobResult:
        """What the journal has of a job; nothing is run."""
        return self._look_up(job).merged(None)

    def _look_up(self, job: Job) -> _Part:
        key = self.keys.key(job.spec)
        numbers = range(job.n_iterations) if job.order is None else job.order
        rows = self.journal.rows(key, numbers)
        try:
            recorded = {place: decode(rows[number].payload) for place, number in enumerate(numbers) if number in rows}
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise OutputError(f"{self.journal.path}: is damaged ({error}); move it, or give another --out") from None
        if not self.skip_bad:
            recorded = {place: row for place, row in recorded.items() if not _is_short(row)}
            rows = {numbers[place]: rows[numbers[place]] for place in recorded}
        earlier = [row.seconds for number, row in rows.items() if (key, number) not in self._own]
        missing = tuple(place for place in range(job.n_iterations) if place not in recorded)
        return _Part(job, key, recorded, len(earlier), sum(earlier), missing)

    def forget(self) -> None:
        """Take the rows of this run out of the journal: some of them may be of other data."""
        self.journal.forget(self._own)
        self._own.clear()

    def _store(self, part: _Part, positions: range, rows: Sequence[object], seconds: float) -> None:
        self.check()
        numbers = part.rest.iterations_at(positions)
        measured = {
            number: Recorded(encode(row), seconds / len(rows))
            for number, row in zip(numbers, rows, strict=True)
            if (part.key, number) not in self._own  # else another actor, which was late with it, did it as well
        }
        self.journal.store(part.key, measured)
        self._own.update((part.key, number) for number in measured)
        self.n_measured += len(measured)


def _is_short(row: Row | tuple[Row, ...]) -> bool:
    """Whether records were left out of it."""
    return any(one.left_out for one in (row if isinstance(row, tuple) else (row,)))
