"""A child process takes the blow."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

import distcalib.data.walking
from distcalib.data.hdf5 import Hdf5Source
from distcalib.data.lmdb_records import LmdbRecords
from distcalib.data.walking import walk
from distcalib.errors import DataError
from tests.data.databases import layer, numbered, write_datums


def steps(then: str) -> Iterator[str]:
    yield "good.mdb"
    yield "bad.mdb"
    if then == "crashes":
        ctypes.string_at(0)
    elif then == "aborts":
        os.abort()
    elif then == "raises":
        raise ValueError("not so")
    elif then == "stands still":
        time.sleep(60)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("crashes", r"bad.mdb: is damaged, so that the library that reads it crashes \(SIGSEGV\); write it again"),
        ("aborts", r"bad.mdb: is damaged, so that the library that reads it crashes \(SIGABRT\); write it again"),
        ("raises", r"bad.mdb: cannot be read \(ValueError: not so\); write it again"),
        ("stands still", "bad.mdb: reading does not come to an end; it is damaged: write it again"),
    ],
)
def test_walk_makes_a_sentence_of_it(then: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distcalib.data.walking, "_PATIENCE_SECONDS", 2.0)
    with pytest.raises(DataError, match=said):
        walk(steps(then), "write it again")


def test_walk_says_nothing_of_what_is_good() -> None:
    walk(steps("ends"), "write it again")


_INTERRUPTED = """
import os, signal, time
from distcalib.data.walking import walk

def steps():
    yield "bad.mdb"
    time.sleep(60)

signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    walk(steps(), "write it again")
except KeyboardInterrupt:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no child is left")
"""


def test_walk_leaves_no_child_behind_on_ctrl_c() -> None:
    """In a process of its own: here the alarm may meet a thread of a library, which it must not."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("no child is left\n", 0), done.stderr


def test_lmdb_of_which_a_node_leaves_the_page_is_refused(tmp_path: Path) -> None:
    file = write_datums(tmp_path / "db", numbered(5, (1, 8, 8))) / "data.mdb"
    data = bytearray(file.read_bytes())
    page = next(
        at for at in range(2 * 4096, len(data), 4096)
        if int.from_bytes(data[at + 10 : at + 12], "little") == 2 and int.from_bytes(data[at : at + 8], "little")
    )  # fmt: skip
    for at in range(page + 16, page + 26, 2):
        data[at : at + 2] = (0xFFFF).to_bytes(2, "little")
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"^{file}: (is damaged|cannot be read)"):
        LmdbRecords(file)


def test_lmdb_whose_value_lies_outside_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", bytes(20000))
    file = folder / "data.mdb"
    data = file.read_bytes()
    at = data.rindex(b"key") + 3  # the number of the page that the value begins on
    file.write_bytes(data[:at] + (2**20).to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(DataError, match=f"^{file}: (is damaged|cannot be read)"):
        LmdbRecords(file)


def test_hdf5_whose_rows_are_too_large_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", shape=(1, 2**30), dtype=np.float32, chunks=(1, 2**16))
    (tmp_path / "list.txt").write_text(str(tmp_path / "a.h5"))
    proto = layer(f'top: "data" hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 }}', "HDF5Data")
    assert (tmp_path / "a.h5").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"has rows or chunks that are 4,096 MB unpacked, and 1,024 MB are the limit"):
        Hdf5Source(proto, tmp_path / "net.prototxt")
