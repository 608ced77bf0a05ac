"""An IR in plain OpenVINO, in a process that never imports distcalib: its kernels, and the score of `evaluate`."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openvino as ov
import pytest

from distcalib.engine.spec import is_int8_kernel
from distcalib.exporters import save_ir
from tests.cpu import needs_vnni
from tests.exporters.exports import ROOT, batches, exported, in_plain_openvino, placed, quantized, rows, score

DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def digits_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prototxt of examples/digits with all layers in INT8."""
    return quantized(DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel", tmp_path_factory.mktemp("digits"))


def top1_of(model: Path, weights: Path, n: int, folder: Path, top: str) -> tuple[float, list[str]]:
    """Top-1 of the exported net over `n` iterations in plain OpenVINO, and the kernels."""
    path = folder / "model.xml"
    save_ir(exported(model, weights), path, {})
    fed = batches(model, n)
    answers, kernels = in_plain_openvino(path, {"data": np.stack([batch["data"] for batch in fed])}, folder)
    labels = np.stack([batch["label"].reshape(-1) for batch in fed])
    return float((answers[top].argmax(-1) == labels).mean()), kernels


def test_save_ir_of_fp32_scores_as_evaluate(tmp_path: Path) -> None:
    model, weights = DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel"
    found, kernels = top1_of(model, weights, 18, tmp_path, "fc6")
    assert found == score(rows(model, weights, 18), "accuracy-top1")
    assert kernels
    assert not [kind for kind in kernels if is_int8_kernel(kind)]


@pytest.mark.slow
@needs_vnni
def test_save_ir_of_int8_scores_as_evaluate_on_int8_kernels(digits_int8: Path, tmp_path: Path) -> None:
    weights = DIGITS / "digits.caffemodel"
    found, kernels = top1_of(digits_int8, weights, 18, tmp_path, "fc6")
    assert found == score(rows(digits_int8, weights, 18), "accuracy-top1")
    assert len([kind for kind in kernels if is_int8_kernel(kind)]) == 9


@pytest.mark.slow
@needs_vnni
@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "n_int8"),
    [("resnet20.prototxt", 0), ("intel_quantized/resnet20_multiple_DIRECT_quantized.prototxt", None)],
    ids=["FP32", "INT8"],
)
def test_save_ir_of_resnet20_scores_as_evaluate(golden: Path, name: str, n_int8: int | None, tmp_path: Path) -> None:
    weights = golden / "cifar10" / "resnet20.caffemodel"
    model = placed(golden / "cifar10" / name, tmp_path)
    found, kernels = top1_of(model, weights, 10, tmp_path, "fc")
    assert found == score(rows(model, weights, 10), "accuracy-top1")
    n_found = len([kind for kind in kernels if is_int8_kernel(kind)])
    assert n_found == n_int8 if n_int8 is not None else n_found >= 12


def test_save_ir_keeps_fp32_weights_names_and_info(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    made = exported(DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel")
    save_ir(made, path, {"version": "1", "scales": {"conv1": 2.5}})
    model = ov.Core().read_model(path)
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["data", "fc6"]
    assert str(model.inputs[0].get_partial_shape()) == "[?,1,16,16]"
    assert model.get_rt_info(["distcalib", "version"]).astype(str) == "1"
    assert model.get_rt_info(["distcalib", "scales"]).astype(str) == '{"conv1": 2.5}'
    layers = {layer.get("name") for layer in ElementTree.parse(path).getroot().iter("layer")}
    assert {"conv1", "conv5_dw", "fc6"} <= layers
    kinds = {layer.get("type"): layer.find("data") for layer in ElementTree.parse(path).getroot().iter("layer")}
    constant = kinds["Const"]
    assert constant is not None
    assert constant.get("element_type") != "f16"
