import os
import subprocess
import sys
from pathlib import Path

import pytest

from distcalib.errors import OutputError
from distcalib.journal import FolderLock

HOLD = (
    "import sys; from pathlib import Path; from distcalib.journal import FolderLock\n"
    "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def test_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"process {holder.pid} of .*, since 20.* UTC, is running in it; wait"):
            FolderLock(tmp_path)
        holder.kill()
    assert any(tmp_path.iterdir())  # its file is still there, and is no lock any more
    FolderLock(tmp_path).release()
    assert not any(tmp_path.iterdir())


def test_lock_is_one_in_a_process_too(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(OutputError, match=f"process {os.getpid()} "):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


def test_lock_says_that_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none: cannot be written to \(No such file or directory\); give another"):
        FolderLock(tmp_path / "none")


def test_folder_lock_leaves_alone_what_a_link_points_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "distcalib.lock").symlink_to(victim)
    with pytest.raises(OutputError, match=r"distcalib.lock: is a symbolic link; remove it, or give another --out"):
        FolderLock(tmp_path)
    assert victim.read_text() == "precious"
    assert (tmp_path / "distcalib.lock").is_symlink()


def test_folder_lock_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "distcalib.lock")
    with pytest.raises(OutputError, match=r"distcalib.lock: is no lock of a run: it is no file"):
        FolderLock(tmp_path)


@pytest.mark.parametrize(
    ("text", "links", "why"),
    [
        ("my notes", 0, "it holds something else than the name of a run"),
        ("process 7 of host, since", 1, "it has another name, a hard link"),
        ("", 1, "it has another name, a hard link"),
    ],
)
def test_folder_lock_leaves_alone_what_is_no_lock(tmp_path: Path, text: str, links: int, why: str) -> None:
    lock = tmp_path / "distcalib.lock"
    lock.write_text(text)
    for number in range(links):
        (tmp_path / f"other{number}").hardlink_to(lock)
    with pytest.raises(OutputError, match=rf"distcalib.lock: is no lock of a run: {why}; move it away"):
        FolderLock(tmp_path)
    assert lock.read_text() == text


@pytest.mark.parametrize("text", ["", "process 7 of host, since 2026-01-01 00:00:00 UTC,"], ids=["empty", "dead"])
def test_folder_lock_takes_what_a_dead_run_has_left(tmp_path: Path, text: str) -> None:
    (tmp_path / "distcalib.lock").write_text(text)
    lock = FolderLock(tmp_path)
    assert f"process {os.getpid()} " in (tmp_path / "distcalib.lock").read_text()
    lock.release()


def test_folder_lock_leaves_the_lock_of_another_run(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    assert first.is_in_place()
    (tmp_path / "distcalib.lock").unlink()
    assert not first.is_in_place()
    second = FolderLock(tmp_path)
    first.release()
    assert second.is_in_place()
    second.release()
