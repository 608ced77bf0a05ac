"""The tables of the journal, and how a file of an older version becomes one of this.

The version stands in the file as `user_version`, and that it is a journal at all as `application_id`.

    version  what is new
    1        the first
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing

VERSION = 1
APPLICATION_ID = 0x64634A4C  # "dcJL"

SCHEMA = """
-- A row of a program's results: `key` is the hash of all that decides its bytes, `number` the row's, `payload` the row
-- in a format of its owner, `seconds` the actor-seconds that it took. Never changed once it is there.
CREATE TABLE result (
    key     BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    seconds REAL    NOT NULL,
    payload BLOB    NOT NULL,
    PRIMARY KEY (key, number)
);
-- A command that was run in this folder. `begun` and `ended` are UTC, ISO 8601; `options` and `versions` JSON.
-- `state`: running, done, interrupted, failed; killed if it was found running by a later one.
-- `verdict`: the last line that it printed. The counts are of rows measured by it, and taken from the journal.
CREATE TABLE run (
    number     INTEGER PRIMARY KEY,
    command    TEXT    NOT NULL,
    options    TEXT    NOT NULL,
    versions   TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    begun      TEXT    NOT NULL,
    ended      TEXT,
    state      TEXT    NOT NULL,
    verdict    TEXT,
    n_measured INTEGER NOT NULL DEFAULT 0,
    n_recorded INTEGER NOT NULL DEFAULT 0
);
"""

MIGRATIONS: Mapping[int, str] = {}
"""SQL by the version that it leads away from, to the next one."""


class NoJournal(Exception):
    """The file is something else, or newer than this program; the text says what is, and what would do."""


def prepare(
    connection: sqlite3.Connection,
    schema: str = SCHEMA,
    version: int = VERSION,
    migrations: Mapping[int, str] = MIGRATIONS,
) -> None:
    """Make the tables in an empty file, or bring those of an older version up to date, all or nothing.

    Raises NoJournal, sqlite3.Error.
    """
    file_version = _version(connection)
    if file_version is None:
        _apply(connection, schema, version)
        return
    _check_tables(connection, file_version)
    if file_version > version:
        raise NoJournal(
            f"is of version {file_version}, and this distcalib knows {version}; update it, or give another --out"
        )
    for old in range(file_version, version):
        _apply(connection, migrations[old], old + 1)


def check(connection: sqlite3.Connection) -> None:
    """Raise NoJournal unless the file is a journal of this version."""
    file_version = _version(connection)
    if file_version != VERSION:
        raise NoJournal(f"is of version {file_version or 0}, and this distcalib reads {VERSION}; give another --out")
    _check_tables(connection, file_version)


def _check_tables(connection: sqlite3.Connection, version: int) -> None:
    """Raise NoJournal for a file that calls itself a journal and has other tables: a view in their place may never end,
    and no signal is heard while SQLite computes one. Nothing of the file but its schema is read for that."""
    if version < 1 or (version == VERSION and _tables(connection) != _own_tables()):
        raise NoJournal("is damaged; move it, or give another --out")


def _tables(connection: sqlite3.Connection) -> dict[str, object]:
    """All that the file has by name: of a table its columns, of anything else what it is."""
    contents: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall():
        if kind == "table" and str(sql).upper().split()[:2] == ["CREATE", "TABLE"]:
            columns = connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()
            contents[name] = [(*column[1:4], str(column[4]), *column[5:]) for column in columns]
        else:
            contents[name] = (kind, sql)
    return contents


def _own_tables() -> dict[str, object]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        return _tables(connection)


def _version(connection: sqlite3.Connection) -> int | None:
    """None: the file is empty."""
    application, version, n_tables = (
        int(connection.execute(sql).fetchone()[0])
        for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if application == APPLICATION_ID:
        return version
    if n_tables or application or version:
        raise NoJournal("is a database of another program; move it, or give another --out")
    return None


def _apply(connection: sqlite3.Connection, sql: str, version: int) -> None:
    stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {sql} {stamp} COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.rollback()
        raise
