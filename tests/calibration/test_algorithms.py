"""`-a auto` from end to end, on a net that needs two algorithms; and the error that it goes by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, write_weights
from distcalib.caffe.graph import Blob
from distcalib.calibration import algorithms as choosing
from distcalib.calibration.algorithms import output_error
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import open_net
from distcalib.engine.score_inputs import score_inputs
from distcalib.quantize.thresholds import ALGORITHMS
from distcalib.report import CalibrationReport
from tests.calibration.reports import fields_of, lasting
from tests.calibration.test_calibrate import Notes
from tests.session.tiny import Tiny, make_tiny

Array = NDArray[np.float32]

BATCH, ITERATIONS, SIZE = 8, 6, 16

_NET = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 3 dim: 16 dim: 16 } shape { dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
layer { name: "fc" type: "InnerProduct" bottom: "conv3" top: "fc"
  inner_product_param { num_output: 4 bias_term: false } }
layer { name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top1" }
"""


def make_planted(folder: Path) -> tuple[Path, Path, Path]:
    """Prototxt, caffemodel and data of a net with three channels: noise in [0, 1]; now and then a 5, which counts most,
    in the first iteration only; and a single 300, which nobody reads.

    So DIRECT is bad for `conv1`, whose range the 300 spoils, and right for `conv2`, where all that average over the
    iterations clip the 5s.
    """
    random = np.random.RandomState(1)
    data = np.zeros((BATCH * ITERATIONS, 3, SIZE, SIZE), np.float32)
    data[:, 0] = random.rand(BATCH * ITERATIONS, SIZE, SIZE)
    data[:BATCH, 1] = 5.0 * (random.rand(BATCH, SIZE, SIZE) < 0.02)
    data[3, 2, 7, 7] = 300.0
    blobs = {
        "conv1": (np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),),
        "conv2": (np.eye(2, 3, dtype=np.float32).reshape(2, 3, 1, 1),),
        "conv3": (np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1),),
        "fc": (random.standard_normal((4, 2 * SIZE * SIZE)).astype(np.float32),),
    }
    net = text_format.Parse(_NET, caffe_pb2.NetParameter())
    prototxt, weights, arrays = folder / "net.prototxt", folder / "net.caffemodel", folder / "data.npz"
    prototxt.write_text(_NET)
    write_weights(weights, "net", net.layer, blobs)
    np.savez(arrays, data=data, label=np.zeros(len(data), np.float32))
    return prototxt, weights, arrays


def run(files: tuple[Path, Path, Path], options: CalibrationOptions, notes: Notes | None = None) -> CalibrationReport:
    prototxt, weights, data = files
    return calibrate(prototxt, weights, replace(options, data=data), reporter=notes)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_planted(tmp_path_factory.mktemp("planted"))


OPTIONS = CalibrationOptions(
    recover="off",
    iterations=ITERATIONS,
    sampling_iterations=ITERATIONS,
    calibration_algos="auto",
    quantize_model=True,
    n_actors=1,
)


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
def test_auto_takes_another_algorithm_for_the_one_blob_that_needs_it(
    planted: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    report = run(planted, replace(OPTIONS, out=tmp_path / "one"), notes)
    assert list(report.algorithms) == ["conv1#1", "conv2#1"]
    assert report.algorithms["conv2#1"] == "DIRECT"
    assert report.algorithms["conv1#1"] != "DIRECT"
    assert list(report.output_errors) == [*ALGORITHMS, "auto"]
    assert report.output_errors["auto"] < 0.1 * min(report.output_errors[name] for name in ALGORITHMS)
    assert report.calibration_algo == "auto"
    assert fields_of(tmp_path / "one" / "report.json")["algorithms"] == report.algorithms

    names = [name for name, *_ in notes.phases]
    assert names[:3] == ["ranges", "auto, FP32", "auto, round 1, 5 choices"]
    assert names[3].startswith("auto, round 2, 8 choices")
    counts = {name: count for name, count, _ in notes.phases}
    assert counts[names[3]] < 8 * ITERATIONS, "what gives the same file as DIRECT is not measured again"
    assert notes.notes[-1].startswith("auto: output error ")
    assert "; of 2 blobs DIRECT for 1, " in notes.notes[-1]

    monkeypatch.setattr(choosing, "MAX_HELD_BYTES", 1)  # a call a program
    again = Notes()
    two = run(planted, replace(OPTIONS, out=tmp_path / "two", n_actors=2), again)
    assert Path(two.output).read_bytes() == Path(report.output).read_bytes()
    assert two.output_errors == report.output_errors
    assert f"{names[2]}, part 1 of " in " ".join(name for name, *_ in again.phases)


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
def test_auto_goes_through_the_whole_run_alike_on_1_and_2_actors(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(OPTIONS, quantize_model=False, sampling_iterations=3, sampling_single=True)
    reports = []
    for n_actors in (1, 2):
        out = tmp_path / str(n_actors)
        report = calibrate(tiny.prototxt, tiny.weights, replace(options, out=out, n_actors=n_actors))
        assert report.met
        assert report.output_errors["auto"] <= min(report.output_errors[name] for name in ALGORITHMS)
        reports.append(lasting((out / "report.json").read_text()))
    assert reports[0] == reports[1]
    assert reports[0]["algorithms"]


@pytest.mark.usefixtures("actors")
def test_auto_with_nothing_to_quantize_measures_nothing(tmp_path: Path) -> None:
    prototxt, weights, data = make_planted(tmp_path)
    text = _NET[: _NET.index('layer { name: "conv2"')] + _NET[_NET.index('layer { name: "fc"') :]
    prototxt.write_text(text.replace('bottom: "conv3"', 'bottom: "conv1"'))  # nothing runs, so fc need not fit
    notes = Notes()
    report = run((prototxt, weights, data), replace(OPTIONS, out=tmp_path / "out"), notes)
    assert (report.algorithms, report.output_errors, notes.phases) == ({}, {}, [])
    assert notes.notes[-1] == "auto: nothing to choose for"


ONE, TWO = Blob("one", 0), Blob("two", 0)


def values(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        pytest.param([{ONE: values(1, 2)}], [{ONE: values(1, 2)}], 0.0, id="equal"),
        pytest.param([{ONE: values(1, 3)}], [{ONE: values(0, 2)}], 2 / 4, id="one_blob"),
        pytest.param([{ONE: values(1)}, {ONE: values(6)}], [{ONE: values(2)}, {ONE: values(4)}], 5 / 20, id="sum"),
        pytest.param(
            [{ONE: values(1), TWO: values(200)}], [{ONE: values(2), TWO: values(100)}], (1 / 4 + 1) / 2, id="two_blobs"
        ),
        pytest.param([{ONE: values(3)}], [{ONE: values(0)}], 9.0, id="zero_expected"),
        pytest.param([{ONE: values(np.nan)}], [{ONE: values(1)}], np.inf, id="nan"),
        pytest.param([{ONE: values(np.inf)}], [{ONE: values(np.inf)}], np.inf, id="infinite"),
    ],
)
def test_output_error_is_relative_and_squared(
    found: list[dict[Blob, Array]], expected: list[dict[Blob, Array]], error: float
) -> None:
    assert output_error(found, expected) == error


@pytest.mark.parametrize(("metric", "blob"), [("accuracy-top1", "fc"), ("loss", "fc")])
def test_score_inputs_are_what_the_score_reads(tiny: Tiny, metric: str, blob: str) -> None:
    assert score_inputs(open_net(tiny.prototxt), metric) == (Blob(blob, 0),)


def test_score_inputs_without_a_score_are_all_outputs(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text[: text.index('layer { name: "top1"')])
    assert score_inputs(open_net(net.prototxt), "") == (Blob("fc", 0),)
