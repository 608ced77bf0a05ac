"""The example package of plugins, used as a user would, in processes of their own: plugins stay imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net
from distcalib.errors import OptionError
from distcalib.plugins import load_plugins
from tests.calibration.reports import fields_of
from tests.session.tiny import Tiny

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
NET = """
name: "plugged"
layer {{ name: "data" type: "NpyData" top: "data" top: "label" data_param {{ source: "{images}" batch_size: 8 }} }}
{layers}
layer {{ name: "error" type: "AbsoluteError" bottom: "prob" bottom: "label" top: "error" }}
"""


def distcalib(*arguments: str | Path, plugged: bool = True) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *[str(PLUGIN)] * plugged])
    command = [sys.executable, "-m", "distcalib", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)


@pytest.fixture
def net(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny net with its records in arrays, a HardTanh in front of its last layer, and the plugin's score."""
    random = np.random.RandomState(5)
    np.save(tmp_path / "images.npy", random.randint(0, 256, (24, 3, 8, 8)).astype(np.uint8))
    with (tmp_path / "images.npy.labels").open("wb") as file:
        np.save(file, random.randint(0, 5, 24).astype(np.uint8))
    layers = [
        layer
        for layer in read_net(tiny.prototxt).layer
        if layer.type in ("Convolution", "ReLU", "Pooling", "InnerProduct")
    ]
    last = layers[-1]
    tanh = f'layer {{ name: "tanh" type: "HardTanh" bottom: "{last.bottom[0]}" top: "tanh" }}'
    last.bottom[0] = "tanh"
    text = "\n".join(f"layer {{ {layer} }}" for layer in layers[:-1])
    text += (
        f'\n{tanh}\nlayer {{ {last} }}\nlayer {{ name: "prob" type: "Softmax" bottom: "{last.top[0]}" top: "prob" }}'
    )
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format(images=tmp_path / "images.npy", layers=text))
    return path


def test_actors_know_the_layer_the_score_the_data_and_the_strategy_of_a_plugin(tiny: Tiny, net: Path) -> None:
    out = net.parent / "out"
    flags: list[str | Path] = [
        "-w",
        tiny.weights,
        "-i",
        "3",
        "-n",
        "error",
        "-s",
        "1",
        "-l",
        "0",
        "--actors",
        "2",
        "--out",
        out,
    ]
    done = distcalib("calibrate", net, *flags, "--strategy", "halves", "--plugin", "distcalib_example")
    assert done.returncode in (0, 2), done.stderr
    report = fields_of(out / "report.json")
    assert (report["strategy"], report["metric"], report["lower_is_better"]) == ("halves", "error", True)
    assert 1 <= len(report["candidates"]) <= 3
    assert len(report["versions"]["plugin distcalib_example"]) == 16
    done = distcalib(
        "evaluate",
        report["output"],
        "-w",
        report["output_weights"] or tiny.weights,
        "-i",
        "3",
        "--json",
        "--plugin",
        PLUGIN / "distcalib_example/__init__.py",
    )
    assert json.loads(done.stdout)["scores"]["error"] == report["score"], done.stderr


def test_without_the_plugin_the_net_is_refused_by_name(tiny: Tiny, net: Path) -> None:
    done = distcalib("evaluate", net, "-w", tiny.weights, "-i", "1", plugged=False)
    assert done.returncode == 1
    assert "layer 'tanh' (HardTanh)" in done.stderr
    done = distcalib("inspect", net, "-w", tiny.weights, "--plugin", "distcalib_example")
    assert (done.returncode, "HardTanh" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module", r"^--plugin no_such_module: cannot be imported \(ModuleNotFoundError: No module named"),
        (
            "absent.py",
            r"^--plugin absent\.py: cannot be imported \(FileNotFoundError: absent\.py is not a file\); correct",
        ),
    ],
)
def test_load_plugins_names_what_cannot_be_imported(name: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        load_plugins([name])


def test_load_plugins_shows_what_the_module_raises(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from distcalib.layers import converts\nconverts('ReLU')(lambda layer, x: x)\n")
    with pytest.raises(OptionError, match="ValueError: layer type ReLU is registered twice"):
        load_plugins([str(tmp_path / "bad.py")])


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    folder = tmp_path / "distcalib_example-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: distcalib-example\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[distcalib.plugins]\nexample = distcalib_example\n")
    lines = ["import distcalib", "distcalib.EvaluationOptions()", "from distcalib.layers import CONVERTED"]
    code = "; ".join([*lines, "print('HardTanh' in CONVERTED)"])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, PLUGIN, tmp_path)))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "True", done.stderr
