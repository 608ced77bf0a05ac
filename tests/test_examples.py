"""The committed examples are whole, small, and what their README says; nothing that only their makers need is used."""

from collections import Counter
from pathlib import Path

import lmdb
import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, read_net, read_weights, test_net

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
MAX_BYTES = 2 * 1024 * 1024


@pytest.fixture(scope="module")
def net() -> caffe_pb2.NetParameter:
    return test_net(read_net(DIGITS / "digits.prototxt"))


@pytest.fixture(scope="module")
def records() -> list[tuple[bytes, caffe_pb2.Datum]]:
    with (
        lmdb.open(str(DIGITS / "digits_test_lmdb"), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return [(bytes(key), caffe_pb2.Datum.FromString(bytes(value))) for key, value in transaction.cursor()]


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
