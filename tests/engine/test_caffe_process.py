"""`caffe test` as a child process; in place of Caffe a shell script."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from distcalib.engine import caffe_process
from distcalib.engine.caffe_process import caffe_version, check_caffe, describe_exit, find_caffe, run_caffe
from distcalib.errors import OptionError
from tests.conftest import ROOT


def script(folder: Path, text: str) -> Path:
    made = folder / "tools" / "caffe"
    made.parent.mkdir(parents=True)
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


def run(folder: Path, text: str, n_threads: int = 1) -> tuple[int, list[str]]:
    lines: list[str] = []
    (folder / "run").mkdir()
    model = folder / "run" / "net.prototxt"
    code = run_caffe(script(folder, text), model, Path("/w/net.caffemodel"), 7, n_threads, lines.append)
    return code, [line.rstrip("\n") for line in lines]


@pytest.mark.parametrize("text", ["echo caffe version 1.1.6", "exit 1", "echo unknown flag >&2; exit 3"])
def test_check_caffe_takes_what_starts(tmp_path: Path, text: str) -> None:
    check_caffe(tmp_path, script(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            'echo "$0: error while loading shared libraries: libglog.so.0: cannot open" >&2; exit 127',
            r"ended with exit code 127 \(error while loading shared libraries: libglog\.so\.0: cannot open\)",
            id="library",
        ),
        pytest.param("exit 126", "ended with exit code 126", id="loader"),
        pytest.param("kill -ILL $$", "was ended by SIGILL", id="another_cpu"),
        pytest.param("sleep 9", r"did not tell its version within 0\.2 s", id="hangs"),
    ],
)
def test_check_caffe_refuses_what_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    if "sleep" in text:
        monkeypatch.setattr(caffe_process, "_START_SECONDS", 0.2)
    with pytest.raises(OptionError, match=rf"^-r {tmp_path}: tools/caffe {said}; .*LD_LIBRARY_PATH"):
        check_caffe(tmp_path, script(tmp_path, text))


def test_check_caffe_refuses_what_is_no_program(tmp_path: Path) -> None:
    made = script(tmp_path, "")
    made.write_bytes(b"\x7fELF")
    with pytest.raises(OptionError, match=r"tools/caffe cannot be started \(Exec format error\); "):
        check_caffe(tmp_path, made)


def test_run_caffe_has_the_predecessors_command_line(tmp_path: Path) -> None:
    code, lines = run(tmp_path, 'for arg in "$0" "$@"; do echo "$arg" >&2; done; pwd >&2; echo out')
    model = str(tmp_path / "run" / "net.prototxt")
    command = ["test", "-model", model, "-weights", "/w/net.caffemodel", "-iterations", "7", "-engine", "MKLDNN"]
    assert code == 0
    assert lines == [str(tmp_path / "tools" / "caffe"), *command, str(tmp_path / "run")]


def test_run_caffe_keeps_the_environment_from_the_log_and_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"GLOG_minloglevel": "3", "GLOG_log_dir": "/nowhere", "GLOG_log_prefix": "0", "GLOG_v": "1"}
    threads = {"OMP_NUM_THREADS": "99", "OMP_PLACES": "cores", "KMP_AFFINITY": "compact", "GOMP_CPU_AFFINITY": "0-9"}
    for name, value in {**mine, **threads, "MY_OWN": "kept"}.items():
        monkeypatch.setenv(name, value)
    _, lines = run(tmp_path, "env >&2", n_threads=3)
    found = {line for line in lines if re.match("GLOG|OMP|KMP|GOMP|MY_OWN", line)}
    assert found == {
        "OMP_NUM_THREADS=3", "MY_OWN=kept",
        "GLOG_logtostderr=1", f"GLOG_log_dir={tmp_path / 'run'}", "GLOG_minloglevel=0", "GLOG_log_prefix=1",
    }  # fmt: skip


def test_run_caffe_inherits_the_affinity_and_dumps_no_core(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        _, lines = run(tmp_path, "grep Cpus_allowed_list /proc/self/status >&2; ulimit -c >&2")
    finally:
        os.sched_setaffinity(0, before)
    assert lines == [f"Cpus_allowed_list:\t{min(before)}", "0"]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("exit 0", 0, "ended with exit code 0"),
        ("exit 127", 127, "ended with exit code 127"),
        ("kill -ABRT $$", -6, "was ended by SIGABRT"),
        ("kill -KILL $$", -9, "was ended by SIGKILL"),
        ("kill -40 $$", -40, "was ended by signal 40"),
    ],
)
def test_run_caffe_gives_the_exit_code(tmp_path: Path, text: str, code: int, said: str) -> None:
    assert run(tmp_path, text) == (code, [])
    assert describe_exit(code) == said


def test_run_caffe_says_what_cannot_be_executed(tmp_path: Path) -> None:
    """Built for another machine: what execv says is all there is of a log."""
    caffe = script(tmp_path, "")
    caffe.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(100))
    lines: list[str] = []
    assert run_caffe(caffe, tmp_path / "net.prototxt", Path("w"), 1, 1, lines.append) == 1
    assert "Exec format error" in lines[-1]


def test_run_caffe_takes_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert run(tmp_path, r"printf '\377\000x\n' >&2") == (0, ["\ufffd\x00x"])


def test_run_caffe_leaves_no_child_when_it_is_interrupted(tmp_path: Path) -> None:
    caffe = script(tmp_path, "echo $$ >&2; exec sleep 600")
    found: list[int] = []

    def interrupt(line: str) -> None:
        found.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_caffe(caffe, tmp_path / "net.prototxt", Path("w"), 1, 1, interrupt)
    assert not Path(f"/proc/{found[0]}").exists()


def test_the_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    caffe = script(tmp_path, "echo $$ >&2; exec sleep 600")
    code = (
        "from pathlib import Path\nfrom distcalib.engine.caffe_process import run_caffe\n"
        f"run_caffe(Path({str(caffe)!r}), Path({str(tmp_path / 'net.prototxt')!r}), Path('w'), 1, 1,\n"
        "          lambda line: print(line, end='', flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(child)


def is_alive(process: int) -> bool:
    """Whether it runs; a zombie that nobody waits for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def no_folder(root: Path) -> None:
    """Leave it absent."""


def a_source_tree(root: Path) -> None:
    script(root / "build", "")


def not_executable(root: Path) -> None:
    script(root, "").chmod(0o644)


def a_folder(root: Path) -> None:
    (root / "tools" / "caffe").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_folder, "has no tools/caffe; give the build folder of Intel Caffe"),
        (a_folder, "has no tools/caffe; give the build folder of Intel Caffe"),
        (a_source_tree, "has no tools/caffe, but its folder build has; give -r ROOT/build"),
        (not_executable, "tools/caffe is not executable; build Caffe again, or give another build folder"),
    ],
)
def test_find_caffe_says_what_root_lacks(
    tmp_path: Path, make: Callable[[Path], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "caffe"
    make(root)
    if os.geteuid() == 0:  # the superuser may execute what anybody may
        monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o111))
    with pytest.raises(OptionError) as error:
        find_caffe(root)
    assert str(error.value) == f"-r {root}: {said.replace('ROOT', str(root))}"


@pytest.mark.parametrize("listed", [False, True], ids=["in the build", "on LD_LIBRARY_PATH"])
def test_caffe_version_tells_libraries_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    made = script(tmp_path / "build", "exit")
    folder = tmp_path / "libraries" if listed else tmp_path / "build" / "lib"
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{folder}:/nowhere" if listed else "")
    folder.mkdir()
    found = [caffe_version(made)]
    library = folder / "libcaffe.so.1.1.6"
    library.write_bytes(b"one build")
    found.append(caffe_version(made))
    (folder / "libcaffe.so").symlink_to(library.name)
    assert caffe_version(made) == found[-1] == sha256(made.read_bytes() + b"one build").hexdigest()[:12]
    library.write_bytes(b"another")
    found.append(caffe_version(made))
    assert len(set(found)) == 3


def test_find_caffe_takes_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script(tmp_path / "build", "")
    monkeypatch.chdir(tmp_path)
    assert find_caffe(Path("build/")) == made
    assert caffe_version(made) == sha256(made.read_bytes()).hexdigest()[:12]
