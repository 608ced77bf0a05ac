import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distcalib.errors import OutputError
from distcalib.journal import FILE_NAME, Journal, Recorded, read_runs
from distcalib.journal.schema import prepare

KEY, OTHER = b"k" * 32, b"o" * 32


def test_journal_gives_rows_by_key_and_number(tmp_path: Path) -> None:
    rows = {number: Recorded(bytes([number % 256]), number / 8) for number in range(1200)}
    with Journal(tmp_path / "new" / "folder") as journal:
        journal.store(KEY, rows)
        assert journal.rows(OTHER, [0]) == {}
    with Journal(tmp_path / "new" / "folder") as journal:
        assert journal.rows(KEY, range(-5, 2000)) == rows
        assert journal.rows(KEY, [7, 3]) == {3: rows[3], 7: rows[7]}
        assert journal.rows(KEY, []) == {}


def test_journal_never_changes_a_row(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.store(KEY, {1: Recorded(b"first", 1.0)})
        journal.store(KEY, {1: Recorded(b"second", 2.0), 2: Recorded(b"new", 2.0)})
        assert journal.rows(KEY, [1, 2]) == {1: Recorded(b"first", 1.0), 2: Recorded(b"new", 2.0)}


def test_journal_has_what_was_stored_before_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from distcalib.journal import Journal, Recorded\n"
        "journal = Journal(Path(sys.argv[1])); journal.begin('calibrate', {}, {})\n"
        "journal.store(b'k' * 32, {3: Recorded(b'three', 1.5)})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert [run.state for run in read_runs(tmp_path)] == ["running"]
    with Journal(tmp_path) as journal:  # no stale lock
        assert journal.rows(KEY, [3]) == {3: Recorded(b"three", 1.5)}
        journal.begin("calibrate", {}, {})
        assert [run.state for run in read_runs(tmp_path)] == ["killed", "running"]


def test_read_runs_tells_how_each_went(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        number = journal.begin("calibrate net", {"iterations": 3, "out": "x"}, {"distcalib": "1"})
        journal.end(number, "done", "met", n_measured=4, n_recorded=2)
    [run] = read_runs(tmp_path)
    assert (run.number, run.command, run.options) == (1, "calibrate net", {"iterations": 3, "out": "x"})
    assert (run.versions, run.pid, run.state, run.verdict) == ({"distcalib": "1"}, os.getpid(), "done", "met")
    assert (run.n_measured, run.n_recorded) == (4, 2)
    assert run.ended is not None
    assert run.begun <= run.ended


def test_read_runs_says_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "other" / FILE_NAME).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"distcalib\.db: is not a file; move it, or give another --out"):
        read_runs(tmp_path / "other")
    with pytest.raises(OutputError, match="does not exist; no run of distcalib was made in this folder"):
        read_runs(tmp_path)


def test_journal_on_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    def prepare_small(connection: sqlite3.Connection) -> None:
        prepare(connection)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    with Journal(tmp_path, prepare_small) as journal:
        journal.store(KEY, {1: Recorded(b"small", 1.0)})
        with pytest.raises(OutputError, match=r"distcalib\.db: the disk is full; make room and give the same command"):
            journal.store(KEY, {2: Recorded(b"also small", 1.0), 3: Recorded(bytes(2**20), 1.0)})
        assert journal.rows(KEY, [1, 2, 3]) == {1: Recorded(b"small", 1.0)}
    with Journal(tmp_path) as journal:
        journal.store(KEY, {3: Recorded(bytes(2**20), 1.0)})
        assert journal.rows(KEY, [1, 2, 3]).keys() == {1, 3}


def test_journal_leaves_no_trace_where_nothing_is_of_use(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "folder") as journal:
        journal.begin("calibrate", {}, {})
    assert not any(tmp_path.iterdir())
    for state, is_kept in (("failed", False), ("done", True), ("failed", True)):  # one that was there before is kept
        with Journal(tmp_path) as journal:
            journal.end(journal.begin("calibrate", {}, {}), state, None, n_measured=0, n_recorded=0)
        assert (tmp_path / FILE_NAME).exists() is is_kept


def _make_text(path: Path) -> None:
    path.write_text("no database, and longer than the header of one would be" * 20)


def _make_foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE run (a)")
    connection.close()


def _make_newer(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    prepare(connection)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_view(path: Path) -> None:
    """In the place of a table a view that never ends: SQLite would compute it, deaf to every signal."""
    connection = sqlite3.connect(path, isolation_level=None)
    prepare(connection)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(run)")]
    connection.execute("DROP TABLE run")
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
    connection.execute(f"CREATE VIEW run AS {endless} SELECT {', '.join(f'x AS {name}' for name in columns)} FROM c")
    connection.close()


def _altered(sql: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        prepare(connection)
        connection.executescript(sql)
        connection.close()

    return make


REFUSED = {
    "a view that never ends": (_make_view, "is damaged; move it, or give another --out"),
    "a column too many": (_altered("ALTER TABLE run ADD COLUMN x"), "is damaged; move it, or give another --out"),
    "a trigger": (
        _altered("CREATE TRIGGER t AFTER INSERT ON result BEGIN DELETE FROM result; END"),
        "is damaged; move it, or give another --out",
    ),
    "another table": (_altered("CREATE TABLE other (a)"), "is damaged; move it, or give another --out"),
    "version 0": (_altered("PRAGMA user_version = 0"), "is damaged; move it, or give another --out"),
    "version -1": (_altered("PRAGMA user_version = -1"), "is damaged; move it, or give another --out"),
    "a text": (_make_text, "is not a journal of distcalib; move it, or give another --out"),
    "another program's": (_make_foreign, "is a database of another program; move it, or give another --out"),
    "newer": (_make_newer, "is of version 99, and this distcalib knows 1; update it, or give another --out"),
    "a folder": (_make_folder, "cannot be opened; give yourself permission, or another --out"),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=list(REFUSED))
def test_journal_refuses_what_is_none(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(OutputError) as refused:
        Journal(tmp_path)
    assert str(refused.value) == f"{path}: {said}"
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {file.name for file in tmp_path.iterdir()} == {FILE_NAME}  # no lock is left


_RUN = "INSERT INTO run VALUES (1, {command}, {options}, '{{}}', 'host', 1, 'begun', NULL, 'done', NULL, 0, 0)"
DAMAGED_ROWS = {
    "no JSON": _RUN.format(command="'c'", options="'{'"),
    "no object": _RUN.format(command="'c'", options="'[1]'"),
    "a blob": _RUN.format(command="x'00ff'", options="'{}'"),
    "no text": _RUN.format(command="CAST(x'ff' AS TEXT)", options="'{}'"),
    "deep JSON": _RUN.format(command="'c'", options="'" + "[" * 100_000 + "'"),
}


@pytest.mark.parametrize("sql", DAMAGED_ROWS.values(), ids=list(DAMAGED_ROWS))
def test_read_runs_refuses_rows_that_are_none(sql: str, tmp_path: Path) -> None:
    _altered(sql)(tmp_path / FILE_NAME)
    with pytest.raises(OutputError, match=r"distcalib.db: is damaged; move it, or give another --out$"):
        read_runs(tmp_path)


def test_journal_refuses_a_payload_that_is_none(tmp_path: Path) -> None:
    _altered("INSERT INTO result VALUES (CAST('k' AS BLOB), 1, 0.5, 'text')")(tmp_path / FILE_NAME)
    with Journal(tmp_path) as journal, pytest.raises(OutputError, match=r"distcalib.db: is damaged"):
        journal.rows(b"k", [1])


@pytest.mark.parametrize("what", ["folder", "journal", "lock", "another journal"])
def test_journal_notices_that_it_was_removed(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with Journal(folder) as journal:
        journal.store(KEY, {1: Recorded(b"first", 1.0)})
        if what == "folder":
            shutil.rmtree(folder)
        elif what == "lock":
            (folder / "distcalib.lock").unlink()
        else:
            (folder / FILE_NAME).unlink()
        if what == "another journal":
            (folder / FILE_NAME).touch()
        with pytest.raises(OutputError, match=r"out: distcalib.db or distcalib.lock was removed or replaced during"):
            journal.store(KEY, {2: Recorded(b"second", 1.0)})
