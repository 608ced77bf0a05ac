"""A file in place of the engine: the same scores, whatever the size of its batch."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, read_weights, write_weights
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import open_net
from distcalib.engine.spec import ElsewhereSpec, Row
from distcalib.errors import OptionError
from distcalib.exporters import Exported, save_ir
from distcalib.exporters.measured import blobs_of, read_file
from distcalib.exporters.preprocess import preprocessed, steps_of
from distcalib.metrics import merged
from tests.data import test_images
from tests.exporters.exports import ROOT, exported, rows, score
from tests.layers.harness import random

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_file import save_onnx

DIGITS, SCENES = ROOT / "examples" / "digits", ROOT / "examples" / "digit_scenes"
CASES = {
    "digits": (DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel", "accuracy-top1"),
    "scenes": (SCENES / "digit_scenes.prototxt", SCENES / "digit_scenes.caffemodel", "detection_eval"),
}


@pytest.mark.parametrize("batch", [None, 1, 7, 64], ids=["open", "1", "7", "64"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_scores_as_the_engine_does(case: str, batch: int | None, tmp_path: Path) -> None:
    model, weights, blob = CASES[case]
    net, path = open_net(model), tmp_path / "model.xml"
    made = exported(model, weights, batch=batch)
    assert made.batch == batch
    save_ir(made, path, {})
    file = read_file(path, blobs_of(made.names, net.graph, path, net.name), net.graph)
    path.unlink()  # an actor on another node has none
    found = InProcess(net, read_weights(weights)).rows(ElsewhereSpec(net.spec(), made.outputs, file), range(2))
    assert merged([row.scores[blob] for row in found]) == pytest.approx(score(rows(model, weights, 2), blob), abs=1e-3)


def test_blobs_of_names_outputs_that_the_net_has_not() -> None:
    net = open_net(DIGITS / "digits.prototxt")
    assert list(blobs_of(["fc6"], net.graph, Path("model.xml"), net.name)) == ["fc6"]
    with pytest.raises(OptionError, match=r"model.xml: its output 'prob' is not a blob of digits.prototxt"):
        blobs_of(["fc6", "prob"], net.graph, Path("model.xml"), net.name)


IMAGE_NET = """
layer {{ name: "data" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "{source}"
  root_folder: "{folder}/" batch_size: 6 new_height: 8 new_width: 9 }} transform_param {{ {transform} }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param {{ num_output: 6 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
layer {{ name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top1" }}
"""
SIZES = [(8, 9), (20, 30), (7, 5), (20, 30), (41, 13), (7, 5)]


def image_net(folder: Path, transform: str) -> tuple[Path, Path]:
    """A net on a list of images of several sizes, and its weights."""
    images = {f"{i}.png": test_images.smooth(*size, i) for i, size in enumerate(SIZES)}
    source = test_images.write_list(folder, images)
    model, weights = folder / "net.prototxt", folder / "net.caffemodel"
    model.write_text(IMAGE_NET.format(source=source, folder=folder, transform=transform), encoding="utf-8")
    blobs = {"fc": (random(6, 216, seed=2) * np.float32(0.01), random(6, seed=3))}
    write_weights(weights, "net", read_net(model).layer, blobs)
    return model, weights


def rows_of_file(made: Exported, model: Path, weights: Path, path: Path, form: str | None) -> list[Row]:
    net = open_net(model)
    if path.suffix == ".xml":
        save_ir(made, path, {})
    else:
        save_onnx(made, path, {}, net.name)
    file = read_file(path, blobs_of(made.names, net.graph, path, net.name), net.graph, form)
    spec = ElsewhereSpec(net.spec(), made.outputs, file, form is not None)
    return InProcess(net, read_weights(weights), skip_bad=True).rows(spec, range(2))


@pytest.mark.parametrize("name", ["model.xml", "model.onnx"])
@pytest.mark.parametrize("batch", [None, 4], ids=["open", "4"])
@pytest.mark.parametrize("form", ["nhwc-bgr", "nchw-rgb"])
def test_a_file_that_takes_images_scores_as_the_engine_does(
    form: str, batch: int | None, name: str, tmp_path: Path
) -> None:
    model, weights = image_net(tmp_path, "mean_value: 100 mean_value: 110 mean_value: 120 scale: 0.02")
    net = open_net(model)
    made = preprocessed(exported(model, weights, batch=batch), steps_of(net.graph, model, net.name), form, net.name)
    found, expected = rows_of_file(made, model, weights, tmp_path / name, form), rows(model, weights, 2)
    assert made.names == ("fc",)
    for blob in ("top1", "loss"):
        ours, theirs = ([row.scores[blob] for row in some] for some in (expected, found))
        assert merged(theirs) == pytest.approx(merged(ours), abs=1e-6)
