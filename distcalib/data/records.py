"""Records of a sorted database, by number.

LMDB and LevelDB have no record numbers, only sorted keys. Finding record k·batch by stepping from the first one would
make every actor walk the whole database, so a sparse index of keys (`KeyIndex`) is made by one pass and shipped: an
actor seeks to the nearest key before a shard and steps on from it. Both databases share this; what differs is how a
pass is made and how a key is found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from distcalib.data.source import Index, KeyIndex
from distcalib.errors import DataError

Record = tuple[bytes | memoryview, bytes | memoryview]
"""Key and value; views may be valid until `close` only."""

SAME_DATA = "every machine must see the same data, and nothing may write to it during a run"


def key_text(key: bytes | memoryview) -> str:
    """A record's key as it stands in messages: `'00000042'`, or hexadecimal when it is not printable text."""
    raw = bytes(key)
    text = raw.decode("utf-8", "replace")
    return f"'{text}'" if text.isprintable() and "\ufffd" not in text else f"0x{raw.hex()}"


class Records(ABC):
    """The records of the database at `path` in key order.

    `index`: that of the same database, from another process; without it, one is made when first needed."""

    MAX_KEYS = 4096
    """Most keys that an index has."""

    def __init__(self, path: Path, index: Index | None) -> None:
        if index is not None and not isinstance(index, KeyIndex):
            raise TypeError(f"{path}: an index of keys is wanted, not {type(index).__name__}")
        self.path = path
        self._index = index
        self._rest: Iterator[Record] = iter(())
        self._position = -1  # number of the record that _rest gives next; -1: none

    @property
    def n_records(self) -> int:
        """How many there are, at least 1."""
        return self.index.n_records

    @property
    def index(self) -> KeyIndex:
        """Every step-th key; made by one pass over the keys unless it was given."""
        if self._index is None:
            self._index = self._scan()
        return self._index

    def first(self) -> Record:
        """The first record; needs no index. Raises DataError where there is none."""
        self._position = -1  # a subclass may have one cursor only
        for record in self._from(None) or ():
            return record
        raise DataError(f"{self.path}: the database is empty; write at least one record into it")

    def read(self, first: int, count: int) -> list[Record]:
        """Key and value of `count` records from record `first` on; after the last record comes the first again.

        Costs no seek when it continues where the previous call ended."""
        records: list[Record] = []
        position = first % self.n_records
        while len(records) < count:
            if position != self._position:
                self._seek(position)
            wanted = min(count - len(records), self.n_records - position)
            chunk = list(islice(self._rest, wanted))
            if len(chunk) < wanted:
                self._position = -1
                raise DataError(
                    f"{self.path}: ends after {position + len(chunk)} records although it counts {self.n_records}; "
                    "the database is damaged: write it again"
                )
            records += chunk
            self._position = position + wanted
            position = self._position % self.n_records
        return records

    @abstractmethod
    def close(self) -> None:
        """Let go of the database; values read before must not be used any more. Calling it twice is fine."""

    @abstractmethod
    def _scan(self) -> KeyIndex:
        """The index, by a pass over all keys."""

    @abstractmethod
    def _from(self, key: bytes | None) -> Iterator[Record] | None:
        """The records from that of `key` on, None if there is no such key; from the first on for None."""

    def _seek(self, position: int) -> None:
        """Place _rest on record `position`: at the nearest indexed key at or before it, then step by step."""
        anchor, steps = divmod(position, self.index.step) if position else (0, 0)
        self._position = -1  # until it is known that _rest is at its place
        rest = self._from(self.index.keys[anchor] if position else None)
        if rest is None or sum(1 for _ in islice(rest, steps)) < steps:
            raise DataError(
                f"{self.path}: record {position} is not where it was when the data was indexed; {SAME_DATA}"
            )
        self._rest, self._position = rest, position
