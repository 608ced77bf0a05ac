from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from distcalib.data import lmdb_records
from distcalib.data.lmdb_records import LmdbRecords, key_text
from distcalib.data.source import Index
from distcalib.errors import DataError
from tests.data.databases import write_lmdb

KEYS: dict[str, Callable[[int], str]] = {
    "convert_cifar": "{:05d}".format,
    "convert_imageset": "{:08d}_class/image name {}.JPEG".replace("{}", "").format,
    "longer and longer": lambda i: "x" * (i + 1),
}


def made(folder: Path, n: int, key: Callable[[int], str] = "{:08d}".format) -> Path:
    return write_lmdb(folder, ((key(i).encode(), b"value %d" % i) for i in range(n)))


def numbers(records: LmdbRecords, first: int, count: int) -> list[int]:
    return [int(bytes(value).split()[1]) for _, value in records.read(first, count)]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_read_gives_records_by_number_and_wraps_around(tmp_path: Path, n: int, key: Callable[[int], str]) -> None:
    records = LmdbRecords(made(tmp_path / "db", n, key))
    for first in (0, 1, n - 1, n, 3 * n + 2, 0):
        for count in (1, 3, n, 2 * n + 1):
            assert numbers(records, first, count) == [(first + i) % n for i in range(count)]
    records.close()


def test_read_of_the_file_in_the_folder_is_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 3)
    records = LmdbRecords(folder / "data.mdb")
    assert numbers(records, 0, 3) == [0, 1, 2]


@pytest.mark.parametrize(("n", "step"), [(1, 1), (8, 1), (9, 2), (17, 3)])
def test_index_holds_every_step_th_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, step: int) -> None:
    monkeypatch.setattr(lmdb_records, "_MAX_INDEX_KEYS", 8)
    index = LmdbRecords(made(tmp_path / "db", n)).index
    assert index == Index(n, step, tuple(b"%08d" % i for i in range(0, n, step)))


def test_index_of_a_million_records_is_small() -> None:
    n_keys = lmdb_records._MAX_INDEX_KEYS
    keys = tuple(b"%08d_n01440764/n01440764_%05d.JPEG" % (i, i) for i in range(n_keys))
    assert len(pickle.dumps(Index(1_200_000, 293, keys))) < 300_000


def test_given_index_is_used_and_nothing_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_records, "_MAX_INDEX_KEYS", 8)
    folder = made(tmp_path / "db", 50)
    index = pickle.loads(pickle.dumps(LmdbRecords(folder).index))
    records = LmdbRecords(folder, index)
    assert records.index is index
    for first in (49, 13, 0, 27):
        assert numbers(records, first, 10) == [(first + i) % 50 for i in range(10)]


def test_continuing_needs_no_index(tmp_path: Path) -> None:
    records = LmdbRecords(made(tmp_path / "db", 10))
    assert [number for first in range(0, 30, 4) for number in numbers(records, first, 4)] == [i % 10 for i in range(32)]
    assert records._index is None


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
        (_leveldb, "is a LevelDB, which is not read yet; convert it to an LMDB"),
        (_empty, "the database is empty; write at least one record"),
        (_no_bytes, "is not an LMDB that can be read"),
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


def test_index_of_another_database_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "db", 10)
    with pytest.raises(DataError, match="has 10 records where 11 were counted before; every machine must see the same"):
        LmdbRecords(folder, Index(11, 1, (b"a",) * 11))
    records = LmdbRecords(folder, Index(10, 5, (b"00000000", b"nothing")))
    with pytest.raises(DataError, match="record 7 is not where it was when the database was indexed"):
        records.read(7, 1)


@pytest.mark.parametrize(
    ("key", "text"), [(b"00000042", "'00000042'"), (b"a/\xc3\xa9.png", "'a/é.png'"), (b"\x00\xff", "0x00ff")]
)
def test_key_text_is_readable(key: bytes, text: str) -> None:
    assert key_text(key) == key_text(memoryview(key)) == text
