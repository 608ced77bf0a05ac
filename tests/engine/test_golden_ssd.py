"""The tiny SSD against what real Intel Caffe recorded, through the worker and without Ray."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_weights
from distcalib.caffe.graph import Blob
from distcalib.data import open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.metrics import Detections, make_layer, merged, score_layer

N_ITERATIONS = 8


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "golden_ssd"


def worker_of(folder: Path, net: Net) -> NetWorker:
    indexes = {node.name: open_source(node.layer, net.path).index for node in data_nodes(net.graph)}
    weights = read_weights(folder / "tiny_ssd.caffemodel")
    return NetWorker(Setting(net.path, weights, "tiny_ssd.caffemodel", indexes), 1)


def loaded(worker: NetWorker, spec: NetSpec) -> NetWorker:
    worker.load("net", worker.compile(spec))
    return worker


@pytest.mark.parametrize(
    ("stem", "expected", "tolerance"),
    [("tiny_ssd", 0.121716, 1e-6), ("tiny_ssd_quantized", 0.115735, 1e-3)],
    ids=["FP32", "INT8"],
)
def test_map_is_that_of_caffe_test(folder: Path, stem: str, expected: float, tolerance: float) -> None:
    net = open_net(folder / f"{stem}.prototxt")
    rows = loaded(worker_of(folder, net), net.spec()).run("net", range(N_ITERATIONS))
    assert merged([row.scores["detection_eval"] for row in rows]) == pytest.approx(expected, abs=tolerance)


def test_blobs_of_the_first_batch_are_those_of_caffe(folder: Path) -> None:
    net = open_net(folder / "tiny_ssd.prototxt")
    recorded = np.load(folder / "tiny_ssd_batch0.npz")
    blobs = tuple(Blob(name, 0) for name in ("loc_flat", "smf", "pb"))
    [row] = loaded(worker_of(folder, net), net.spec(outputs=Outputs(blobs))).run("net", [0])
    for blob in blobs:
        np.testing.assert_allclose(row.values[blob], recorded[blob.name], rtol=1e-4, atol=1e-5)
    layer = next(node.layer for node in net.graph if node.name == "detection_out")
    found = make_layer(layer, [row.values[blob] for blob in blobs])
    assert found.shape == recorded["detection_out"].shape
    np.testing.assert_allclose(found, recorded["detection_out"], atol=1e-4)


@pytest.mark.parametrize("stem", ["tiny_ssd", "tiny_ssd_quantized"])
def test_host_layers_on_recorded_blobs_are_exactly_those_of_caffe(folder: Path, stem: str) -> None:
    net = open_net(folder / f"{stem}.prototxt")
    layers = {node.name: node.layer for node in net.graph}
    recorded = np.load(folder / f"{stem}_batch0.npz")
    found = make_layer(layers["detection_out"], [recorded[name] for name in ("loc_flat", "smf", "pb")])
    np.testing.assert_allclose(found, recorded["detection_out"], rtol=0, atol=2e-7)
    source = open_source(layers["data"], net.path)
    np.testing.assert_array_equal(source.batch(0)["label"], recorded["label"])
    made = score_layer(layers["detection_eval"], [recorded["detection_out"], recorded["label"]], ())
    rows = recorded["detection_eval"][0, 0]
    positives, detections = rows[rows[:, 0] == -1], rows[rows[:, 0] != -1]
    detections = detections[detections[:, 3:].any(axis=1)]
    assert isinstance(made, Detections)
    assert dict(made.positives) == {int(row[1]): int(row[2]) for row in positives}
    assert made.labels.tolist() == detections[:, 1].tolist()
    assert made.scores.tolist() == detections[:, 2].tolist()
    assert made.hits.tolist() == detections[:, 3].tolist()


def test_class_names_are_those_of_the_label_map(folder: Path) -> None:
    assert open_net(folder / "tiny_ssd.prototxt").class_names == {0: "background", 1: "a", 2: "b"}
