"""The reader against databases that LevelDB itself wrote: three in the repository, and any number where plyvel is."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distcalib.data.leveldb_records import LevelDbRecords
from distcalib.data.records import Records
from distcalib.errors import DataError
from tests.data.databases import LEVELDBS, Contents, leveldb_contents, log_of, varint, write_leveldb, write_lmdb

ROOT = Path(__file__).resolve().parents[2]


def read_all(records: Records) -> list[tuple[bytes, bytes]]:
    return [(bytes(key), bytes(value)) for key, value in records.read(0, records.n_records)]


@pytest.mark.parametrize("name", ["caffe", "levels", "plain"])
def test_read_is_what_leveldb_wrote(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 16)
    expected = list(leveldb_contents(name).items())
    records = LevelDbRecords(LEVELDBS / name)
    assert read_all(records) == expected
    again = LevelDbRecords(LEVELDBS / name, records.index)
    for first in (149, 3, 77, 16, 0):
        got = [(bytes(key), bytes(value)) for key, value in again.read(first, 5)]
        assert got == [expected[(first + i) % len(expected)] for i in range(5)]


@pytest.mark.parametrize("compression", ["snappy", None])
@pytest.mark.parametrize("seed", range(6))
def test_read_is_what_leveldb_reads(tmp_path: Path, seed: int, compression: str | None) -> None:
    plyvel = pytest.importorskip("plyvel", reason="plyvel has no wheel for this Python")
    draw = random.Random(seed)
    expected: Contents = {}
    for _ in range(5):
        options = {"write_buffer_size": 65536, "block_size": draw.choice([256, 4096, 65536])}
        with plyvel.DB(str(tmp_path / "db"), create_if_missing=True, compression=compression, **options) as database:
            for _ in range(draw.choice([0, 5, 1500])):
                key = b"%05d" % draw.randrange(2000) + b"x" * draw.choice([0, 0, 1, 200])
                if draw.random() < 0.2:
                    database.delete(key)
                    expected.pop(key, None)
                else:
                    noise, run = draw.choice([0, 5, 100, 300]), draw.choice([0, 3, 1000, 1000 if seed else 70000])
                    expected[key] = draw.randbytes(noise) + b"a" * run
                    database.put(key, expected[key])
            if draw.random() < 0.3:
                database.compact_range()
    records = LevelDbRecords(tmp_path / "db")
    assert read_all(records) == sorted(expected.items())
    first = draw.randrange(len(expected))
    again = LevelDbRecords(tmp_path / "db", records.index)
    assert bytes(again.read(first, 1)[0][0]) == sorted(expected)[first]


READER = """
import sys
from pathlib import Path
from distcalib.data.leveldb_records import LevelDbRecords
records = LevelDbRecords(Path(sys.argv[1]))
print(records.n_records, flush=True)
sys.stdin.readline()  # until all of them have opened it
print(sum(len(value) for _, value in records.read(0, records.n_records)))
"""


def test_processes_read_a_database_at_once(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LEVELDBS / "levels", tmp_path / "db"))
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    before = sorted(os.listdir(folder))
    command = [sys.executable, "-c", READER, str(folder)]
    readers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "150\n"
    n_bytes = sum(map(len, leveldb_contents("levels").values()))
    assert [reader.communicate("\n")[0] for reader in readers] == [f"{n_bytes}\n"] * 2
    assert sorted(os.listdir(folder)) == before


def test_batches_may_be_unsorted_and_repeat_keys(tmp_path: Path) -> None:
    folder = write_leveldb(tmp_path / "db", [(b"c", b"1"), (b"a", b"2"), (b"b", b"3"), (b"a", b"4")])
    assert read_all(LevelDbRecords(folder)) == [(b"a", b"4"), (b"b", b"3"), (b"c", b"1")]


@pytest.mark.parametrize("cut", [1, 40, 33_000])
def test_log_that_a_crash_cut_short_ends_with_its_last_whole_batch(tmp_path: Path, cut: int) -> None:
    contents = {b"%03d" % i: bytes([i]) * 1000 for i in range(60)}
    folder = write_leveldb(tmp_path / "db", contents.items())
    log = folder / "000003.log"
    size = log.stat().st_size - cut
    os.truncate(log, size)
    n_left = sum(1 for i in range(1, 61) if len(log_of([b"x" * 1019] * i)) <= size)
    assert read_all(LevelDbRecords(folder)) == list(contents.items())[:n_left]


def _no_current(folder: Path) -> None:
    (folder / "CURRENT").unlink()


def _empty_current(folder: Path) -> None:
    (folder / "CURRENT").write_bytes(b"")


def _other_current(folder: Path) -> None:
    (folder / "CURRENT").write_text("../../secret\n")


def _endless_current(folder: Path) -> None:
    (folder / "CURRENT").unlink()
    (folder / "CURRENT").symlink_to("/dev/zero")


def _endless_manifest(folder: Path) -> None:
    (folder / "MANIFEST-000021").unlink()
    (folder / "MANIFEST-000021").symlink_to("/dev/zero")


def _pipe_for_a_table(folder: Path) -> None:
    (folder / "000022.ldb").unlink()
    os.mkfifo(folder / "000022.ldb")


def _pipe_for_a_log(folder: Path) -> None:
    os.mkfifo(folder / "000099.log")


def _lmdb(folder: Path) -> None:
    shutil.rmtree(folder)
    write_lmdb(folder, [(b"a", b"b")])


def _file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def _no_manifest(folder: Path) -> None:
    (folder / "MANIFEST-000021").unlink()


def _empty_manifest(folder: Path) -> None:
    (folder / "MANIFEST-000021").write_bytes(b"")


def _other_manifest(folder: Path) -> None:
    (folder / "MANIFEST-000021").write_bytes(log_of([b"\x01" + varint(3) + b"idb", b"\x63"]))


def _other_order(folder: Path) -> None:
    (folder / "MANIFEST-000021").write_bytes(log_of([b"\x01" + varint(8) + b"idb_cmp1"]))


def _no_table(folder: Path) -> None:
    (folder / "000022.ldb").unlink()


def _no_records(folder: Path) -> None:
    shutil.rmtree(folder)
    write_leveldb(folder, [])


def _log(folder: Path) -> None:
    data = bytearray((folder / "000023.log").read_bytes())
    data[6] = 9
    (folder / "000023.log").write_bytes(data)


def _cut_table(folder: Path) -> None:
    os.truncate(folder / "000022.ldb", 2000)


def _table(folder: Path) -> None:
    data = bytearray((folder / "000022.ldb").read_bytes())
    data[1000:1100] = b"\xff" * 100
    (folder / "000022.ldb").write_bytes(data)


AGAIN = "; nothing may write to it during a run; else copy it again, or write it again"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_no_current, "is a folder without CURRENT; give the folder of a LevelDB"),
        (_empty_current, f"CURRENT is empty{AGAIN}"),
        (_other_current, f"CURRENT names '../../secret' in place of a MANIFEST-NUMBER{AGAIN}"),
        (_endless_current, f"CURRENT is a device, not a file{AGAIN}"),
        (_endless_manifest, f"MANIFEST-000021 is a device, not a file{AGAIN}"),
        (_pipe_for_a_table, "000022.ldb is a pipe, not a file, before the first record"),
        (_pipe_for_a_log, f"000099.log is a pipe, not a file{AGAIN}"),
        (_lmdb, "is an LMDB; write backend: LMDB (LEVELDB is the default)"),
        (_file, "is a file; give the folder of a LevelDB, or write backend: LMDB"),
        (_no_manifest, f"MANIFEST-000021 cannot be read (No such file or directory){AGAIN}"),
        (_empty_manifest, f"MANIFEST-000021 sorts keys by no order, not by leveldb.BytewiseComparator{AGAIN}"),
        (_other_manifest, f"MANIFEST-000021 is not a manifest of LevelDB, or is damaged{AGAIN}"),
        (_other_order, f"MANIFEST-000021 sorts keys by idb_cmp1, not by leveldb.BytewiseComparator{AGAIN}"),
        (_no_table, f"lacks 000022.ldb{AGAIN}"),
        (_no_records, "the database is empty; write at least one record into it"),
        (_log, f"000023.log is damaged at byte 0{AGAIN}"),
        (_cut_table, f"000022.ldb (2000 bytes) does not end as a table does, before the first record{AGAIN}"),
        (_table, "000022.ldb is damaged"),
    ],
    ids=lambda value: value.__name__[1:] if callable(value) else "",
)
def test_unusable_database_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    folder = Path(shutil.copytree(LEVELDBS / "levels", tmp_path / "db"))
    spoil(folder)
    with pytest.raises(DataError) as error:
        read_all(LevelDbRecords(folder))
    assert str(error.value).startswith(f"{folder}: {sentence}")
    assert "\n" not in str(error.value)


def test_damaged_block_is_placed_by_the_record_before_it(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LEVELDBS / "plain", tmp_path / "db"))
    data = bytearray((folder / "000005.ldb").read_bytes())
    at = data.index(b"plain 100 ")
    data[at : at + 2000] = b"\xff" * 2000
    (folder / "000005.ldb").write_bytes(data)
    records = LevelDbRecords(folder)
    with pytest.raises(DataError, match=r"000005.ldb is .*, after record '000000\d\d_n01440764/a b_\d.JPEG'; nothing"):
        records.read(0, 150)


def test_damage_of_any_byte_is_one_sentence_or_no_matter(tmp_path: Path) -> None:
    """No byte that is changed makes the reader fail in any other way."""
    draw = random.Random(0)
    folder = Path(shutil.copytree(LEVELDBS / "levels", tmp_path / "db"))
    n_refused = 0
    for name in ("MANIFEST-000021", "000020.ldb", "000022.ldb", "000023.log"):
        good = (folder / name).read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            bad[draw.randrange(len(bad))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
            (folder / name).write_bytes(bad)
            try:
                read_all(LevelDbRecords(folder))
            except DataError:
                n_refused += 1
        (folder / name).write_bytes(good)
    assert n_refused > 20
