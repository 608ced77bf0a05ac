"""The main job on three hosts, and what happens to them meanwhile: the result is that of one machine, to the byte."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, Network, wait_for
from tests.cluster.ssh import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DIGITS = ROOT / "examples/digits"
# Greedy, since it measures for half a minute: there is a middle to do something in.
JOB = (
    f"distcalib calibrate -m {DIGITS}/digits.prototxt -w {DIGITS}/digits.caffemodel -i 180 -l 0.001 --strategy greedy"
    " --recover off"
)
NAME = "digits_quantized.prototxt"


@pytest.fixture(scope="module")
def alone(network: Network, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a single machine makes of it, without a cluster."""
    folder = tmp_path_factory.mktemp("alone")
    network.hosts[3].run(f"{JOB} --out {folder}")
    return (folder / NAME).read_bytes()


class Run:
    """The job on the cluster, driven from its head."""

    def __init__(self, head: Host, folder: Path) -> None:
        self.log = folder / "log"
        self.out = folder
        self.process = head.popen(f"{JOB} --address auto --out {folder}", output=self.log)

    def said(self) -> str:
        return self.log.read_text()

    def wait_until(self, words: str) -> None:
        """Until it has said so."""
        wait_for(lambda: words in self.said() or self.process.poll() is not None, words)
        assert self.process.poll() is None, self.said()

    def result(self) -> bytes:
        """The file that it wrote."""
        assert self.process.wait(timeout=600) == 0, self.said()
        return (self.out / NAME).read_bytes()


@pytest.fixture
def start(three: list[Host], tmp_path: Path) -> Iterator[Callable[[], Run]]:
    """Starts the job; one that still runs at the end of a test is ended."""
    runs: list[Run] = []

    def begin() -> Run:
        runs.append(Run(three[0], tmp_path))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_run_uses_all_hosts(three: list[Host], start: Callable[[], Run], alone: bytes) -> None:
    run = start()
    run.wait_until("round 1")
    assert [host.name for host in three if not host.processes("ray::ActorProc")] == []
    assert run.result() == alone
    assert "3 nodes, 3 actors" in run.said()


def test_run_outlives_a_raylet_that_is_killed(three: list[Host], start: Callable[[], Run], alone: bytes) -> None:
    run = start()
    run.wait_until("round 1")
    three[1].kill("raylet")
    assert run.result() == alone
    assert "the node of actor 1 is lost; it goes on at host" in run.said()


def test_run_outlives_a_host_that_is_cut_off_and_comes_back(
    three: list[Host], start: Callable[[], Run], alone: bytes
) -> None:
    run = start()
    run.wait_until("round 1")
    three[2].cut_off()
    run.wait_until("round 2")
    with three[0].stopped("distcalib"):
        three[2].stop_ray()  # plugs it in
        three[2].start_ray(three[0])
    assert run.result() == alone
    assert "the node of actor 2 is lost; it goes on at host" in run.said()
    assert f"{three[2].name} ({three[2].ip}) joined and is used" in run.said()


def test_run_uses_a_host_that_joins_late(
    three: list[Host], network: Network, start: Callable[[], Run], alone: bytes
) -> None:
    run = start()
    run.wait_until("round 1")
    late = network.hosts[3]
    with three[0].stopped("distcalib"):
        late.start_ray(three[0])
    wait_for(lambda: bool(late.processes("ray::ActorProc")) or run.process.poll() is not None, "an actor there")
    assert run.process.poll() is None, run.said()
    assert run.result() == alone
    assert f"{late.name} ({late.ip}) joined and is used" in run.said()


def test_run_is_refused_where_versions_differ(three: list[Host], tmp_path: Path) -> None:
    odd = three[2]
    odd.stop_ray()
    old = odd.folder / "site/numpy-1.0.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0.0\n")
    odd.start_ray(three[0], env={"PYTHONPATH": str(old.parent)})
    said = three[0].run(f"{JOB} --address auto --out {tmp_path}; echo exit code $?")
    odd.stop_ray()
    assert "numpy is " in said
    assert f"1.0.0 on {odd.name} ({odd.ip})" in said
    assert said.rstrip().endswith("exit code 1")
    assert not list(tmp_path.iterdir())


def test_run_names_the_node_that_cannot_open_the_data(three: list[Host], tmp_path: Path) -> None:
    blind = three[2]
    blind.run(f"mount -t tmpfs none {DIGITS}/digits_test_lmdb")
    try:
        said = three[0].run(f"{JOB} --address auto --out {tmp_path}; echo exit code $?")
    finally:
        blind.run(f"umount {DIGITS}/digits_test_lmdb")
    assert f"distcalib: on {blind.name} ({blind.ip}): " in said
    assert "digits_test_lmdb: " in said
    assert "Traceback" not in said
    assert said.rstrip().endswith("exit code 1")


def test_run_uses_a_host_that_joins_in_the_middle_of_a_pass(
    three: list[Host], network: Network, tmp_path: Path
) -> None:
    """`evaluate` is one pass, so it has no next one that the host could wait for."""
    late = network.hosts[3]
    log = tmp_path / "log"
    evaluate = f"distcalib evaluate {DIGITS}/digits.prototxt -w {DIGITS}/digits.caffemodel -i 20000"
    process = three[0].popen(f"{evaluate} --address auto", output=log)
    try:
        wait_for(lambda: "3 nodes, 3 actors" in log.read_text() or process.poll() is not None, "three actors", 120)
        assert process.poll() is None, log.read_text()
        with three[0].stopped("distcalib"):
            late.start_ray(three[0])
        assert process.wait(timeout=300) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
        late.stop_ray()
    assert f"{late.name} ({late.ip}) joined and is used" in log.read_text()
    assert "on 4 actors" in log.read_text()
