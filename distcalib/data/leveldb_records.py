"""Records of a LevelDB, by number.

The manifest lists the tables of each level; of one key, the newest change in any table or log counts. Logs are read
too: Caffe's convert_imageset lets them grow to 256 MB before they become tables, so a small data set is in its log
alone. Only reading, and without a lock: any number of processes may read one database at once.

An index costs a pass over all blocks, since keys stand between the values: 0.7 s for 100,000 records of 3 kB. An
actor with an index reads the keys of the log, 0.4 s and 35 MB for as many records, which is more than Caffe lets a log
grow to; then it reads only the blocks of its shards (scripts/bench/bench_data.py)."""

from __future__ import annotations

import mmap
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from operator import itemgetter
from pathlib import Path

from distcalib.data.leveldb_format import (
    Damaged,
    Entry,
    LogSpan,
    Table,
    chunk,
    log_entries,
    log_records,
    refuse_special,
    varint,
)
from distcalib.data.limits import over_limit
from distcalib.data.looking_up import absent
from distcalib.data.records import Record, Records, key_text
from distcalib.data.source import Index, KeyIndex
from distcalib.errors import DataError

_COMPARATOR = b"leveldb.BytewiseComparator"
_N_LEVELS = 7
_MANIFEST = re.compile(r"MANIFEST-[0-9]+")
_AGAIN = "nothing may write to it during a run; else copy it again, or write it again"


class LevelDbRecords(Records):
    """The records of the LevelDB in the folder `path`.

    Raises DataError in one sentence when there is no usable database, and where a file of it is damaged; the last good
    key is named."""

    def __init__(self, path: Path, index: Index | None = None) -> None:
        super().__init__(path, index)
        _check_folder(path)
        try:
            manifest = _Manifest(path)
            self._levels = manifest.levels
            self._log = sorted(chain.from_iterable(_read_log(file) for file in manifest.logs))
        except Damaged as error:
            raise DataError(f"{path}: {error}; {_AGAIN}") from error

    def close(self) -> None:
        """Let go of the database."""
        self._rest, self._position = iter(()), -1
        self._log, self._levels = [], []

    def _scan(self) -> KeyIndex:
        keys: list[bytes] = []
        n_records, step = 0, 1
        for key, _ in self._all(b""):
            if n_records % step == 0:
                if len(keys) == self.MAX_KEYS:  # how many there will be is not known: every other key goes
                    del keys[1::2]
                    step *= 2
                if n_records % step == 0:
                    keys.append(bytes(key))
            n_records += 1
        if not n_records:
            raise DataError(f"{self.path}: the database is empty; write at least one record into it")
        return KeyIndex(n_records, step, tuple(keys))

    def _from(self, key: bytes | None) -> Iterator[Record] | None:
        records = self._all(key or b"")
        if key is None:
            return records
        first = next(records, None)
        return chain([first], records) if first is not None and first[0] == key else None

    def _all(self, key: bytes) -> Iterator[Record]:
        """The records from `key` on: of each key the newest change, unless that deletes it."""
        last: bytes | None = None
        try:
            for entry in self._changes(key):
                if entry.key == last:
                    continue
                last = entry.key
                if entry.is_value:
                    yield entry.key, entry.value.read() if isinstance(entry.value, LogSpan) else entry.value
        except Damaged as error:
            place = "before the first record" if last is None else f"after record {key_text(last)}"
            raise DataError(f"{self.path}: {error}, {place}; {_AGAIN}") from error

    def _changes(self, key: bytes) -> Iterator[Entry]:
        """All changes from `key` on, sorted. Tables of level 0 overlap; those of a deeper level follow one another."""
        start = bisect_left(self._log, (key,))
        sources: list[Iterator[Entry]] = [iter(self._log[start:])] if start < len(self._log) else []
        sources += [table.entries(key) for table in self._levels[0] if table.last >= key]
        for level in self._levels[1:]:
            tables = [table for table in level if table.last >= key]
            if tables:
                sources.append(chain.from_iterable(table.entries(key) for table in tables))
        return merge(*sources, key=itemgetter(0, 1))


class _Manifest:
    """What CURRENT names: the tables of each level, and the logs that are not in tables yet. Raises Damaged."""

    def __init__(self, folder: Path) -> None:
        self._tables: dict[tuple[int, int], tuple[bytes, bytes]] = {}  # level and number -> first and last key
        self._comparator = b""
        self._log_number = self._old_log_number = 0
        name = _contents(folder / "CURRENT").decode("utf-8", "replace").strip()
        if not _MANIFEST.fullmatch(name):
            raise Damaged(f"CURRENT names {name[:40]!r} in place of a MANIFEST-NUMBER" if name else "CURRENT is empty")
        for _, edit in log_records(_contents(folder / name), name):
            try:
                self._apply(edit)
            except IndexError as error:
                raise Damaged(f"{name} is not a manifest of LevelDB, or is damaged") from error
        if self._comparator != _COMPARATOR:
            order = self._comparator.decode("utf-8", "replace") or "no order"
            raise Damaged(f"{name} sorts keys by {order}, not by {_COMPARATOR.decode()}")
        files = sorted(os.listdir(folder))
        names = {int(file[:-4]): file for file in files if file[-4:] in (".ldb", ".sst") and file[:-4].isdigit()}
        missing = sorted({number for _, number in self._tables} - set(names))
        if missing:
            raise Damaged(f"lacks {', '.join(f'{number:06d}.ldb' for number in missing)}")
        self.levels: list[list[Table]] = [[] for _ in range(_N_LEVELS)]
        for (level, number), (first, last) in self._tables.items():
            self.levels[level].append(Table(folder / names[number], first, last))
        for tables in self.levels:
            tables.sort(key=lambda table: table.first)
        logs = [file for file in files if file.endswith(".log") and file[:-4].isdigit()]
        self.logs = [folder / file for file in logs if self._is_live(int(file[:-4]))]

    def _is_live(self, log: int) -> bool:
        return log >= self._log_number or log == self._old_log_number

    def _apply(self, edit: bytes) -> None:
        """One change of the list: fields, each with its tag before it. IndexError for what is none."""
        at = 0
        while at < len(edit):
            tag, at = varint(edit, at)
            if tag == 1:
                comparator, at = chunk(edit, at)
                self._comparator = bytes(comparator)
            elif tag in (2, 3, 4, 9):  # a log's number, the next file's, the last sequence number, the old log's
                number, at = varint(edit, at)
                if tag == 2:
                    self._log_number = number
                elif tag == 9:
                    self._old_log_number = number
            elif tag == 5:  # where compaction goes on
                _, at = varint(edit, at)
                _, at = chunk(edit, at)
            elif tag in (6, 7):
                level, at = varint(edit, at)
                number, at = varint(edit, at)
                if tag == 6:
                    self._tables.pop((level, number), None)
                    continue
                _, at = varint(edit, at)  # size
                first, at = chunk(edit, at)
                last, at = chunk(edit, at)
                if level >= _N_LEVELS:
                    raise IndexError
                self._tables[level, number] = bytes(first[:-8]), bytes(last[:-8])
            else:
                raise IndexError


def _read_log(path: Path) -> Sequence[Entry]:
    """The changes in a log; their values stay in the file. Raises Damaged."""
    refuse_special(path)
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return []
            log = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return list(log_entries(log, path.name))
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error


def _contents(path: Path) -> bytes:
    """A small file. Raises Damaged."""
    refuse_special(path)
    try:
        if wrong := over_limit(path.stat().st_size):
            raise Damaged(f"{path.name} is {wrong}")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error


def _check_folder(path: Path) -> None:
    """Raise DataError where `path` is not the folder of a LevelDB."""
    try:
        names = set(os.listdir(path))
    except FileNotFoundError as error:
        raise absent(path) from error
    except NotADirectoryError as error:
        raise DataError(f"{path}: is a file; give the folder of a LevelDB, or write backend: LMDB") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions and owner") from error
    if "CURRENT" in names:
        return
    if "data.mdb" in names:
        raise DataError(f"{path}: is an LMDB; write backend: LMDB (LEVELDB is the default)")
    raise DataError(f"{path}: is a folder without CURRENT; give the folder of a LevelDB")
