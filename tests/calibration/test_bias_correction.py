"""--bias-correction from end to end: the two files that are written are what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, read_weights, write_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.report import TIMING_KEYS
from distcalib.report.form import ungrouped
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, QUANTIZABLE, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

NET, WEIGHTS = "net_quantized.prototxt", "net_new.caffemodel"
OPTIONS = CalibrationOptions(
    iterations=ITERATIONS,
    sampling_iterations=2,
    accuracy_loss=0.05,  # two of 48 images, so that conv3 alone falls back
    bias_correction=True,
    count_saved=True,
    n_actors=1,
)


@pytest.mark.slow
def test_calibrate_writes_the_corrected_weights_that_it_measured(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {NET, WEIGHTS, "report.json", "report.html", "distcalib.db"}
    assert (report.output, report.output_weights) == (str(tmp_path / NET), str(tmp_path / WEIGHTS))
    assert report.fp32_layers == ("conv3",)
    assert report.corrected_layers == report.int8_layers == ("conv2", "conv4")
    assert evaluate(report.output, tmp_path / WEIGHTS, ITERATIONS, n_actors=1).scores[report.metric] == report.score
    plain = calibrate(
        tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "plain", bias_correction=False, strategy="none")
    )
    assert report.all_int8_score_given == plain.all_int8_score
    assert (plain.corrected_layers, plain.all_int8_score_given, plain.output_weights) == ((), None, None)
    new, given = read_weights(tmp_path / WEIGHTS), read_weights(tiny.weights)
    for name, blobs in given.items():
        same = [np.array_equal(a, b) for a, b in zip(new[name], blobs, strict=True)]
        assert same == [True, name not in report.corrected_layers]


@pytest.mark.slow
def test_calibrate_takes_the_error_of_weights_and_input_alone(tmp_path: Path) -> None:
    """The first layer's error does not depend on its bias: corrected once more, the bias moves as far again."""
    net = make_tiny(tmp_path)
    options = replace(OPTIONS, quantize_model=True, weights_channel="multiple", enable_1st_conv=True)
    first = calibrate(net.prototxt, net.weights, replace(options, out=tmp_path / "a"))
    second = calibrate(net.prototxt, first.output_weights or "", replace(options, out=tmp_path / "b"))
    given, once, twice = (
        read_weights(path) for path in (net.weights, first.output_weights or "", second.output_weights or "")
    )
    moved = np.abs(once["conv1"][1] - given["conv1"][1]).max()
    assert moved > 1e-5
    assert np.abs(twice["conv1"][1] - once["conv1"][1]).max() == pytest.approx(moved, rel=0.1)


@pytest.mark.slow
def test_calibrate_gives_a_bias_to_layers_without(tmp_path: Path) -> None:
    def bare(text: str) -> str:
        return text.replace("num_output: 8", "num_output: 8 bias_term: false")

    net = make_tiny(tmp_path, edit=bare)
    blobs = read_weights(net.weights)
    assert len(blobs["conv4"]) == 2
    layers = read_net(net.prototxt).layer
    write_weights(net.weights, "tiny", layers, {**blobs, "conv4": blobs["conv4"][:1]})
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, quantize_model=True))
    assert report.output_weights is not None
    assert report.score is None
    assert report.all_int8_score_given is None
    assert report.corrected_layers == QUANTIZABLE
    [conv4] = [layer for layer in read_net(report.output).layer if layer.name == "conv4"]
    assert conv4.convolution_param.bias_term
    assert read_weights(report.output_weights)["conv4"][1].any()
    assert evaluate(report.output, report.output_weights, 1, n_actors=1).int8_layers == QUANTIZABLE


def test_calibrate_writes_no_weights_where_all_layers_fell_back(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(OPTIONS, out=tmp_path, keep_fp32=("conv2", "conv3", "conv4"))
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert (report.int8_layers, report.corrected_layers, report.output_weights) == ((), (), None)
    assert {path.name for path in tmp_path.iterdir()} == {NET, "report.json", "report.html", "distcalib.db"}


@pytest.mark.slow
def test_calibrate_corrects_alike_on_two_actors(tiny: Tiny, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, n_actors in ((one, 1), (two, 2)):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=folder, n_actors=n_actors, sampling_iterations=5))
    for name in (NET, WEIGHTS):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    reports = [
        ungrouped(json.loads((folder / "report.json").read_text().replace(f"{folder}", ""))) for folder in (one, two)
    ]
    first, second = ({key: value for key, value in found.items() if key not in TIMING_KEYS} for found in reports)
    assert first == second


@pytest.mark.golden
@pytest.mark.slow
def test_calibrate_corrects_a_trained_net(golden: Path, tmp_path: Path) -> None:
    """resnet20 has BatchNorm and Scale behind convolutions without bias."""
    model, weights = golden / "cifar10" / "resnet20.prototxt", golden / "cifar10" / "resnet20.caffemodel"
    options = replace(OPTIONS, iterations=100, sampling_iterations=10, strategy="none", out=tmp_path, n_actors=None)
    report = calibrate(model, weights, options)
    assert report.output_weights is not None
    assert report.score is not None
    assert evaluate(report.output, report.output_weights, 100).scores[report.metric] == report.score
    assert report.score >= 0.8165
