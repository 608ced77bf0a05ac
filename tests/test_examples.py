"""The committed examples are whole, small, and what their README says; nothing that only their makers need is used."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, read_label_map, read_net, read_weights, test_net
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data.lmdb_records import LmdbRecords

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
SCENES = DIGITS.parent / "digit_scenes"
MAX_BYTES = 2 * 1024 * 1024
MAX_SCENES_BYTES = 6 * 1024 * 1024


def all_records(database: Path) -> list[tuple[bytes, bytes]]:
    """Through distcalib, which shares what is open in a process: LMDB itself refuses to open it once more."""
    opened = LmdbRecords(database)
    try:
        return [(bytes(key), bytes(value)) for key, value in opened.read(0, opened.n_records)]
    finally:
        opened.close()


@pytest.fixture(scope="module")
def net() -> caffe_pb2.NetParameter:
    return test_net(read_net(DIGITS / "digits.prototxt"))


@pytest.fixture(scope="module")
def records() -> list[tuple[bytes, caffe_pb2.Datum]]:
    return [(key, caffe_pb2.Datum.FromString(value)) for key, value in all_records(DIGITS / "digits_test_lmdb")]


def test_digits_is_small() -> None:
    assert sum(path.stat().st_size for path in DIGITS.rglob("*") if path.is_file()) < MAX_BYTES


def test_digits_is_seen_once_in_18_iterations(
    net: caffe_pb2.NetParameter, records: list[tuple[bytes, caffe_pb2.Datum]]
) -> None:
    assert net.layer[0].data_param.source == "digits_test_lmdb"
    assert net.layer[0].data_param.batch_size * 18 == len(records)
    assert [key for key, _ in records] == [b"%08d" % i for i in range(len(records))]


def test_digits_has_each_digit_equally_often(records: list[tuple[bytes, caffe_pb2.Datum]]) -> None:
    n_images = Counter(datum.label for _, datum in records)
    assert sorted(n_images) == list(range(10))
    assert max(n_images.values()) - min(n_images.values()) <= 6  # scikit-learn's classes have 174 to 183


def test_digits_has_depthwise_layers_and_blobs_for_every_layer(net: caffe_pb2.NetParameter) -> None:
    weights = read_weights(DIGITS / "digits.caffemodel")
    depthwise = {layer.name for layer in net.layer if layer.convolution_param.group > 1}
    assert depthwise == {"conv2_dw", "conv3_dw", "conv4_dw", "conv5_dw"}
    learnt = {layer.name for layer in net.layer if layer.type in {"Convolution", "BatchNorm", "Scale", "InnerProduct"}}
    assert set(weights) == learnt


@pytest.mark.parametrize("layer", ["conv3_dw", "conv5_dw"])
def test_digits_has_channels_of_widely_differing_ranges(layer: str) -> None:
    gamma = np.abs(read_weights(DIGITS / "digits.caffemodel")[f"{layer}_scale"][0])
    assert gamma.max() / np.median(gamma) > 16


@pytest.fixture(scope="module")
def scenes_net() -> caffe_pb2.NetParameter:
    return test_net(read_net(SCENES / "digit_scenes.prototxt"))


@pytest.fixture(scope="module")
def scenes() -> list[caffe_pb2.AnnotatedDatum]:
    found = all_records(SCENES / "digit_scenes_test_lmdb")
    return [caffe_pb2.AnnotatedDatum.FromString(value) for _, value in found]


def test_digit_scenes_is_small() -> None:
    assert sum(path.stat().st_size for path in SCENES.rglob("*") if path.is_file()) < MAX_SCENES_BYTES


def test_digit_scenes_is_seen_once_in_25_iterations(
    scenes_net: caffe_pb2.NetParameter, scenes: list[caffe_pb2.AnnotatedDatum]
) -> None:
    assert len(scenes) == 500
    assert scenes_net.layer[0].data_param.batch_size * 25 == len(scenes)
    assert {(one.datum.channels, one.datum.height, one.datum.width) for one in scenes} == {(1, 64, 64)}


def test_digit_scenes_has_boxes_of_every_digit_within_the_canvas(scenes: list[caffe_pb2.AnnotatedDatum]) -> None:
    names = read_label_map(SCENES / "labelmap.prototxt")
    groups = [group for one in scenes for group in one.annotation_group]
    assert {names[group.group_label] for group in groups} == set("0123456789")
    for box in (annotation.bbox for group in groups for annotation in group.annotation):
        assert 0 <= box.xmin < box.xmax <= 1
        assert 0 <= box.ymin < box.ymax <= 1
    assert {sum(len(group.annotation) for group in one.annotation_group) for one in scenes} == {2, 3, 4, 5}
    assert sum(len(group.annotation) for group in groups) == 1762


def test_digit_scenes_reads_boxes_from_three_maps_and_has_blobs_for_every_layer(
    scenes_net: caffe_pb2.NetParameter,
) -> None:
    assert sum(layer.type == "PriorBox" for layer in scenes_net.layer) == 3
    learnt = {layer.name for layer in scenes_net.layer if layer.type in {"Convolution", "BatchNorm", "Scale"}}
    assert set(read_weights(SCENES / "digit_scenes.caffemodel")) == learnt


@pytest.mark.slow
@pytest.mark.parametrize("recover", ["auto", "off"])
def test_digit_scenes_is_calibrated(tmp_path: Path, actors: object, recover: str) -> None:
    """What `make demo-detection` does, and with the weights given."""
    report = calibrate(
        SCENES / "digit_scenes.prototxt",
        SCENES / "digit_scenes.caffemodel",
        CalibrationOptions(iterations=25, detection=True, accuracy_loss=0.01, recover=recover, out=tmp_path),
    )
    assert report.fp32_score is not None
    assert report.fp32_score > 0.75
    assert report.met
    assert report.score is not None
    assert report.score >= report.fp32_score - 0.01
    assert bool(report.fp32_layers) == (recover == "off"), "new weights leave nothing to pay"
    assert report.int8_layers
