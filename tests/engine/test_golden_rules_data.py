"""What a real Intel Caffe does to images and averages and how it scores boxes, through the worker and without Ray."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, read_weights
from distcalib.caffe.graph import build_graph
from distcalib.caffe.phase import test_net
from distcalib.data import open_source
from distcalib.engine.builder import build_model
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import open_net
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.engine.worker import data_nodes
from distcalib.layers import FileBlobs
from distcalib.metrics import absent_classes, detections_of, merged
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import params_of, storage

ROOT = Path(__file__).resolve().parent.parent.parent

AVERAGES = (
    "k1s2p0_7_fp32",
    "k1s2p0_7_int8",
    "k2s2p0_7_fp32",
    "k2s2p0_7_int8",
    "k3s1p1_8_fp32",
    "k3s1p1_8_int8",
    "k3s2p0_8_fp32",
    "k3s2p0_8_int8",
    "k3s2p1_8_exclude_fp32",
    "k3s2p1_8_exclude_int8",
    "k3s2p1_8_fp32",
    "k3s2p1_8_int8",
    "k3s3p1_9_fp32",
    "k3s3p1_9_int8",
    "s8_k3s2p0_8_int8",
)


@pytest.fixture(scope="module")
def rules(golden: Path) -> Path:
    return golden / "golden_rules"


def score(prototxt: Path, weights: Path, blob: str, n_iterations: int) -> tuple[float, tuple[int, ...]]:
    """The mAP over `n_iterations`, and the classes without an object."""
    net = open_net(prototxt)
    parts = [row.scores[blob] for row in InProcess(net, read_weights(weights)).rows(net.spec(), range(n_iterations))]
    return merged(parts), absent_classes(detections_of(parts))


def moved(prototxt: Path, folder: Path, places: Mapping[str, Path]) -> Path:
    """A copy of `prototxt` in `folder` whose paths are those of `places`."""
    text = prototxt.read_text()
    for name, path in places.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{path}"')
    copy = folder / prototxt.name
    copy.write_text(text)
    return copy


@pytest.mark.golden
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_are_those_of_intel_caffe(rules: Path, name: str) -> None:
    path = rules / f"d_ave_{name}.prototxt"
    graph = build_graph(test_net(read_net(path)).layer, path.name)
    recorded = np.load(path.with_suffix(".npz"))
    answers = {key[2:]: recorded[key] for key in recorded.files if key.startswith("y_")}
    final = {top.name: top for node in graph for top in node.tops}
    blobs = FileBlobs(read_weights(path.with_suffix(".caffemodel")), path.name)
    keep = [final[blob] for blob in answers]
    built = build_model(graph, blobs, {"x": recorded["x"].shape}, path.name, keep=keep)
    outputs, _ = Program(compile_program(built, NetSpec(b"", path.name), 1), 1).run({"x": recorded["x"]})
    stored = storage(graph, find_fused(graph), params_of(graph))
    assert "o" in answers
    for blob, answer in answers.items():
        found, grid = outputs[final[blob]], stored.get(final[blob])
        assert found.shape == answer.shape
        if grid is None:
            assert np.abs(found - answer).max() <= 1e-5 * np.abs(answer).max()
        else:
            assert np.mean(np.rint(found * grid.scale) == np.rint(answer * grid.scale)) >= 0.999


def test_every_recorded_average_is_in_the_table(rules: Path) -> None:
    found = {path.stem.removeprefix("d_ave_") for path in rules.glob("d_ave_*.npz")}
    assert found == set(AVERAGES)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "expected", "absent"),
    [("ssd_eval5", 0.0608579, (3, 4)), ("ssd_b1", 0.121716, ())],
)
def test_the_map_counts_a_class_without_objects_as_0(
    golden: Path, tmp_path: Path, name: str, expected: float, absent: tuple[int, ...]
) -> None:
    ssd = golden / "golden_ssd"
    places = {file: ssd / file for file in ("tiny_ssd_lmdb", "labelmap.prototxt")}
    path = moved(golden / "golden_rules" / "b_map" / f"{name}.prototxt", tmp_path, places)
    n_iterations = 64 if name == "ssd_b1" else 8
    found, without = score(path, ssd / "tiny_ssd.caffemodel", "detection_eval", n_iterations)
    assert found == pytest.approx(expected, abs=1e-6)
    assert without == absent


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("y1", 0.00846878), ("y2", 0.00938813), ("y3", 0.0310187)])
def test_the_map_of_yolo_is_that_of_intel_caffe(rules: Path, tmp_path: Path, name: str, expected: float) -> None:
    folder, source = rules / "f_yolo", "examples/digit_scenes/digit_scenes_test_lmdb"
    places = {source: ROOT / source, "labelmap.prototxt": folder / "labelmap.prototxt"}
    path = moved(folder / f"{name}.prototxt", tmp_path, places)
    found, _ = score(path, folder / f"{name}.caffemodel", "ev", 25)
    assert found == pytest.approx(expected, rel=1e-4)


PADDED = (
    "enc_crop4_pad2",
    "enc_nopad",
    "enc_pad1_mean_scale",
    "enc_pad2_mean_scale",
    "enc_pad2_none",
    "enc_pad2_scale",
    "img_pad2_mean_scale",
    "raw_pad2_mean_scale",
)


def test_every_recorded_frame_is_in_the_table(rules: Path) -> None:
    assert {path.stem for path in (rules / "a_pad").glob("*.npz")} == set(PADDED)


@pytest.mark.golden
@pytest.mark.parametrize("name", PADDED)
def test_data_is_that_of_intel_caffe(rules: Path, name: str) -> None:
    folder = rules / "a_pad"
    net = open_net(folder / f"{name}.prototxt")
    [node] = data_nodes(net.graph)
    [answer] = [array for key, array in np.load(folder / f"{name}.npz").items() if key in ("data", "y_data")]
    np.testing.assert_array_equal(open_source(node.layer, net.path).batch(0)["data"], answer)


@pytest.mark.golden
@pytest.mark.parametrize(("name", "expected"), [("tiny_ssd_jpeg_sampler", 0.124648), ("tiny_ssd_jpeg_plain", 0.116994)])
def test_batch_sampler_encodes_again_as_intel_caffe_does(golden: Path, name: str, expected: float) -> None:
    folder = golden / "golden_ssd_jpeg"
    net = open_net(folder / f"{name}.prototxt")
    [node] = data_nodes(net.graph)
    recorded = np.load(folder / f"{name}_batch0.npz")
    np.testing.assert_array_equal(open_source(node.layer, net.path).batch(0)["data"], recorded["data"])
    found, _ = score(folder / f"{name}.prototxt", folder / "tiny_ssd.caffemodel", "detection_eval", 8)
    assert found == pytest.approx(expected, abs=1e-6)
