"""The parts of the measurement of nets of real size that need no such net."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from distcalib.engine.worker import NetWorker
from scripts.bench import bench_real_size
from scripts.bench.bench_real_size import MB, TimedParts, actor_processes, own_bytes


def test_own_bytes_counts_what_is_written_and_not_what_is_only_reserved() -> None:
    before = own_bytes(os.getpid())
    kept = np.empty(64 * MB, np.uint8)
    reserved = own_bytes(os.getpid())
    kept[:] = 1
    written = own_bytes(os.getpid())
    assert before > 0
    assert reserved - before < 32 * MB
    assert written - reserved > 60 * MB


def test_own_bytes_of_a_process_that_has_ended_is_zero() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert own_bytes(process.pid) == 0


def test_actor_processes_are_those_that_descend_from_this_one() -> None:
    child = "import time; print('up', flush=True); time.sleep(60)"
    processes = [
        subprocess.Popen([name, "-c", child], executable=sys.executable, stdout=subprocess.PIPE)
        for name in ("ray::ActorProcess.run", "another")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert actor_processes() == [processes[0].pid]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_timed_parts_count_cpu_time_of_reading_and_running_apart() -> None:
    def busy(seconds: float) -> float:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return seconds

    source, program = SimpleNamespace(batch=busy), SimpleNamespace(run=busy)
    worker = SimpleNamespace(_loaded={"net": SimpleNamespace(program=program)}, _sources={"data": source})
    timed = TimedParts(cast(NetWorker, worker))
    program.run(0.05)
    timed.clear()
    assert source.batch(0.02) == 0.02
    assert [program.run(0.03), program.run(0.03)] == [0.03, 0.03]
    time.sleep(0.05)  # is no work
    assert timed.seconds["batch"] == pytest.approx(0.02, abs=0.01)
    assert timed.seconds["run"] == pytest.approx(0.06, abs=0.01)


def test_a_net_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_real_size.main(["folder", "--net", "lenet"])
    assert "invalid choice: 'lenet'" in capsys.readouterr().err
