"""What the forked cluster does beside what every cluster does (test_cluster.py): be as Ray's actors are, and end."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from distcalib.actors import Blob, Job, Placement
from distcalib.actors.affinity import stray_threads
from distcalib.actors.cluster import ActorLost
from distcalib.actors.machine import ISA_VARIABLE, read_text, usable_isas
from distcalib.actors.pool import ActorPool
from distcalib.errors import MeasureError
from tests.actors.forked import ForkedActor, ForkedMachines, ForkedSource, ForkServer
from tests.every import every

LARGE = 100_000


class Telling:
    """A worker whose rows tell of its process; its programs are what shall happen, or files to wait for."""

    def __init__(self, shared: Any, placement: Placement) -> None:
        self.shared, self.placement, self.programs = shared, placement, dict[str, str]()

    def compile(self, spec: str) -> Blob:
        while spec.startswith("/") and not Path(spec).exists():
            time.sleep(0.01)
        program: Blob = np.frombuffer(spec.encode(), np.uint8).copy()
        return program

    def load(self, key: str, blob: Blob) -> None:
        assert not blob.flags.writeable or not key.startswith("shipped")
        self.programs[key] = bytes(blob).decode()

    def run(self, key: str, iterations: Sequence[int]) -> Sequence[object]:
        program = self.programs[key]
        if program == "exit":
            os._exit(3)
        if program == "hang":
            time.sleep(3600.0)
        if program == "kernel":
            return [kernel() for _ in iterations]
        if program == "large":
            return [np.full(LARGE, i) for i in iterations]
        return [
            {
                "pid": os.getpid(),
                "affinity": tuple(sorted(os.sched_getaffinity(0))),
                "stray": stray_threads(self.placement.cpus),
                "env": os.environ.get("DISTCALIB_TEST_ISA"),
                "nice": os.nice(0),
                "writeable": [array.flags.writeable for array in self.shared],
                "sums": [float(array.sum()) for array in self.shared],
            }
            for _ in iterations
        ]

    def drop(self, key: str) -> None:
        del self.programs[key]


def kernel() -> str:
    """What OpenVINO computes a convolution with, here."""
    image = ops.parameter([1, 16, 8, 8], np.float32)
    weights = ops.constant(np.ones((16, 16, 3, 3), np.float32))
    net = ov.Model([ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [image])
    compiled = ov.Core().compile_model(net, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    [found] = [info for info in infos if info["layerType"].astype(str) == "Convolution"]
    return str(found["primitiveType"].astype(str))


@pytest.fixture
def machines(fork_server: ForkServer) -> Iterator[ForkedMachines]:
    made = ForkedMachines(fork_server)
    yield made
    made.close()


def started(machines: ForkedMachines, env: dict[str, str] | None = None, shared: object = ()) -> ForkedActor:
    actor = machines.start_actor()
    placement = Placement(0, (min(os.sched_getaffinity(0)),))
    begun = actor.call("prepare", placement, env or {}), actor.call("make_worker", Telling, machines.put(shared))
    assert [machines.get(ref).error for ref in begun] == [None, None]
    return actor


def loaded(machines: ForkedMachines, program: str, **given: Any) -> ForkedActor:
    actor = started(machines, **given)
    assert machines.get(actor.call("compile", "key", "label", program, (), n_returns=2)[1]).error is None
    return actor


def run(machines: ForkedMachines, actor: ForkedActor) -> Any:
    outcome = machines.get(actor.call("run", "key", "label", [0], ()))
    assert outcome.error is None
    return outcome.rows[0]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


def test_an_actor_is_a_pinned_process_with_its_environment(machines: ForkedMachines) -> None:
    shared = [np.ones(3), np.ones(LARGE)]
    rows = [run(machines, loaded(machines, "tell", env={"DISTCALIB_TEST_ISA": isa}, shared=shared)) for isa in "ab"]
    assert len({os.getpid(), *(row["pid"] for row in rows)}) == 3
    assert [row["env"] for row in rows] == ["a", "b"]
    for row in rows:
        assert (row["affinity"], row["stray"]) == ((min(os.sched_getaffinity(0)),), ())
        assert row["nice"] == os.nice(0)
        assert (row["writeable"], row["sums"]) == ([False, False], [3.0, LARGE])
    assert "DISTCALIB_TEST_ISA" not in os.environ


def test_an_actor_takes_the_limit_of_onednn_from_its_environment(machines: ForkedMachines) -> None:
    if "AVX512_CORE" not in usable_isas(read_text(Path("/proc/cpuinfo")), os.environ.get(ISA_VARIABLE, "")):
        pytest.skip("all actors would have the same kernels")
    found = [
        run(machines, loaded(machines, "kernel", env={ISA_VARIABLE: isa})) for isa in ("AVX2", "AVX512_CORE", "SSE41")
    ]
    assert ["avx2" in found[0], "avx512" in found[1], "sse4" in found[2]] == [True, True, True], found


def test_what_was_stored_is_read_only_and_lies_there_once(machines: ForkedMachines, tmp_path: Path) -> None:
    before = set(folder_of(machines).iterdir())
    ref = machines.put({"large": np.arange(LARGE), "small": np.arange(3)})
    assert len(set(folder_of(machines).iterdir()) - before) == 1
    value = machines.get(ref)
    assert value["large"].sum() == np.arange(LARGE).sum()
    assert [array.flags.writeable for array in value.values()] == [False, False]
    row = run(machines, loaded(machines, "large"))
    assert (row.flags.writeable, row.shape) == (False, (LARGE,))


def folder_of(machines: ForkedMachines) -> Path:
    return machines._folder


def test_a_call_waits_for_the_value_that_another_actor_makes(machines: ForkedMachines, tmp_path: Path) -> None:
    maker, taker = started(machines), started(machines)
    program, compiled = maker.call("compile", "key", "label", str(tmp_path / "go"), (), n_returns=2)
    load = taker.call("load", "shipped", "label", program, ())
    after = taker.call("run", "shipped", "label", [0], ())
    assert machines.wait([load, after], 0.05) == []
    (tmp_path / "go").touch()
    assert machines.get(after).error is None
    assert machines.wait([load, compiled], 0.0) == [load, compiled]


def test_a_value_of_an_actor_that_died_never_comes(machines: ForkedMachines, tmp_path: Path) -> None:
    maker, taker = started(machines), started(machines)
    program, _ = maker.call("compile", "key", "label", str(tmp_path / "never"), (), n_returns=2)
    load = taker.call("load", "key", "label", program, ())
    maker.kill()
    with pytest.raises(ActorLost):
        machines.get(load)
    assert machines.get(taker.call("clear")).error is None


@pytest.mark.parametrize("end", ["exit", "SIGKILL"])
def test_an_actor_whose_process_ends_is_lost(machines: ForkedMachines, end: str) -> None:
    pid = run(machines, loaded(machines, "tell"))["pid"]
    assert is_alive(pid)
    actor = loaded(machines, "exit" if end == "exit" else "tell")
    if end == "SIGKILL":
        os.kill(run(machines, actor)["pid"], signal.SIGKILL)
    refs = [actor.call("run", "key", "label", [0], ()) for _ in range(2)]
    for ref in refs:
        with pytest.raises(ActorLost):
            machines.get(ref)
    with pytest.raises(ActorLost):
        machines.get(actor.call("clear"))


def test_what_no_actor_can_take_is_an_error_of_the_call(machines: ForkedMachines) -> None:
    actor = started(machines)
    with pytest.raises(MeasureError, match=r"^an actor cannot take its task: AttributeError: .* 'sing'$"):
        machines.get(actor.call("sing"))
    assert machines.get(actor.call("clear")).error is None


def test_waiting_ends_in_time(machines: ForkedMachines) -> None:
    hanging, other = loaded(machines, "hang"), loaded(machines, "tell")
    hung = hanging.call("run", "key", "label", [0], ())
    told = [other.call("run", "key", "label", [0], ()) for _ in range(3)]
    begun = time.perf_counter()
    assert machines.wait([hung], 0.2) == []
    assert 0.2 <= time.perf_counter() - begun < 60.0
    assert machines.get(told[-1]).error is None
    assert machines.wait([hung, *told], 0.0) == told
    hanging.kill()
    assert machines.wait([hung], 0.0) == [hung]


def test_nothing_is_left_of_a_pool_that_was_closed(fork_server: ForkServer) -> None:
    with ActorPool(Telling, ForkedSource(fork_server), n_actors=2, shared=[np.ones(LARGE)]) as pool:
        machines = pool._cluster
        assert isinstance(machines, ForkedMachines)
        [result] = pool.run([Job("key", "tell", 20, "label")])
        pids = {row["pid"] for row in result.rows if isinstance(row, dict)}
        assert pids
        assert every(map(is_alive, pids))
        assert every(file.stat().st_size > LARGE for file in folder_of(machines).iterdir())
    assert not any(map(is_alive, pids))
    assert not folder_of(machines).exists()


def test_nothing_is_left_of_a_server_that_was_closed() -> None:
    with ForkServer() as server:
        machines = ForkedMachines(server)
        dead, idle, busy = (loaded(machines, "tell") for _ in range(3))
        pids = [run(machines, actor)["pid"] for actor in (dead, idle, busy)]
        os.kill(pids[0], signal.SIGKILL)
        busy.call("compile", "other", "label", "hang", (), n_returns=2)
        busy.call("run", "other", "label", [0], ())
        assert folder_of(machines).parent == server.folder
    assert not any(map(is_alive, pids))
    assert not server.folder.exists()
