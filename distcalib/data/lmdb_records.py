"""Records of an LMDB, by number.

An LMDB has no record numbers, only sorted keys. Finding record k·batch by stepping from the first one would make every
actor walk the whole database, so a sparse index of keys (`Index`) is made by one keys-only pass and shipped: 100,000
records of 3 kB are indexed in 0.03 s, for their values are on pages of their own, which the pass does not touch; with
the index a shard is entered in 0.2 ms (scripts/bench_data.py).

Opened for reading only and without a lock file, so that a database on a read-only file system works and many actors
of a machine share its pages; nothing may write to it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from distcalib.data.source import Index
from distcalib.errors import DataError

Record = tuple[memoryview, memoryview]
"""Key and value, views into the mapped file: valid until `close`."""

_MAX_INDEX_KEYS = 4096

# LMDB must not be opened twice in one process (the second close would drop the locks of the first, and the binding
# refuses it): sources on the same database share the environment. Weak, so that the last one to go closes it.
_ENVIRONMENTS: WeakValueDictionary[str, lmdb.Environment] = WeakValueDictionary()


def key_text(key: bytes | memoryview) -> str:
    """A record's key as it stands in messages: `'00000042'`, or hexadecimal when it is not printable text."""
    raw = bytes(key)
    text = raw.decode("utf-8", "replace")
    return f"'{text}'" if text.isprintable() and "\ufffd" not in text else f"0x{raw.hex()}"


class LmdbRecords:
    """The records of the LMDB at `path` (its folder, or the file in it), in key order.

    `index`: that of the same database, from another process; without it, one is made when first needed.
    Raises DataError in one sentence when there is no usable database, or when it does not fit `index`."""

    def __init__(self, path: Path, index: Index | None = None) -> None:
        self.path = path
        self._transaction = _open(path).begin(buffers=True)
        self._cursor = self._transaction.cursor()
        self._rest: Iterator[Record] = iter(())
        self._position = -1  # number of the record that _rest gives next; -1: none
        self.n_records: int = self._transaction.stat()["entries"]
        if self.n_records == 0:
            self.close()
            raise DataError(f"{path}: the database is empty; write at least one record into it")
        if index is not None and index.n_records != self.n_records:
            self.close()
            raise DataError(
                f"{path}: has {self.n_records} records where {index.n_records} were counted before; "
                "every machine must see the same database, and nothing may write to it during a run"
            )
        self._index = index

    @property
    def index(self) -> Index:
        """Every step-th key; made by one pass over the keys unless it was given."""
        if self._index is None:
            step = -(-self.n_records // _MAX_INDEX_KEYS)
            with self._transaction.cursor() as cursor:
                keys = islice(cursor.iternext(keys=True, values=False), 0, None, step)
                self._index = Index(self.n_records, step, tuple(bytes(key) for key in keys))
        return self._index

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
                raise DataError(
                    f"{self.path}: ends after {position + len(chunk)} records although it counts {self.n_records}; "
                    "the database is damaged: write it again"
                )
            records += chunk
            self._position = position + wanted
            position = self._position % self.n_records
        return records

    def close(self) -> None:
        """Let go of the database; values read before must not be used any more."""
        if hasattr(self, "_transaction"):
            self._cursor.close()
            self._transaction.abort()
            del self._rest, self._cursor, self._transaction  # they hold the environment open

    def _seek(self, position: int) -> None:
        """Place the cursor on record `position`: to the nearest indexed key at or before it, then step by step."""
        if position == 0:
            found = self._cursor.first()
        else:
            index = self.index
            anchor, steps = divmod(position, index.step)
            found = self._cursor.set_key(index.keys[anchor])
            for _ in range(steps):
                found = found and self._cursor.next()
        if not found:
            raise DataError(
                f"{self.path}: record {position} is not where it was when the database was indexed; "
                "every machine must see the same database, and nothing may write to it during a run"
            )
        self._rest = iter(self._cursor)
        self._position = position


def _open(path: Path) -> lmdb.Environment:
    """The environment at `path`, shared within the process. Raises DataError."""
    file = _data_file(path)
    name = os.path.realpath(file)
    environment = _ENVIRONMENTS.get(name)
    if environment is not None:
        return environment
    try:
        with file.open("rb"):
            pass
        environment = lmdb.open(
            str(file), subdir=False, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=0
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions and owner") from error
    except lmdb.Error as error:
        raise DataError(
            f"{path}: is not an LMDB that can be read ({_reason(error)}); give the database that convert_imageset wrote"
        ) from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = file.stat().st_size
    # Reading a mapped page behind the end of the file would kill the process (SIGBUS). A whole database may be short
    # too, if deletions freed its last pages: 1 of 60 written at random, none of those that only had records added.
    if size < needed:
        environment.close()
        raise DataError(
            f"{path}: is cut short: {size} bytes of {needed}; copy it again, or rewrite it with mdb_copy -c"
        )
    _ENVIRONMENTS[name] = environment
    return environment


def _data_file(path: Path) -> Path:
    """The file of the database that `path`, a folder or that file, names. Raises DataError where there is none."""
    try:
        if path.is_dir():
            names = set(os.listdir(path))
            if "data.mdb" in names:
                return path / "data.mdb"
            if "CURRENT" in names:
                raise DataError(f"{path}: is a LevelDB, which is not read yet; convert it to an LMDB")
            raise DataError(f"{path}: is a folder without data.mdb; give the folder of an LMDB")
        path.stat()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: does not exist; a relative source is looked up from the working directory, "
            "then from the folder of the prototxt"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions and owner") from error
    return path


def _reason(error: lmdb.Error) -> str:
    """What LMDB says, without the path it begins with."""
    return str(error).rsplit(": ", 1)[-1]
