"""The journal in front of the actors: rows that are in it are not measured again, and new ones are in it before
anybody sees them.

A job asks the actors for its missing rows only, in the order that they have in it; one that misses none is no job at
all.  So the same command after a crash gets the same rows, and goes on where the last one ended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    """What the journal has of a job, and what is missing of it, by number."""

    job: Job
    key: bytes
    recorded: Mapping[int, object]
    n_earlier: int
    """Of `recorded`, those that an earlier run measured; `seconds` are theirs."""
    seconds: float
    missing: tuple[int, ...]

    def merged(self, result: JobResult | None) -> JobResult:
        """The result of the whole job from that of the rest, None where nothing more was asked for."""
        new = JobResult.of(self.job, {}) if result is None else result
        return JobResult.of(
            self.job,
            {**self.recorded, **new.by_number},
            run_seconds=self.seconds + new.run_seconds,
            compile_seconds=new.compile_seconds,
            load_seconds=new.load_seconds,
            error=new.error,
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
                return enough(open_places[place], {**part.recorded, **rows_so_far})

            def on_rows(place: int, numbers: Sequence[int], rows: Sequence[object], seconds: float) -> None:
                self._store(wanted[place].key, numbers, rows, seconds)

            rest = [part.job.only(part.missing) for part in wanted]
            measured = run(rest, enough_of_all if enough else None, on_rows)
            results = dict(zip(open_places, measured, strict=True))
        return [part.merged(results.get(place)) for place, part in enumerate(parts)]

    def recorded(self, job: Job) -> JobResult:
        """What the journal has of a job; nothing is run."""
        return self._look_up(job).merged(None)

    def _look_up(self, job: Job) -> _Part:
        key = self.keys.key(job.spec)
        rows = self.journal.rows(key, job.numbers)
        try:
            recorded = {number: decode(rows[number].payload) for number in job.numbers if number in rows}
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise OutputError(f"{self.journal.path}: is damaged ({error}); move it, or give another --out") from None
        if not self.skip_bad:
            recorded = {number: row for number, row in recorded.items() if not _is_short(row)}
            rows = {number: rows[number] for number in recorded}
        earlier = [row.seconds for number, row in rows.items() if (key, number) not in self._own]
        missing = tuple(number for number in job.numbers if number not in recorded)
        return _Part(job, key, recorded, len(earlier), sum(earlier), missing)

    def forget(self) -> None:
        """Take the rows of this run out of the journal: some of them may be of other data."""
        self.journal.forget(self._own)
        self._own.clear()

    def _store(self, key: bytes, numbers: Sequence[int], rows: Sequence[object], seconds: float) -> None:
        self.check()
        measured = {
            number: Recorded(encode(row), seconds / len(rows))
            for number, row in zip(numbers, rows, strict=True)
            if (key, number) not in self._own  # else another actor, which was late with it, did it as well
        }
        self.journal.store(key, measured)
        self._own.update((key, number) for number in measured)
        self.n_measured += len(measured)


def _is_short(row: Row | tuple[Row, ...]) -> bool:
    """Whether records were left out of it."""
    return any(one.left_out for one in (row if isinstance(row, tuple) else (row,)))
