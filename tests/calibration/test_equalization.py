"""--equalize and --recover from end to end."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import Weights, read_weights
from distcalib.caffe.graph import Graph
from distcalib.calibration import observation as observing
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import open_net
from distcalib.errors import EngineError
from distcalib.quantize.equalization import Equalized, equalize
from distcalib.quantize.fusion import Fused
from scripts.bench.plant import plant, write_planted
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny

pytestmark = pytest.mark.usefixtures("actors")

NET, WEIGHTS = "net_quantized.prototxt", "net_new.caffemodel"
OPTIONS = CalibrationOptions(
    iterations=ITERATIONS,
    sampling_iterations=2,
    accuracy_loss=0.05,
    equalize=True,
    count_saved=True,
    strategy="none",
    n_actors=1,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bias_correction", [pytest.param(False, marks=pytest.mark.slow), True], ids=["equalize", "recover"]
)
def test_calibrate_writes_the_equalized_weights_that_it_measured(
    tiny: Tiny, tmp_path: Path, bias_correction: bool
) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, bias_correction=bias_correction))
    assert {path.name for path in tmp_path.iterdir()} == {NET, WEIGHTS, "report.json", "report.html", "distcalib.db"}
    assert report.equalized_layers == {"conv1": "conv2", "conv2": "conv3", "conv3": "conv4", "conv4": "fc"}
    assert report.corrected_layers == (report.int8_layers if bias_correction else ())
    new = tmp_path / WEIGHTS
    assert evaluate(report.output, new, ITERATIONS, n_actors=1).scores[report.metric] == report.score
    if not bias_correction:  # the FP32 net with the new weights is the FP32 net
        assert evaluate(tiny.prototxt, new, ITERATIONS, n_actors=1).scores[report.metric] == report.fp32_score
    plain = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "plain", equalize=False))
    assert report.fp32_score == plain.fp32_score
    assert report.all_int8_score_given == plain.all_int8_score


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "saved"),
    [
        pytest.param({"bias_correction": True}, {"--equalize": 1, "--bias-correction": 0}, id="recover"),
        pytest.param({"equalize": False, "bias_correction": True}, {"--bias-correction": 0}, id="bias_correction"),
        pytest.param({"max_candidates": 9}, {}, id="limited"),
    ],
)
def test_calibrate_counts_the_layers_that_each_option_saved(
    tiny: Tiny, tmp_path: Path, changes: dict[str, bool], saved: dict[str, int]
) -> None:
    options = replace(OPTIONS, out=tmp_path, strategy="ranked", accuracy_loss=0.2, **changes)  # type: ignore[arg-type]
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert report.layers_saved == saved
    assert report.all_int8_score_given is not None
    assert report.all_int8_score_given < report.fp32_score - 0.2  # type: ignore[operator]
    assert report.met
    assert len(report.candidates) == (1 if options.equalize else 2), "other searches are not the result's"


@pytest.mark.slow
def test_calibrate_equalizes_alike_on_two_actors(tiny: Tiny, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, n_actors in ((one, 1), (two, 2)):
        options = replace(OPTIONS, out=folder, n_actors=n_actors, bias_correction=True, quantize_model=True)
        calibrate(tiny.prototxt, tiny.weights, options)
    for name in (NET, WEIGHTS):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_calibrate_refuses_weights_that_change_the_fp32_net(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(graph: Graph, groups: Mapping[str, Fused], weights: Weights) -> Equalized:
        found = equalize(graph, groups, weights)
        blobs = dict(found.blobs)
        blobs["conv4"] = blobs["conv4"][0] * np.float32(1.01), *blobs["conv4"][1:]
        return replace(found, blobs=blobs)

    monkeypatch.setattr(observing, "equalize", spoilt)
    with pytest.raises(EngineError, match=r"--equalize: blob 'fc' of the FP32 net would change by .*; leave out"):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"distcalib.db"}


@pytest.mark.golden
@pytest.mark.slow
def test_calibrate_equalizes_planted_layers_away(golden: Path, tmp_path: Path) -> None:
    net = open_net(golden / "cifar10" / "resnet20.prototxt")
    weights = read_weights(golden / "cifar10" / "resnet20.caffemodel")
    layers = ("res2c_branch2b", "res4b_branch2b", "res4c_branch2b")
    write_planted(net, "net.caffemodel", plant(net.graph, weights, layers, seed=0), tmp_path)
    options = replace(OPTIONS, iterations=20, sampling_iterations=10, weights_channel="multiple", accuracy_loss=0.01)
    report = calibrate(tmp_path / "resnet20.prototxt", tmp_path / "net.caffemodel", replace(options, n_actors=None))
    assert report.met
    assert report.fp32_score is not None
    assert report.all_int8_score_given is not None
    assert report.all_int8_score_given < report.fp32_score - 0.05
