"""Records of an LMDB, by number.

100,000 records of 3 kB are indexed in 0.03 s, for their values are on pages of their own, which the pass does not
touch; with the index a shard is entered in 0.2 ms (scripts/bench/bench_data.py).

Opened for reading only and without a lock file, so that a database on a read-only file system works and many actors
of a machine share its pages; nothing may write to it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb
import numpy as np

from distcalib.data.looking_up import absent
from distcalib.data.records import SAME_DATA, Record, Records
from distcalib.data.source import Index, KeyIndex
from distcalib.data.walking import walk
from distcalib.errors import DataError

# LMDB must not be opened twice in one process (the second close would drop the locks of the first, and the binding
# refuses it): sources on the same database share the environment. Weak, so that the last one to go closes it.
_AT_A_TIME = 1024
_ENVIRONMENTS: WeakValueDictionary[str, lmdb.Environment] = WeakValueDictionary()


class LmdbRecords(Records):
    """The records of the LMDB at `path` (its folder, or the file in it); they are views into the mapped file.

    Raises DataError in one sentence when there is no usable database, or when it does not fit `index`."""

    def __init__(self, path: Path, index: Index | None = None) -> None:
        super().__init__(path, index)
        self._transaction = _open(path, is_known=index is not None).begin(buffers=True)
        self._cursor = self._transaction.cursor()
        n_records: int = self._transaction.stat()["entries"]
        if n_records == 0:
            self.close()
            raise DataError(f"{path}: the database is empty; write at least one record into it")
        if index is not None and index.n_records != n_records:
            self.close()
            raise DataError(f"{path}: has {n_records} records where {index.n_records} were counted before; {SAME_DATA}")
        self._n_records = n_records

    @property
    def n_records(self) -> int:
        """How many there are, at least 1; LMDB counts them itself."""
        return self._n_records

    def close(self) -> None:
        """Let go of the database; values read before must not be used any more."""
        if hasattr(self, "_transaction"):
            self._cursor.close()
            self._transaction.abort()
            del self._rest, self._cursor, self._transaction  # they hold the environment open

    def _scan(self) -> KeyIndex:
        step = -(-self.n_records // self.MAX_KEYS)
        with self._transaction.cursor() as cursor:
            keys = islice(cursor.iternext(keys=True, values=False), 0, None, step)
            return KeyIndex(self.n_records, step, tuple(bytes(key) for key in keys))

    def _from(self, key: bytes | None) -> Iterator[Record] | None:
        is_there = self._cursor.first() if key is None else self._cursor.set_key(key)
        return iter(self._cursor) if is_there else None


def _open(path: Path, is_known: bool) -> lmdb.Environment:
    """The environment at `path`, shared within the process; walked first unless it `is_known`. Raises DataError."""
    file = data_file(path)
    name = os.path.realpath(file)
    environment = _ENVIRONMENTS.get(name)
    if environment is not None:
        return environment
    try:
        with file.open("rb") as opened:
            is_empty = not os.fstat(opened.fileno()).st_size
        if is_empty:
            raise DataError(f"{path}: {file.name} is an empty file; write the database again, or copy it again")
        if not is_known:
            walk(_walked(path, file), "write it again, or copy it again")
        environment = _environment(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions and owner") from error
    except lmdb.Error as error:
        raise DataError(
            f"{path}: is not an LMDB that can be read ({reason_of(error)}); "
            "give the database that convert_imageset wrote"
        ) from error
    needed, size = _sizes(environment, file)
    # Reading a mapped page behind the end of the file would kill the process (SIGBUS). A whole database may be short
    # too, if deletions freed its last pages: 1 of 60 written at random, none of those that only had records added.
    if size < needed:
        environment.close()
        raise DataError(
            f"{path}: is cut short: {size} bytes of {needed}; copy it again, or rewrite it with mdb_copy -c"
        )
    _ENVIRONMENTS[name] = environment
    return environment


def _environment(file: Path) -> lmdb.Environment:
    return lmdb.open(
        str(file), subdir=False, readonly=True, lock=False, readahead=False, create=False, max_spare_txns=0
    )


def _sizes(environment: lmdb.Environment, file: Path) -> tuple[int, int]:
    """The bytes that the database needs, and those of the file."""
    return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"], file.stat().st_size


def _walked(path: Path, file: Path) -> Iterator[str]:
    """Go through all records, in a child process. Of a value nothing is read: that it lies in the file is seen from
    where it is in memory, for to touch the values of a large database would take minutes. What _open tells better, it
    is left to tell."""
    yield str(path)
    try:
        environment = _environment(file)
    except lmdb.Error:
        return
    needed, size = _sizes(environment, file)
    if size < needed:
        return
    begin = _mapped_at(file)
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        left = transaction.stat()["entries"]
        for number, (_, value) in enumerate(cursor.iternext()):
            at = np.frombuffer(value, np.uint8).__array_interface__["data"][0] if len(value) else begin
            if not begin <= at <= at + len(value) <= begin + size:
                raise ValueError(f"the value of record {number} lies outside the file")
            left -= 1
            if left < 0:
                raise ValueError("it has more records than it counts")
            if number % _AT_A_TIME == 0:
                yield str(path)


def _mapped_at(file: Path) -> int:
    """Where the file is in the memory of this process."""
    inode = str(file.stat().st_ino)
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return min(int(line.partition("-")[0], 16) for line in maps if line.split()[4] == inode)


def data_file(path: Path) -> Path:
    """The file of the database that `path`, a folder or that file, names. Raises DataError if neither exists."""
    try:
        if path.is_dir():
            names = set(os.listdir(path))
            if "data.mdb" in names:
                return path / "data.mdb"
            if "CURRENT" in names:
                raise DataError(f"{path}: is a LevelDB; write backend: LEVELDB, or give the folder of an LMDB")
            raise DataError(f"{path}: is a folder without data.mdb; give the folder of an LMDB")
        path.stat()
    except FileNotFoundError as error:
        raise absent(path) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions and owner") from error
    return path


def reason_of(error: lmdb.Error) -> str:
    """What LMDB says, without the path it begins with."""
    return str(error).rsplit(": ", 1)[-1]
