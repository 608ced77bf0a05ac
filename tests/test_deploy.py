"""The code of docs/deploy.md runs as it stands there, on the files that export writes, without distcalib."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from distcalib.data import open_source
from distcalib.engine.net import open_net
from distcalib.engine.worker import data_nodes
from distcalib.exporters import save_ir
from distcalib.exporters.preprocess import preprocessed, steps_of
from tests.exporters.exports import ROOT, exported

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_file import save_onnx

TEXT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SCENES = ROOT / "examples" / "digit_scenes"
CLASSIFIER, *BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.xml, model.onnx and scene.png, the third test scene."""
    out = tmp_path_factory.mktemp("deploy")
    model = SCENES / "digit_scenes.prototxt"
    net = open_net(model)
    made = exported(model, SCENES / "digit_scenes.caffemodel")
    made = preprocessed(made, steps_of(net.graph, model, net.name), "nhwc-gray", net.name)
    save_ir(made, out / "model.xml", {})
    save_onnx(made, out / "model.onnx", {}, net.name)
    [node] = data_nodes(net.graph)
    source = open_source(node.layer, model)
    values = source.batch(0)["data"][2, 0]
    source.close()
    p = node.layer.transform_param
    cv2.imwrite(
        str(out / "scene.png"), (values / p.scale + (p.mean_value[0] if p.mean_value else 0.0)).round().astype(np.uint8)
    )
    return out


@pytest.mark.parametrize("code", BLOCKS, ids=["OpenVINO", "ONNX Runtime"])
def test_code_of_the_docs_finds_the_digits(code: str, folder: Path) -> None:
    (folder / "code.py").write_text(code + "\nimport sys\nassert 'distcalib' not in sys.modules\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "code.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = sorted(line.split(":")[0] for line in done.stdout.splitlines())
    assert found == ["2", "7", "7", "8", "8"], done.stdout  # all that are there


def test_code_of_the_docs_reads_a_digit(tmp_path: Path) -> None:
    model = DIGITS / "digits.prototxt"
    net = open_net(model)
    made = exported(model, DIGITS / "digits.caffemodel")
    made = preprocessed(made, steps_of(net.graph, model, net.name), "nhwc-gray", net.name)
    (tmp_path / "build" / "digits").mkdir(parents=True)
    save_ir(made, tmp_path / "build" / "digits" / "model.xml", {})
    [node] = data_nodes(net.graph)
    source = open_source(node.layer, model)
    batch = source.batch(0)
    source.close()
    p = node.layer.transform_param
    pixels = (batch["data"][7, 0] / p.scale + p.mean_value[0]).round().astype(np.uint8)
    cv2.imwrite(str(tmp_path / "digit.png"), pixels)
    (tmp_path / "code.py").write_text(CLASSIFIER + "\nimport sys\nassert 'distcalib' not in sys.modules\n")
    done = subprocess.run([sys.executable, "code.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"a {batch['label'][7]:.0f}\n", done.stderr


def test_docs_have_three_ways() -> None:
    assert len(BLOCKS) == 2
    [cpp] = re.findall(r"```cpp\n(.*?)```", TEXT, re.DOTALL)
    assert 'set_tensor("data"' in cpp
    assert 'get_tensor("detection_out")' in cpp
    assert cpp.count("{") == cpp.count("}")
