"""FCN, SegNet, ENet, PSPNet and ICNet in small: scored by mean IoU, quantized, and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest

from distcalib.caffe import write_weights
from distcalib.caffe.graph import Blob
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.builder import build_model
from distcalib.engine.net import Net, open_net
from distcalib.layers import RandomBlobs
from distcalib.session.inspect import inspect
from tests.layers.harness import CONFIG
from tests.session.evaluated import evaluate
from tests.session.segmentation_nets import CLASSES, NETS, text_of

pytestmark = pytest.mark.usefixtures("actors")
Array = npt.NDArray[np.float32]
N = 4


class _Kept:
    """Random blobs that are remembered, to be written."""

    def __init__(self) -> None:
        self.made: dict[str, dict[int, Array]] = {}
        self._random = RandomBlobs(0)

    def count(self, layer: str) -> None:
        return None

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: str = "") -> Array:
        blob = self._random.get(layer, index, shape, role)  # type: ignore[arg-type]
        self.made.setdefault(layer, {})[index] = blob
        return blob


def scores(net: Net, weights: Path, data: Array) -> Array:
    """The outputs `score` of the net on random weights, which are written."""
    blobs = _Kept()
    shapes = {"data": (1, 3, 32, 32), "label": (1, 1, 32, 32)}
    built = build_model(net.graph, blobs, shapes, net.name, keep=[Blob("score", 0)])
    stored = {layer: tuple(made[i] for i in sorted(made)) for layer, made in blobs.made.items()}
    write_weights(weights, net.name, net.test.layer, stored)
    compiled = ov.Core().compile_model(built.model, "CPU", CONFIG)
    return np.concatenate([np.array(compiled([image[None]])[0]) for image in data])


def mean_iou(found: Array, labels: Array) -> float:
    """Of all pixels together, those of label 255 left out, over the classes that are there or found."""
    counted = labels != 255
    guess, truth = found.argmax(axis=1)[:, None][counted], labels[counted]
    shares = []
    for c in range(CLASSES):
        union = np.count_nonzero((guess == c) | (truth == c))
        if union:
            shares.append(np.count_nonzero((guess == c) & (truth == c)) / union)
    return float(np.mean(shares))


@pytest.mark.parametrize(
    "name", [name if name == "fcn" else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_segmentation_net(name: str, tmp_path: Path) -> None:
    prototxt, weights, arrays = tmp_path / f"{name}.prototxt", tmp_path / "net.caffemodel", tmp_path / "data.npz"
    prototxt.write_text(text_of(name))
    rng = np.random.default_rng(1)
    data = rng.standard_normal((N, 3, 32, 32)).astype(np.float32)
    net = open_net(prototxt)
    found = scores(net, weights, data)
    assert found.shape == (N, CLASSES, 32, 32)
    labels = np.where(rng.random((N, 1, 32, 32)) < 0.7, found.argmax(axis=1)[:, None], 255).astype(np.float32)
    wrong = rng.random(labels.shape) < 0.1
    labels[wrong] = rng.integers(0, CLASSES, labels.shape)[wrong]
    np.savez(arrays, data=data, label=labels)
    assert inspect(prototxt, weights, arrays).problems == ()
    measured = evaluate(prototxt, weights, N, data=arrays, n_actors=1)
    assert measured.scores["seg"] == pytest.approx(mean_iou(found, labels), abs=2e-3)  # some pixel may be a tie
    options = CalibrationOptions(
        iterations=N, sampling_iterations=N, data=arrays, strategy="none", out=tmp_path / "out", n_actors=1
    )
    report = calibrate(prototxt, weights, options)
    assert report.metric == "seg"
    assert report.int8_layers
    assert evaluate(report.output, weights, N, data=arrays, n_actors=1).scores["seg"] == report.score
    read = inspect(report.output, weights, arrays)
    assert read.problems == ()
    assert read.int8_layers == report.int8_layers
