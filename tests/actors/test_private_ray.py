"""The folder of a local Ray, and the watch over its start; a child process stands for Ray's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distcalib.actors.private_ray import PrivateFolder, cause_in, stderr_to


def test_private_folder_is_the_users_alone_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    folder = PrivateFolder()
    [token] = folder.environment.values()
    assert oct(folder.path.stat().st_mode) == "0o40700"
    assert oct(os.stat(token).st_mode) == "0o100600"
    assert len(Path(token).read_text()) == 64
    folder.remove(keep_logs=True)
    assert folder.path.is_dir()
    assert not Path(token).exists()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_private_folder_that_is_removed_again_closes_no_file_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = PrivateFolder()
    folder.remove()
    with open(os.devnull) as other:  # it may have the number of the lock now
        folder.remove()
        os.fstat(other.fileno())


def test_private_folder_heeds_no_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    before = os.umask(0o777)
    try:
        folder = PrivateFolder()
    finally:
        os.umask(before)
    assert oct(folder.path.stat().st_mode) == "0o40700"
    folder.remove()


def test_private_folder_leaves_the_token_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    folder = PrivateFolder()
    assert folder.environment == {}
    folder.remove()


def test_private_folder_removes_those_of_killed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    ages = {"ray-oldoldol": 2, "ray-newnewne": 0}
    for name, days in ages.items():
        (tmp_path / name).mkdir()
        lock = tmp_path / name / "distcalib-lock"
        lock.touch()
        os.utime(lock, (time.time() - 86400 * days,) * 2)
    living = PrivateFolder()
    os.utime(living.path / "distcalib-lock", (1, 1))
    folder = PrivateFolder()
    assert {path.name for path in tmp_path.iterdir()} == {"ray-newnewne", living.path.name, folder.path.name}
    living.remove()
    folder.remove()


def test_stderr_to_takes_what_any_program_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with stderr_to(tmp_path / "err"):
        subprocess.run(["sh", "-c", "echo inside >&2"], check=True)
    subprocess.run(["sh", "-c", "echo outside >&2"], check=True)
    assert (tmp_path / "err").read_text() == "inside\n"
    assert capfd.readouterr().err == "outside\n"


def test_cause_in_finds_what_the_system_said(tmp_path: Path) -> None:
    assert cause_in(tmp_path) == ""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/raylet.err").write_text("F: pthread_create: Resource temporarily unavailable [system:11]\n")
    assert cause_in(tmp_path) == "raylet.err says: Resource temporarily unavailable"


BLOCK = """
import os, signal, subprocess, sys, time
import distcalib.actors.private_ray as private_ray
private_ray._END_SECONDS = 0.5
with private_ray.watched(float(sys.argv[1]), "it did not start"):
    {block}
print("went well")
"""
WATCHED = {
    "goes well": ("60", "pass", (0, "went well\n", "")),
    "is killed": ("60", "os.abort()", (-6, "", "it did not start\n")),
    "hangs in a child": ("0.5", "subprocess.run(['sleep', '60'])", (0, "went well\n", "")),
    "hangs itself": ("0.5", "time.sleep(60)", (-9, "", "it did not start\n")),
}


@pytest.mark.parametrize(("seconds", "block", "expected"), WATCHED.values(), ids=list(WATCHED))
def test_watched_ends_what_does_not_start(seconds: str, block: str, expected: tuple[int, str, str]) -> None:
    command = [sys.executable, "-c", BLOCK.format(block=block), seconds]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == expected
    assert time.monotonic() - begun < 30
