import os
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


REFUSED = {
    "a text": (_make_text, "is no journal of distcalib; move it, or give another --out"),
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
