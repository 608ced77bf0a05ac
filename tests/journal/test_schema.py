import sqlite3
from pathlib import Path

import pytest

from distcalib.journal import FILE_NAME, Journal, Recorded, read_runs
from distcalib.journal.schema import MIGRATIONS, SCHEMA, VERSION, NoJournal, prepare

ASSETS = Path(__file__).parent / "assets"


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_journal_opens_every_version_there_was(version: int, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.executescript((ASSETS / f"v{version}.sql").read_text())
    connection.close()
    with Journal(tmp_path) as journal:
        assert journal.rows(b"k" * 32, range(10)) == {0: Recorded(b"zero", 0.5), 7: Recorded(b"seven", 0.25)}
    [run] = read_runs(tmp_path)
    assert (run.command, run.options, run.state, run.verdict) == (
        "calibrate net.prototxt",
        {"iterations": 18},
        "done",
        "Tolerance met",
    )


def test_migrations_lead_from_every_version_to_this() -> None:
    assert set(MIGRATIONS) == set(range(1, VERSION))


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def test_prepare_migrates_step_by_step() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection)
    steps = {
        VERSION: "CREATE TABLE a (x); INSERT INTO a VALUES (1);",
        VERSION + 1: "CREATE TABLE b (x); INSERT INTO b SELECT x + 1 FROM a;",
    }
    prepare(connection, SCHEMA, VERSION + 2, {**MIGRATIONS, **steps})
    assert _tables(connection) == ["a", "b", "result", "run"]
    assert connection.execute("SELECT x FROM b").fetchall() == [(2,)]
    with pytest.raises(NoJournal, match=f"is of version {VERSION + 2}, and this distcalib knows {VERSION}"):
        prepare(connection)


def test_prepare_leaves_a_file_as_it_was_when_a_migration_fails() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection)
    with pytest.raises(sqlite3.OperationalError):
        prepare(connection, SCHEMA, VERSION + 1, {**MIGRATIONS, VERSION: "CREATE TABLE a (x); CREATE TABLE run (x);"})
    assert _tables(connection) == ["result", "run"]
    prepare(connection)  # still of this version
