"""Starting and ending Ray, each time in a driver process of its own; so these are few."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path

import pytest

from distcalib.actors.ray_cluster import RayCluster
from distcalib.errors import MeasureError

WORKER = """
import os, time
import numpy as np
FOUND = os.environ.get("DISTCALIB_TEST_ISA")

class Worker:
    def __init__(self, shared, placement):
        pass
    def compile(self, spec):
        return np.zeros(1, np.uint8)
    def load(self, key, blob):
        pass
    def run(self, key, iterations):
        time.sleep(0.01 * len(iterations))
        return [(FOUND, os.getpid(), os.nice(0)) for _ in iterations]
    def drop(self, key):
        pass
"""

DRIVER = """
import os
from distcalib.actors.pool import ActorPool
from distcalib.actors.ray_cluster import RaySource
from distcalib.actors import Job
from worker_that_reads_env import Worker

print(os.getpid(), flush=True)
with ActorPool(Worker, RaySource(), n_actors=2, env={"DISTCALIB_TEST_ISA": "AVX512_CORE"}) as pool:
    def tell(progress):
        print("progress", flush=True)
    [result] = pool.run([Job("key", None, N_ITERATIONS, "candidate")], tell)
print({found for found, _, _ in result.rows}, len(result.rows), flush=True)
print({nice for _, _, nice in result.rows} == {os.nice(0)}, flush=True)
"""


def start(folder: Path, n_iterations: int) -> "subprocess.Popen[str]":
    """A driver in its own session, as a terminal would start it."""
    (folder / "worker_that_reads_env.py").write_text(WORKER)
    (folder / "driver.py").write_text(DRIVER.replace("N_ITERATIONS", str(n_iterations)))
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), env.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, str(folder / "driver.py")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "^--address 127.0.0.1:1: ConnectionRefusedError: .*; is Ray running there"),
        ("ray://127.0.0.1:10001", "^--address ray://127.0.0.1:10001: is neither auto nor HOST:PORT"),
        ("127.0.0.1", "^--address 127.0.0.1: is neither auto nor HOST:PORT"),
        ("127.0.0.1:70000", "^--address 127.0.0.1:70000: is neither auto nor HOST:PORT"),
    ],
    ids=["nobody there", "Ray Client", "no port", "no such port"],
)
def test_cluster_says_when_an_address_is_wrong(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever another test has started
    with pytest.raises(MeasureError, match=said):
        RayCluster(address, n_cpus=1)


def test_cluster_names_the_variable_that_gave_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(MeasureError, match=r"^RAY_ADDRESS=nowhere: is neither auto nor HOST:PORT"):
        RayCluster(None, n_cpus=1)


def test_cluster_auto_joins_only_what_was_started_to_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if not Path("/tmp/ray/ray_current_cluster").exists():
        with pytest.raises(MeasureError, match=r"^--address auto: no Ray cluster was started on this machine"):
            RayCluster("auto", n_cpus=1)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(MeasureError, match=r"^--address auto \(127.0.0.1:1\): ConnectionRefusedError"):
        RayCluster("auto", n_cpus=1)


LISTENING = """
import os
from ast import literal_eval
from pathlib import Path

import psutil
from distcalib.actors.ray_cluster import RayCluster

cluster = RayCluster(None, 1)
folder = cluster._logs.parent.parent.parent
actor = cluster.start_actor()
cluster.get(actor.call("clear"))
mine = psutil.Process().children(recursive=True)
at = {c.laddr.ip for p in [psutil.Process(), *mine] for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
print(sorted(at), oct(folder.stat().st_mode & 0o777), oct((folder / "distcalib-token").stat().st_mode & 0o777))
cluster.close()
print(folder.exists(), any(name.startswith("RAY_AUTH") for name in os.environ), os.path.exists(os.environ["HOME"]))
"""


def test_cluster_of_a_run_is_reached_by_nobody_else_and_needs_no_home(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PYTHONPATH": os.getcwd(), "HOME": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, "-c", LISTENING], env=env, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    addresses, folder, token = first.rsplit(" ", 2)
    found = set(literal_eval(addresses))
    assert found
    assert found <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert (folder, token) == ("0o700", "0o600")
    assert second == "False False False"


def processes_of_session(driver: int) -> list[str]:
    """Command lines of living processes whose Ray session is that of the driver."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environ = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended meanwhile
        if f"_{driver}/" in command or f"_{driver}/" in environ:
            found.append(command)
    return found


def process_of_session(driver: int, name: str) -> int:
    """The process of that Ray session whose program is called so."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            program, *arguments = (folder / "cmdline").read_bytes().decode().split("\0")
            if Path(program).name == name and any(f"_{driver}/" in argument for argument in arguments):
                return int(folder.name)
    raise AssertionError(f"no {name} of driver {driver}")


def wait_for_no_process(driver: int, seconds: float = 5.0) -> list[str]:
    end = time.monotonic() + seconds
    while (left := processes_of_session(driver)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def test_cluster_starts_quietly_sets_env_before_imports_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start(tmp_path, n_iterations=20)
    out, err = process.communicate(timeout=60)
    lines = [line for line in out.splitlines() if line != "progress"]
    assert (process.returncode, err) == (0, "")
    assert lines == [lines[0], "{'AVX512_CORE'} 20", "True"]
    assert wait_for_no_process(int(lines[0])) == []


def test_cluster_ends_at_once_on_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path, n_iterations=100_000)
    assert process.stdout is not None
    driver = int(process.stdout.readline())
    assert process.stdout.readline() == "progress\n"
    running = processes_of_session(driver)
    assert any("gcs_server" in command for command in running), "the checks below would hold for nothing"
    helpers = ("monitor.py", "dashboard/agent.py", "agent/main.py")
    assert not [command for command in running for name in helpers if name in command], "see actors/ray_helpers.py"
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert err.strip().endswith("KeyboardInterrupt")
    assert wait_for_no_process(driver) == []


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_cluster_says_so_when_its_ray_is_killed(tmp_path: Path, name: str) -> None:
    process = start(tmp_path, n_iterations=100_000)
    assert process.stdout is not None
    driver = int(process.stdout.readline())
    assert process.stdout.readline() == "progress\n"
    begun = time.monotonic()
    os.kill(process_of_session(driver, name), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert process.returncode == 1
    assert "\ndistcalib: Ray on this machine was killed, and nothing can be measured without it; " in f"\n{err}"


def test_an_empty_ray_tmpdir_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever another test has started
    with pytest.raises(MeasureError):
        RayCluster("127.0.0.1:1", n_cpus=1)
    assert "RAY_TMPDIR" not in os.environ


@pytest.mark.usefixtures("one_ray")
def test_cluster_refuses_another_address_than_that_of_the_ray_in_use() -> None:
    import ray

    used = ray.get_runtime_context().gcs_address
    for same in (used, "auto", None):
        RayCluster(same, n_cpus=1).close()
    with pytest.raises(MeasureError, match=rf"^--address 10\.1\.2\.3:6379: this process .* {used} already"):
        RayCluster("10.1.2.3:6379", n_cpus=1)
    assert ray.is_initialized()
