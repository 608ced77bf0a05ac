"""The journal: rows by key and number, and the runs that made them."""

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from distcalib.errors import OutputError
from distcalib.journal.locking import FILE_NAME as LOCK_NAME
from distcalib.journal.locking import FolderLock
from distcalib.journal.schema import NoJournal, check, prepare

FILE_NAME = "distcalib.db"
# Numbers in one query: SQLite takes at least 999 parameters.
_AT_ONCE = 500
# What SQLite says, in its words (its codes came with Python 3.11), and what would do.
_TOLD = {
    "disk is full": "the disk is full; make room and give the same command again, it continues",
    "not a database": "is not a journal of distcalib; move it, or give another --out",
    "malformed": "is damaged; move it, or give another --out",
    "not decode to UTF-8": "is damaged; move it, or give another --out",
    "readonly database": "cannot be written to; give yourself permission, or another --out",
    "unable to open": "cannot be opened; give yourself permission, or another --out",
}


@dataclass(frozen=True)
class Recorded:
    """A row as it was stored, and the actor-seconds that it took."""

    payload: bytes
    seconds: float


@dataclass(frozen=True)
class Run:
    """A command that was run in the folder; see schema.py."""

    number: int
    command: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    host: str
    pid: int
    begun: str
    ended: str | None
    state: str
    verdict: str | None
    n_measured: int
    n_recorded: int


class Journal:
    """The journal of a folder, made if it is not there, for the one process that writes; a context manager.

    Every method raises OutputError where the file cannot be used; what was committed before stays in it.
    """

    def __init__(self, folder: Path, prepared: Callable[[sqlite3.Connection], None] = prepare) -> None:
        self.path = folder / FILE_NAME
        self._made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        self._is_new = not self.path.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written to ({error.strerror}); give another --out") from None
        self._lock = FolderLock(folder)
        try:
            with _said(self.path):
                # Read and written by one thread at a time, which is not always the one that opened it.
                self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                with _said(self.path):
                    self._connection.execute("PRAGMA synchronous = FULL")
                    prepared(self._connection)  # first, for it refuses what is no journal, and that stays as it is
                    self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                    self._connection.execute("UPDATE run SET state = 'killed' WHERE state = 'running'")
                self._opened = os.stat(self.path)
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def rows(self, key: bytes, numbers: Collection[int]) -> dict[int, Recorded]:
        """Those of the rows `numbers` that are there, in any order."""
        recorded: dict[int, Recorded] = {}
        wanted = list(numbers)
        with _said(self.path):
            for begin in range(0, len(wanted), _AT_ONCE):
                part = wanted[begin : begin + _AT_ONCE]
                marks = ",".join("?" * len(part))
                sql = f"SELECT number, payload, seconds FROM result WHERE key = ? AND number IN ({marks})"
                for number, payload, seconds in self._connection.execute(sql, (key, *part)):
                    if not (isinstance(payload, bytes) and isinstance(seconds, float)):
                        raise NoJournal("is damaged; move it, or give another --out")
                    recorded[number] = Recorded(payload, seconds)
        return recorded

    def store(self, key: bytes, rows: Mapping[int, Recorded]) -> None:
        """Commit rows by number: when this returns they are on the disk.  One that is there already stays."""
        values = [(key, number, row.seconds, row.payload) for number, row in rows.items()]
        self.check_in_place()
        with self._transaction():
            self._connection.executemany("INSERT OR IGNORE INTO result VALUES (?, ?, ?, ?)", values)

    def forget(self, rows: Collection[tuple[bytes, int]]) -> None:
        """Take rows out, by key and number."""
        with self._transaction():
            self._connection.executemany("DELETE FROM result WHERE key = ? AND number = ?", rows)

    def check_in_place(self) -> None:
        """Raise OutputError if the file was removed or replaced: SQLite would go on writing where nobody finds it."""
        try:
            status: os.stat_result | None = os.stat(self.path)
        except OSError:
            status = None
        if status is None or not os.path.samestat(status, self._opened) or not self._lock.is_in_place():
            raise OutputError(
                f"{self.path.parent}: {self.path.name} or {LOCK_NAME} was removed or replaced during the run, and what "
                "was measured is lost with it; leave the folder alone, and give the same command again"
            )

    def begin(self, command: str, options: Mapping[str, Any], versions: Mapping[str, str]) -> int:
        """Note that a run begins; its number."""
        values = (command, json.dumps(options), json.dumps(versions), socket.gethostname(), os.getpid(), _now())
        with self._transaction():
            cursor = self._connection.execute(
                "INSERT INTO run (command, options, versions, host, pid, begun, state) "
                "VALUES (?, ?, ?, ?, ?, ?, 'running')",
                values,
            )
        assert cursor.lastrowid is not None, "an INSERT that succeeded has made a row"
        return cursor.lastrowid

    def end(self, number: int, state: str, verdict: str | None, *, n_measured: int, n_recorded: int) -> None:
        """Note how a run ended."""
        values = (_now(), state, verdict, n_measured, n_recorded, number)
        with self._transaction():
            self._connection.execute(
                "UPDATE run SET ended = ?, state = ?, verdict = ?, n_measured = ?, n_recorded = ? WHERE number = ?",
                values,
            )

    def close(self) -> None:
        """Let go of file and folder; twice does no harm.  A new journal in which nothing is of use leaves no trace."""
        try:
            is_useless = self._is_new and not self._is_of_use()
            self._connection.close()
            if is_useless:
                self._remove()
        except sqlite3.Error:  # closed before; or a last checkpoint on a full disk, which the next reader makes
            pass
        finally:
            self._lock.release()
            for folder in self._made:
                with suppress(OSError):  # of use
                    folder.rmdir()

    def _is_of_use(self) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM result) OR EXISTS (SELECT 1 FROM run WHERE state = 'done')"
        return bool(self._connection.execute(sql).fetchone()[0])

    def _remove(self) -> None:
        for ending in ("-wal", "-shm", ""):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _said(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_runs(folder: Path) -> Sequence[Run]:
    """The runs of a folder from the first to the last; also while one is under way.  Raises OutputError."""
    path = folder / FILE_NAME
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{path}: is not a file; move it, or give another --out")
    if not path.is_file():
        raise OutputError(f"{path}: does not exist; no run of distcalib was made in this folder")
    with _said(path):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            check(connection)
            columns = ", ".join(field.name for field in fields(Run))
            rows = connection.execute(f"SELECT {columns} FROM run ORDER BY number").fetchall()
        finally:
            connection.close()
    return [_run(path, row) for row in rows]


def _run(path: Path, row: Sequence[Any]) -> Run:
    """A run from its columns, whose types SQLite does not hold to.  Raises OutputError."""
    said = dict(zip((field.name for field in fields(Run)), row, strict=True))
    try:
        run = Run(**(said | {name: json.loads(said[name]) for name in ("options", "versions")}))
    except (TypeError, ValueError, RecursionError):  # no JSON
        run = None
    if run is None or not (
        all(isinstance(value, str) for value in (run.command, run.host, run.begun, run.state))
        and all(isinstance(value, str | None) for value in (run.ended, run.verdict))
        and all(isinstance(value, int) for value in (run.number, run.pid, run.n_measured, run.n_recorded))
        and all(isinstance(value, dict) for value in (run.options, run.versions))
    ):
        raise OutputError(f"{path}: is damaged; move it, or give another --out")
    return run


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What SQLite raises as a sentence."""
    try:
        yield
    except NoJournal as error:
        raise OutputError(f"{path}: {error}") from None
    except UnicodeDecodeError:  # text of the file that is none
        raise OutputError(f"{path}: is damaged; move it, or give another --out") from None
    except sqlite3.Error as error:
        told = next((said for part, said in _TOLD.items() if part in str(error)), None)
        raise OutputError(f"{path}: {told or f'cannot be used ({error}); give another --out'}") from None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
