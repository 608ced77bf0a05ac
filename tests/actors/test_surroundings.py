"""What a local Ray needs, from made-up limits and trees."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distcalib.actors.surroundings import address_lacks, file_lacks, free_threads, ray_folder, start_lacks, thread_lacks

GB = 2**30


@pytest.mark.parametrize(
    ("n_actors", "free", "refused"),
    [(2, 60, True), (2, 99, True), (2, 100, False), (2, 123, False), (8, 183, True)],
)
def test_thread_lacks_refuses_what_cannot_start(n_actors: int, free: int, refused: bool) -> None:
    [lack] = thread_lacks(n_actors, 400, free)
    assert lack.refused is refused
    assert lack.sentence.startswith(f"{free} of the 400 processes and threads allowed here (pids.max, ulimit -u) are ")


def test_thread_lacks_says_nothing_where_there_is_room() -> None:
    assert [list(thread_lacks(n, 10_000, 80 + 22 * n)) for n in (1, 2, 100)] == [[], [], []]


def test_thread_lacks_counts_the_helpers_of_a_ray_that_has_them() -> None:
    [lack] = thread_lacks(2, 400, 179, helpers=True)
    assert lack.refused
    assert list(thread_lacks(2, 400, 179)) == []


def test_address_lacks_counts_the_object_store() -> None:
    assert list(address_lacks(10 * GB, 8 * GB)) == []
    [lack] = address_lacks(9 * GB, 8 * GB)
    assert lack.refused
    assert "9.0 GB of address space here (ulimit -v), and those of Ray want 9.5 GB" in lack.what


def test_file_lacks_counts_the_object_store() -> None:
    assert list(file_lacks(8 * GB, 8 * GB)) == []
    [lack] = file_lacks(GB, 8 * GB)
    assert lack.refused
    assert "1.0 GB here (ulimit -f), and Ray's object store is one of 8.0 GB" in lack.what


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.rmdir, "the working directory is not there any more"),
        (lambda folder: folder.chmod(0o600), "the working directory is closed to this user"),
    ],
    ids=["gone", "closed"],
)
def test_start_lacks_looks_at_the_working_directory(
    spoil: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    spoil(folder)
    access = os.access  # root may enter whatever it says
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and os.stat(path).st_mode & 0o100 != 0)
    try:
        sentences = [lack.sentence for lack in start_lacks(1)]
    finally:
        os.chdir("/")
    assert [sentence for sentence in sentences if said in sentence]


def test_start_lacks_looks_at_the_umask() -> None:
    before = os.umask(0o777)
    try:
        sentences = [lack.sentence for lack in start_lacks(1)]
    finally:
        os.umask(before)
    assert "umask 777 takes from this user what Ray's processes make; umask 022" in sentences


CGROUPS = {
    "version 2": ("0::/a/b", {"sys/fs/cgroup/a/pids.max": "100", "sys/fs/cgroup/a/pids.current": "20"}, (100, 80)),
    "version 1": (
        "8:pids:/x\n4:memory:/y",
        {"sys/fs/cgroup/pids/x/pids.max": "120", "sys/fs/cgroup/pids/x/pids.current": "7"},
        (120, 113),
    ),
    "tightest of two": (
        "0::/a",
        {
            "sys/fs/cgroup/a/pids.max": "100", "sys/fs/cgroup/a/pids.current": "1",
            "sys/fs/cgroup/pids.max": "1000", "sys/fs/cgroup/pids.current": "990",
        },
        (1000, 10),
    ),
    "none": ("0::/", {"sys/fs/cgroup/pids.max": "max", "sys/fs/cgroup/pids.current": "7"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("cgroup", "files", "expected"), CGROUPS.values(), ids=list(CGROUPS))
def test_free_threads_heeds_the_cgroups(
    cgroup: str, files: dict[str, str], expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_threads(tmp_path) == expected


@pytest.mark.parametrize(
    ("folder", "said"),
    [("x" * 60, "is too long a path for the sockets"), ("absent", "no folder can be made there (No such file")],
)
def test_start_lacks_looks_at_the_folder(folder: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{folder}")
    assert [lack.what for lack in start_lacks(1) if f"/tmp/{folder}: {said}" in lack.what] != []


def test_ray_folder_takes_an_empty_variable_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "")
    assert os.fspath(ray_folder()) == os.path.abspath(ray_folder())
