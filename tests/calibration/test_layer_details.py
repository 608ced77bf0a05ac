"""What the report says of a layer's input and weights, against the values themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe import read_net, read_weights
from distcalib.caffe.graph import Blob
from distcalib.calibration import layer_details
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import open_net
from distcalib.engine.spec import Outputs
from distcalib.report import LayerDetail
from distcalib.session.backend import rows
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Silent
from distcalib.session.session import Session
from tests.calibration.reports import lasting
from tests.session.tiny import ITERATIONS, QUANTIZABLE, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=3, n_actors=1, recover="off")
INPUTS = {"conv2": Blob("conv1", 1), "conv3": Blob("conv2", 1), "conv4": Blob("conv3", 1)}
"""What the layers read: what a ReLU in place makes of the one before."""


@pytest.fixture(scope="module")
def read(tiny: Tiny, actors: None) -> dict[str, npt.NDArray[np.float32]]:
    """By layer its input over three iterations."""
    net = open_net(tiny.prototxt)
    outputs = Outputs(tuple(INPUTS.values()))
    with Session(net, tiny.weights, Silent(), SessionOptions(n_actors=1, iterations=3)) as session:
        [result] = session.measure("inputs", [(net.spec(outputs=outputs), 3)])
    return {name: np.stack([row.values[blob] for row in rows(result)]) for name, blob in INPUTS.items()}


def counted(values: npt.NDArray[np.float32], detail: LayerDetail) -> list[int]:
    """|values| in the bins of `detail`."""
    edges = np.arange(len(detail.sizes) + 1) * detail.bin_width
    return [int(n) for n in np.histogram(np.abs(values), edges)[0]]


@pytest.mark.parametrize(("algorithm", "n_counted"), [("DIRECT", 1), ("MSE", 3)])
def test_inputs_are_counted_and_held_against_the_threshold(
    tiny: Tiny, read: dict[str, npt.NDArray[np.float32]], tmp_path: Path, algorithm: str, n_counted: int
) -> None:
    options = replace(OPTIONS, calibration_algos=algorithm, accuracy_loss=1.0, out=tmp_path)
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert list(report.layer_details) == list(QUANTIZABLE)
    params = {layer.name: layer.quantization_param for layer in read_net(report.output).layer}
    for name, detail in report.layer_details.items():
        values = read[name][:n_counted]
        assert detail.input == INPUTS[name].name
        assert detail.low == pytest.approx(float(read[name].min()), rel=1e-4)
        assert detail.high == pytest.approx(float(read[name].max()), rel=1e-4)
        assert detail.threshold == pytest.approx(255 / params[name].scale_in[0], rel=1e-4)
        assert 32 <= len(detail.sizes) <= 64
        assert list(detail.sizes) == counted(values, detail)
        assert sum(detail.sizes) == values.size
        assert detail.threshold is not None
        beyond = float(np.mean(values > detail.threshold))
        one_bin = float(np.mean(np.abs(values - detail.threshold) < detail.bin_width))
        assert detail.clipped is not None
        assert beyond - one_bin <= detail.clipped <= beyond + 1e-4
    clipped = {detail.clipped for detail in report.layer_details.values()}
    assert (clipped == {0.0}) is (algorithm == "DIRECT")


def test_channels_are_told_from_the_widest_to_the_narrowest(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_details, "N_CHANNELS", 7)
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, quantize_model=True, out=tmp_path))
    weights = read_weights(tiny.weights)
    for name, detail in report.layer_details.items():
        sizes = sorted(np.abs(weights[name][0]).max(axis=(1, 2, 3)).tolist(), reverse=True)
        assert detail.n_channels == len(sizes)
        expected = sizes if len(sizes) <= 7 else [*sizes[:6], sizes[7]]  # conv4 has 8: the first and the last are shown
        assert list(detail.channels) == pytest.approx(expected, rel=1e-4)


def test_an_fp32_layer_has_the_threshold_that_it_would_have(tiny: Tiny, tmp_path: Path) -> None:
    fallen = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "a"))
    whole = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, accuracy_loss=1.0, out=tmp_path / "b"))
    assert fallen.fp32_layers == ("conv3",)
    assert fallen.layer_details["conv3"] == whole.layer_details["conv3"]


@pytest.mark.slow
def test_details_are_the_same_on_any_number_of_actors_and_from_the_journal(tiny: Tiny, tmp_path: Path) -> None:
    one = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "1"))
    two = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "2", n_actors=2))
    again = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "1"))
    assert one.layer_details
    assert lasting(one) == lasting(two) == lasting(again)


def test_blobs_that_are_too_large_are_not_counted(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_details, "MAX_BYTES", 8 * 4 * 8 * 8 * 4)  # that of conv1: 4 channels, others have 6
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert {name for name, detail in report.layer_details.items() if detail.sizes} == {"conv2"}
    assert report.layer_details["conv3"].clipped is None
    assert report.layer_details["conv3"].high > 0.0


def test_nothing_is_counted_where_nothing_is_measured(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, quantize_model=True, out=tmp_path))
    assert {detail.sizes for detail in report.layer_details.values()} == {()}
    assert None not in {detail.threshold for detail in report.layer_details.values()}


def test_a_first_convolution_on_other_input_has_no_threshold(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, encoded=True)
    options = replace(OPTIONS, first_conv_force_u8=True, accuracy_loss=1.0, out=tmp_path / "out")
    report = calibrate(net.prototxt, net.weights, options)
    assert report.layer_details["conv1"].threshold is None
    assert report.layer_details["conv1"].clipped is None
    assert report.layer_details["conv2"].threshold is not None
