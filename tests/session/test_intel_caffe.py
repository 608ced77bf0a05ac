"""-r from end to end, on the stand-in: the same files and scores as by the embedded engine, and nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from distcalib.actors import JobResult
from distcalib.actors.isa import arithmetic_environment
from distcalib.caffe import caffe_pb2
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.exit_codes import INTERRUPTED
from distcalib.engine.caffe_process import caffe_version
from distcalib.engine.net import make_net
from distcalib.engine.spec import Row
from distcalib.errors import DataError, EngineError, OptionError, UnsupportedError
from distcalib.session.backend import rows
from distcalib.session.intel_caffe import open_build, refuse_for_caffe
from tests.calibration.test_calibrate import Notes
from tests.conftest import ROOT
from tests.data.databases import layer
from tests.session.evaluated import evaluate
from tests.session.tiny import BATCH, ITERATIONS, Tiny, make_tiny
from tests.standin import FATAL, StandIn, make_standin

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=2, strategy="none", recover="off")


@pytest.fixture
def standin(tmp_path: Path) -> StandIn:
    return make_standin(tmp_path / "build")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders are made."""
    made = tmp_path / "scratch"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def test_calibrate_delivers_what_the_embedded_engine_does(
    tiny: Tiny, tmp_path: Path, standin: StandIn, scratch: Path
) -> None:
    notes = Notes()
    options = replace(OPTIONS, n_actors=2)
    embedded = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / "0"))
    options = replace(options, root=standin.root, out=tmp_path / "1")
    found = calibrate(tiny.prototxt, tiny.weights, options, reporter=notes)
    assert Path(found.output).read_bytes() == Path(embedded.output).read_bytes()
    assert (found.fp32_score, found.score, found.met) == (embedded.fp32_score, embedded.score, embedded.met)
    assert found.without_int8_kernel == (), "it does not tell its kernels"
    assert found.flags == ("root",)
    assert found.versions["intel_caffe"] == caffe_version(standin.executable)
    measured = [("FP32 and ranges", 2 + ITERATIONS, BATCH), ("all INT8", ITERATIONS, BATCH)]
    assert notes.phases == [*measured, ("details for the report", 1, BATCH)], "the last is by the embedded engine"
    assert {2 + ITERATIONS, ITERATIONS} <= set(notes.done), "slices count as the iterations that they are of"
    calls = standin.calls
    assert [call["args"][6] for call in calls] == ["3"] * 4
    if len(os.sched_getaffinity(0)) > 1:
        assert len({tuple(call["cpus"]) for call in calls}) == 2, "both actors worked"
    assert list(scratch.iterdir()) == []


@pytest.mark.slow  # five starts of the stand-in, one after the other
def test_calibrate_measures_force_u8_by_the_build_with_the_caffemodel_that_it_writes(
    tmp_path: Path, standin: StandIn, scratch: Path
) -> None:
    tiny = make_tiny(tmp_path / "encoded", encoded=True)  # raw records get no frame, and the net does not fit without
    options = replace(OPTIONS, n_actors=2, weights_channel="multiple", first_conv_force_u8=True)
    embedded = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / "0"))
    found = calibrate(tiny.prototxt, tiny.weights, replace(options, root=standin.root, out=tmp_path / "1"))
    assert (found.score, found.sha256) == (embedded.score, embedded.sha256)
    assert found.output_weights_sha256 == embedded.output_weights_sha256
    assert (found.plain, embedded.plain) != (None, None)
    models = [Path(call["args"][4]).name for call in standin.calls]
    assert models.count(tiny.weights.name) == 4, "FP32 and the plain net, on two actors"
    assert len(models) == 6


@pytest.mark.slow
def test_calibrate_searches_by_the_build_on_one_actor_as_on_two(
    tiny: Tiny, tmp_path: Path, standin: StandIn, scratch: Path
) -> None:
    options = replace(OPTIONS, strategy="greedy", n_actors=2, out=tmp_path / "0")
    embedded = calibrate(tiny.prototxt, tiny.weights, options)
    options = replace(options, root=standin.root, n_actors=1, out=tmp_path / "1")
    found = calibrate(tiny.prototxt, tiny.weights, options)
    assert found.candidates == embedded.candidates
    assert found.fp32_layers == embedded.fp32_layers == ("conv3",)
    assert Path(found.output).read_bytes() == Path(embedded.output).read_bytes()
    assert [call["args"][6] for call in standin.calls] == ["6"] * 5
    assert list(scratch.iterdir()) == []


def test_evaluate_stops_at_an_abort_and_leaves_nothing(tiny: Tiny, standin: StandIn, scratch: Path) -> None:
    standin.fail_by("abort")
    with pytest.raises(EngineError, match=r"^net\.prototxt: Intel Caffe aborted: Check failed: ") as error:
        evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=2, root=standin.root)
    assert FATAL in str(error.value)
    assert list(scratch.iterdir()) == []


def test_evaluate_checks_the_room_for_slices_first(
    tiny: Tiny, standin: StandIn, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DataError) as error:
        evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=2, root=standin.root)
    assert str(error.value) == (
        f"{scratch}: 2 slices of the data need about 9.83e-05 GB and 1e-06 GB are free; "
        "name another folder in TMPDIR, or give fewer --actors"
    )
    assert standin.calls == []
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_child_and_no_scratch(tiny: Tiny, standin: StandIn, scratch: Path, tmp_path: Path) -> None:
    standin.fail_by("hang")
    command = [sys.executable, "-m", "distcalib", "evaluate", *tiny.args, "-r", str(standin.root), "--actors", "2"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"}  # Ray's sockets want short paths
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env
    ) as process:
        while len(standin.calls) < 2 and process.poll() is None:
            time.sleep(0.05)
        assert [path.name[:10] for path in scratch.glob("distcalib*")] == ["distcalib-"]
        os.kill(process.pid, signal.SIGINT)  # the driver alone
        _, err = process.communicate()
    assert (process.returncode, err) == (INTERRUPTED, "distcalib: interrupted; no result was written\n")
    end = time.monotonic() + 10.0
    while any(map(is_alive, standin.calls)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, standin.calls))
    assert list(scratch.glob("distcalib*")) == []


def is_alive(call: dict[str, int]) -> bool:
    try:
        return Path(f"/proc/{call['pid']}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("isa", ["skylake", "sapphirerapids"])
def test_open_build_refuses_an_instruction_set(standin: StandIn, isa: str) -> None:
    with pytest.raises(OptionError) as error:
        open_build(standin.root, isa)
    assert str(error.value) == (
        f"--isa {isa}: with -r the kernels are those that mkl-dnn 0.18 picks for the CPU it runs on; "
        "leave one of the two out"
    )
    assert open_build(None, isa) is None


def test_an_actor_finds_the_libraries_that_the_driver_does(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    build = open_build(standin.root, "native")
    assert build is not None
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/mkl/lib")
    arithmetic = arithmetic_environment(build.isa)
    assert build.environment == {"LD_LIBRARY_PATH": "/opt/mkl/lib", **arithmetic}
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert build.environment == arithmetic


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda tiny, root: evaluate(tiny.prototxt, tiny.weights, 1, root=root), id="evaluate"),
        pytest.param(
            lambda tiny, root: calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, root=root)), id="calibrate"
        ),
    ],
)
def test_a_root_without_caffe_is_refused_before_anything_starts(
    tiny: Tiny, tmp_path: Path, run: Callable[[Tiny, Path], object]
) -> None:
    with pytest.raises(OptionError, match="has no tools/caffe; give the build folder of Intel Caffe"):
        run(tiny, tmp_path)


def test_a_build_that_lacks_a_library_is_refused_before_anything_starts(tiny: Tiny, tmp_path: Path) -> None:
    broken = tmp_path / "tools" / "caffe"
    broken.parent.mkdir()
    broken.write_text('#!/bin/sh\necho "$0: error while loading shared libraries: libmkldnn.so.0" >&2\nexit 127\n')
    broken.chmod(0o755)
    notes = Notes()
    with pytest.raises(OptionError, match=r"error while loading shared libraries: libmkldnn\.so\.0"):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, root=tmp_path), reporter=notes)
    assert notes.notes == []


def test_refuse_for_caffe_names_all_layers_that_cannot_be_sliced() -> None:
    full = caffe_pb2.NetParameter()
    full.layer.append(layer('top: "a" input_param { shape { dim: 1 } }', "Input"))
    full.layer.append(layer('top: "b" dummy_data_param { data_filler { type: "msra" } }', "DummyData"))
    full.layer[1].name = "noise"
    with pytest.raises(UnsupportedError) as error:
        refuse_for_caffe(make_net(Path("net.prototxt"), full))
    assert str(error.value).startswith("net.prototxt: -r: layer 'data' (Input) is fed by a program, ")
    assert "; layer 'noise' (DummyData) draws msra values" in str(error.value)


def test_rows_puts_those_of_slices_in_their_place() -> None:
    made = [Row({}, (), None, n_missing=i) for i in range(4)]
    result = JobResult("a", (tuple(made[:2]), (made[2],), made[3]), 4, (0, 1, 2), True, 0.0, 0.0, 0.0)
    assert [row.n_missing for row in rows(result)] == [0, 1, 2, 3]
