"""A file that is cut while the driver has it mapped: a sentence in place of SIGBUS."""

import subprocess
import sys
from pathlib import Path

import pytest

from distcalib.actors.lost_pages import sentence
from tests.conftest import ROOT

PROGRAM = """
import mmap, os, sys, threading
import numpy as np
from distcalib.actors.lost_pages import lost_pages_told
from distcalib.actors.ray_cluster import RayCluster
from distcalib.data.walking import walk
from distcalib.errors import DataError
path, how = sys.argv[1:]
with open(path, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
values = np.frombuffer(mapped, np.uint8)
with lost_pages_told():
    if how in ("under Ray", "a crash"):
        RayCluster(None, 1)
    os.truncate(path, 100)
    if how == "in a child that goes first":
        try:
            walk((str(values.sum()) for _ in "a"), "copy it again")
        except DataError as error:
            print(error)
    elif how == "a crash":
        os.kill(os.getpid(), 11)
    elif how == "in a thread":
        thread = threading.Thread(target=values.sum)
        thread.start()
        thread.join()
    else:
        bytes(mapped) if how == "by Python" else values.astype("f4").sum()
"""


def run(path: Path, how: str) -> subprocess.CompletedProcess[str]:
    path.write_bytes(bytes(10**6))
    command = [sys.executable, "-c", PROGRAM, str(path), how]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("how", ["by NumPy", "by Python", "in a thread", "under Ray"])
def test_a_file_that_is_cut_while_it_is_mapped_is_named(tmp_path: Path, how: str) -> None:
    done = run(tmp_path / "a\x1bb", how)
    assert done.returncode == 1
    assert done.stderr == (
        f"distcalib: {tmp_path}/a\\x1bb: was cut while it was read; nothing may change data or weights during a run: "
        "put it back as it was, and give the command again\n"
    )


def test_a_crash_under_ray_is_one_sentence(tmp_path: Path) -> None:
    done = run(tmp_path / "file", "a crash")
    assert done.returncode == 1
    assert done.stderr.startswith("distcalib: a library crashed (SIGSEGV), and this process with it; ")
    assert done.stderr.count("\n") == 1


def test_a_child_that_goes_first_still_dies_of_the_signal(tmp_path: Path) -> None:
    done = run(tmp_path / "file", "in a child that goes first")
    assert (done.returncode, done.stderr) == (0, "")
    assert "crashes (SIGBUS); copy it again" in done.stdout


MAPS = """\
1000-2000 r--p 00000000 08:01 42    /data/x_lmdb/data.mdb (deleted)
2000-3000 rw-s 00000000 00:2e 43    /dev/shm/plasma (deleted)
3000-4000 rw-p 00000000 00:00 0
4000-5000 rw-p 00000000 00:00 0     [heap]
"""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (0x1000, "/data/x_lmdb/data.mdb: was cut while it was read"),
        (0x2FFF, "memory that is shared"),
        (0x3000, "memory that is shared"),
        (0x4000, "memory that is shared"),
        (0x9000, "memory that is shared"),
    ],
)
def test_sentence_names_the_file_that_the_address_is_of(address: int, said: str) -> None:
    assert sentence(address, MAPS).startswith(said)
