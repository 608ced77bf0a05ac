"""What every database backend must do; each test runs with each of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distcalib.data.leveldb_records import LevelDbRecords
from distcalib.data.lmdb_records import LmdbRecords
from distcalib.data.records import Records, key_text
from distcalib.data.source import Index, KeyIndex, RowIndex
from distcalib.errors import DataError
from tests.data.databases import write_leveldb, write_lmdb

KEYS: dict[str, Callable[[int], str]] = {
    "convert_cifar": "{:05d}".format,
    "convert_imageset": "{:08d}_class/image name {}.JPEG".replace("{}", "").format,
    "longer and longer": lambda i: "x" * (i + 1),
}


@dataclass(frozen=True)
class Backend:
    write: Callable[[Path, Iterable[tuple[bytes, bytes]]], Path]
    open: Callable[[Path, Index | None], Records]

    def made(self, folder: Path, n: int, key: Callable[[int], str] = "{:08d}".format) -> Path:
        return self.write(folder, ((key(i).encode(), b"value %d" % i) for i in range(n)))


BACKENDS = {"LMDB": Backend(write_lmdb, LmdbRecords), "LevelDB": Backend(write_leveldb, LevelDbRecords)}


@pytest.fixture(params=BACKENDS.values(), ids=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    assert isinstance(request.param, Backend)
    return request.param


def numbers(records: Records, first: int, count: int) -> list[int]:
    return [int(bytes(value).split()[1]) for _, value in records.read(first, count)]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_read_gives_records_by_number_and_wraps_around(
    backend: Backend, tmp_path: Path, n: int, key: Callable[[int], str]
) -> None:
    records = backend.open(backend.made(tmp_path / "db", n, key), None)
    for first in (0, 1, n - 1, n, 3 * n + 2, 0):
        for count in (1, 3, n, 2 * n + 1):
            assert numbers(records, first, count) == [(first + i) % n for i in range(count)]
    records.close()
    records.close()


def test_first_may_be_read_at_any_time(backend: Backend, tmp_path: Path) -> None:
    records = backend.open(backend.made(tmp_path / "db", 5), None)
    for _ in range(2):
        assert bytes(records.first()[1]) == b"value 0"
        assert numbers(records, 2, 2) == [2, 3]
    assert bytes(records.first()[1]) == b"value 0"
    assert numbers(records, 4, 2) == [4, 0]


@pytest.mark.parametrize("n", [1, 8, 9, 17, 100])
def test_index_holds_every_step_th_key(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 8)
    index = backend.open(backend.made(tmp_path / "db", n), None).index
    assert index == KeyIndex(n, index.step, tuple(b"%08d" % i for i in range(0, n, index.step)))
    assert n / 8 <= index.step < max(2, n / 4)


def test_index_of_a_million_records_is_small() -> None:
    n_keys = Records.MAX_KEYS
    keys = tuple(b"%08d_n01440764/n01440764_%05d.JPEG" % (i, i) for i in range(n_keys))
    assert len(pickle.dumps(KeyIndex(1_200_000, 293, keys))) < 300_000


def test_given_index_is_used_and_nothing_is_scanned(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 8)
    folder = backend.made(tmp_path / "db", 50)
    index = pickle.loads(pickle.dumps(backend.open(folder, None).index))

    def scan(_: Records) -> None:
        raise AssertionError

    monkeypatch.setattr(LmdbRecords, "_scan", scan)
    monkeypatch.setattr(LevelDbRecords, "_scan", scan)
    records = backend.open(folder, index)
    assert records.index is index
    for first in (49, 13, 0, 27):
        assert numbers(records, first, 10) == [(first + i) % 50 for i in range(10)]


def test_continuing_seeks_once(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = backend.open(backend.made(tmp_path / "db", 100), None)
    seeks: list[int] = []
    seek = records._seek

    def counted(position: int) -> None:
        seeks.append(position)
        seek(position)

    monkeypatch.setattr(records, "_seek", counted)
    assert [n for first in range(0, 80, 4) for n in numbers(records, first, 4)] == list(range(80))
    assert seeks == [0]


def test_two_sources_share_a_database(backend: Backend, tmp_path: Path) -> None:
    folder = backend.made(tmp_path / "db", 5)
    first, second = backend.open(folder, None), backend.open(folder, None)
    assert numbers(first, 1, 2) == numbers(second, 1, 2) == [1, 2]
    first.close()
    assert numbers(second, 3, 2) == [3, 4]


def test_missing_database_is_one_sentence(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        backend.open(tmp_path / "db", None)
    assert str(error.value) == (
        f"{tmp_path}/db: does not exist; a relative source is looked up from the working directory, "
        "then from the folder of the prototxt"
    )


def test_index_of_other_data_is_refused(backend: Backend, tmp_path: Path) -> None:
    folder = backend.made(tmp_path / "db", 10)
    for position, keys in ((7, (b"00000000", b"nothing")), (4, (b"nothing", b"00000005")), (9, (b"", b"00000007"))):
        records = backend.open(folder, KeyIndex(10, 5, keys))
        with pytest.raises(DataError, match=rf"record {position} is not where it was when the data was indexed; every"):
            records.read(position, 1)
    with pytest.raises(TypeError, match="an index of keys is wanted, not RowIndex"):
        backend.open(folder, RowIndex(10, ()))


@pytest.mark.parametrize(
    ("key", "text"), [(b"00000042", "'00000042'"), (b"a/\xc3\xa9.png", "'a/é.png'"), (b"\x00\xff", "0x00ff")]
)
def test_key_text_is_readable(key: bytes, text: str) -> None:
    assert key_text(key) == key_text(memoryview(key)) == text
