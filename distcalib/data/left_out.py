"""Records that cannot be used, and what a batch has in their place: a copy of its first good one.

A net's batch is of a fixed size, so a row cannot just be missing. Whoever asks for a batch with a dictionary learns
which rows are no records, and leaves out what the net makes of them; whoever asks without one gets an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from distcalib.data.datum import BadRecord, MachineFault, Mismatch
from distcalib.errors import DataError

FLAG = "--skip-bad-records"


class SkippableError(DataError):
    """A record cannot be used, and a run that leaves bad records out would go on without it."""

    code = "data.record"


@contextmanager
def advising(may_skip: bool) -> Iterator[None]:
    """Add the advice to leave bad records out to errors raised inside, where the command `may_skip` them."""
    try:
        yield
    except SkippableError as error:
        if not may_skip:
            raise
        raise DataError(f"{error}, or give {FLAG}") from error


_R = TypeVar("_R")
_V = TypeVar("_V")
_W = TypeVar("_W")


@dataclass(frozen=True, order=True)
class LeftOut:
    """Record `number` (from 0) of the data layer `layer`, the `key` by which it is found, and what is wrong with it.

    Without the path of the data: that may be another on each machine.
    """

    layer: str
    number: int
    key: str
    reason: str


Bad = dict[int, LeftOut]
"""By row of a batch."""


@dataclass(frozen=True)
class Reading(Generic[_R, _V]):
    """How a data layer reads its records; errors begin with the path `where`, and go on with what `told` makes of one.

    `skip_bad`: as open_source has it.  `decode` takes a record and its row in the batch, and raises BadRecord.
    """

    layer: str
    where: str
    skip_bad: bool
    n_records: Callable[[], int]
    decode: Callable[[_R, int], _V]
    told: Callable[[_R], str]
    key: Callable[[_R], str]
    deciding: list[str] = field(default_factory=list)
    """The key of the record that `first` found, whose shape all must have."""

    def making(self, decode: Callable[[_R, int], _W]) -> Reading[_R, _W]:
        """The same, but for what is made of a record."""
        return Reading(
            self.layer, self.where, self.skip_bad, self.n_records, decode, self.told, self.key, self.deciding
        )

    def named(self, record: _R) -> str:
        """The key of a record as text that can be written: a file's name may be none, and the report is UTF-8."""
        return self.key(record).encode("utf-8", "backslashreplace").decode()

    def first(self, records: Iterable[_R]) -> _V:
        """The first record, decoded; with `skip_bad` the first good one.  Raises DataError."""
        bad: Bad = {}
        for number, record in enumerate(records):
            try:
                made = self.decode(record, 0)
            except BadRecord as error:
                self._take(error, record, number, number, bad if self.skip_bad else None)
            else:
                self.deciding[:] = [self.key(record)]
                return made
        raise DataError(self._nothing(0, bad))

    def rows(self, first: int, records: Sequence[_R], bad: Bad | None, wanted: Sequence[int] | None = None) -> list[_V]:
        """Each record, decoded; for a bad one the first good one, and `bad` is told.  `first`: the number of the first.
        `wanted`: the rows that are, in that order, and no other; there is no `bad` then.

        Raises DataError for a bad record where there is no `bad`, and where all are.
        """
        made: list[_V] = []
        own: Bad = {}
        for row, record in enumerate(records) if wanted is None else ((row, records[row]) for row in wanted):
            try:
                made.append(self.decode(record, row))
            except BadRecord as error:
                self._take(error, record, first + row, row, None if bad is None else own)
        if not made:
            raise DataError(self._nothing(first, own))
        if bad is not None:
            bad.update(own)
        if wanted is not None:
            return made
        good, filler = iter(made), made[0]
        return [filler if row in own else next(good) for row in range(len(records))]

    def _take(self, error: BadRecord, record: _R, number: int, row: int, bad: Bad | None) -> None:
        """Enter a bad record into `bad`.  Raises DataError where that cannot be."""
        if bad is None or isinstance(error, MachineFault):
            is_layers = isinstance(error, Mismatch) and not self.deciding  # the layer's fault, not the record's
            kind = DataError if isinstance(error, MachineFault) or is_layers else SkippableError
            raise kind(f"{self.where}: {self.told(record)} {error}") from error
        what = str(error).partition("; ")[0]
        bad[row] = LeftOut(self.layer, number % self.n_records(), self.named(record), what)

    def _nothing(self, first: int, bad: Bad) -> str:
        known = bad[min(bad)]
        decides = f"; {self.deciding[0]} decides the shape of all, is it right?" if self.deciding else ""
        return (
            f"{self.where}: the {len(bad)} records of an iteration, from number {first % self.n_records()} on, are all "
            f"bad ({known.key} {known.reason}), and {FLAG} needs one that is good; take them out of the data, or raise "
            f"batch_size{decides}"
        )
