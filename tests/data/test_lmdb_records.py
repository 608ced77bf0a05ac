from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from distcalib.data.lmdb_records import LmdbRecords
from distcalib.data.source import KeyIndex
from distcalib.errors import DataError
from tests.data.databases import write_lmdb


def made(folder: Path, n: int) -> Path:
    return write_lmdb(folder, ((b"%08d" % i, b"value %d" % i) for i in range(n)))


def numbers(records: LmdbRecords, first: int, count: int) -> list[int]:
    return [int(bytes(value).split()[1]) for _, value in records.read(first, count)]


def test_read_of_the_file_in_the_folder_is_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 3)
    records = LmdbRecords(folder / "data.mdb")
    assert numbers(records, 0, 3) == [0, 1, 2]


def test_two_sources_share_a_database(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 5)
    first, second = LmdbRecords(folder), LmdbRecords(folder / "data.mdb")
    assert numbers(first, 1, 2) == numbers(second, 1, 2) == [1, 2]
    first.close()
    first.close()
    assert numbers(second, 3, 2) == [3, 4]
    second.close()
    lmdb.open(str(folder)).close()  # nobody holds it any more


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 5)
    (folder / "lock.mdb").unlink()
    folder.chmod(0o555)
    (folder / "data.mdb").chmod(0o444)
    assert numbers(LmdbRecords(folder), 0, 1) == [0]
    assert sorted(os.listdir(folder)) == ["data.mdb"]


def _missing(folder: Path) -> None:
    shutil.rmtree(folder)


def _no_file(folder: Path) -> None:
    (folder / "data.mdb").unlink()


def _leveldb(folder: Path) -> None:
    _no_file(folder)
    (folder / "CURRENT").touch()


def _empty(folder: Path) -> None:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.drop(environment.open_db(None, transaction), delete=False)


def _no_bytes(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(b"")


def _text(folder: Path) -> None:
    (folder / "data.mdb").write_text("not a database " * 1000)


def _cut(folder: Path) -> None:
    os.truncate(folder / "data.mdb", 2 * 4096 + 100)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_missing, "does not exist; a relative source is looked up from the working directory, then"),
        (_no_file, "is a folder without data.mdb; give the folder of an LMDB"),
        (_leveldb, "is a LevelDB; write backend: LEVELDB, or give the folder of an LMDB"),
        (_empty, "the database is empty; write at least one record"),
        (_no_bytes, "data.mdb is an empty file; write the database again, or copy it again"),
        (_text, "is not an LMDB that can be read (File is not an LMDB file); give"),
        (_cut, "is cut short: 8292 bytes of "),
    ],
    ids=lambda value: value.__name__[1:] if callable(value) else "",
)
def test_unusable_database_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    folder = made(tmp_path / "db", 100)
    spoil(folder)
    with pytest.raises(DataError) as error:
        LmdbRecords(folder)
    assert str(error.value).startswith(f"{folder}: {sentence}")
    assert "\n" not in str(error.value)


def test_unreadable_database_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "db", 1)

    def refuse(*_: object, **__: object) -> None:  # chmod does not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="db: cannot be read: Permission denied; check its permissions and owner"):
        LmdbRecords(folder)


def test_index_of_another_number_of_records_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 10)
    with pytest.raises(DataError, match="has 10 records where 11 were counted before; every machine must see the same"):
        LmdbRecords(folder, KeyIndex(11, 1, (b"a",) * 11))
