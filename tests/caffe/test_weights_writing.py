"""Caffemodels that protobuf and read_weights read alike, written without building them twice."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe import caffe_pb2, read_weights, weights_writing, write_net_weights, write_weights
from distcalib.errors import OutputError, WeightsError

LAYERS = [
    caffe_pb2.LayerParameter(name="data", type="Input", top=["x"]),
    caffe_pb2.LayerParameter(name="c", type="Convolution", bottom=["x"], top=["y"], blobs=[{"data": [9]}]),
    caffe_pb2.LayerParameter(name="r", type="ReLU", bottom=["y"], top=["y"]),
]


def arrays(*shapes: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def test_write_weights_writes_what_protobuf_reads(tmp_path: Path) -> None:
    weights = {"c": arrays((4, 3, 200, 1), (4,), (), (0,))}
    write_weights(tmp_path / "w", "net", LAYERS, weights)
    parsed = caffe_pb2.NetParameter.FromString((tmp_path / "w").read_bytes())
    assert parsed.name == "net"
    for written, given in zip(parsed.layer, LAYERS, strict=True):
        blobs = [np.array(b.data, np.float32).reshape(tuple(b.shape.dim)) for b in written.blobs]
        for ours, theirs in zip(weights.get(given.name, ()), blobs, strict=True):
            np.testing.assert_array_equal(theirs, ours, strict=True)
        bare = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in (written, given)]
        for layer in bare:
            layer.ClearField("blobs")
        assert bare[0] == bare[1]


def test_write_weights_writes_what_read_weights_reads(tmp_path: Path) -> None:
    weights = {"c": (*arrays((2, 3))[0].T[None], np.arange(6, dtype=np.float32)[::2], *arrays((), (0, 3)))}
    write_weights(tmp_path / "w", "net", LAYERS, weights)
    again = read_weights(tmp_path / "w")
    assert list(again) == ["c"]
    for ours, theirs in zip(again["c"], weights["c"], strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_write_net_weights_writes_the_layers_of_an_fp32_net_with_their_blobs(tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter(name="net", layer=LAYERS)
    net.layer[1].quantization_param.scale_in.append(2)
    weights = {"another net's": arrays((2,)), "c": arrays((4, 3))}
    write_net_weights(tmp_path / "w", net, weights)
    assert net.layer[1].HasField("quantization_param"), "the net is as it was"
    write_weights(tmp_path / "plain", "net", LAYERS, {"c": weights["c"]})
    assert (tmp_path / "w").read_bytes() == (tmp_path / "plain").read_bytes()


def test_write_weights_keeps_golden_files(golden: Path, tmp_path: Path) -> None:
    path = golden / "cifar10" / "resnet20.caffemodel"
    parsed = caffe_pb2.NetParameter.FromString(path.read_bytes())
    write_weights(tmp_path / "w", parsed.name, list(parsed.layer), read_weights(path))
    assert caffe_pb2.NetParameter.FromString((tmp_path / "w").read_bytes()) == parsed


def test_write_weights_refuses_weights_of_no_layer(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="w: weights for a, b, which are no layers of the net"):
        write_weights(tmp_path / "w", "net", LAYERS, {"b": arrays((1,)), "a": arrays((1,)), "c": arrays((1,))})
    assert not (tmp_path / "w").exists()


def test_write_weights_refuses_what_caffe_could_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_writing, "MAX_BYTES", 100)
    with pytest.raises(OutputError, match="w: would have 104 bytes, and Caffe reads at most 100"):
        write_weights(tmp_path / "w", "net", LAYERS, {"c": arrays((26,))})
    assert os.listdir(tmp_path) == []


PEAK_OF_READING = """
import resource, sys
from distcalib.caffe import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = read_weights(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_read_weights_costs_no_memory(tmp_path: Path) -> None:
    layers = [caffe_pb2.LayerParameter(name=f"fc{i}", type="InnerProduct") for i in range(4)]
    weights = {layer.name: (np.zeros((4096, 1024), np.float32),) for layer in layers}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_weights(tmp_path / "w", "net", layers, weights)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB, half of the file
    command = [sys.executable, "-c", PEAK_OF_READING, str(tmp_path / "w")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(printed) < 16 * 1024  # KiB; the file has 64 MiB


def test_write_net_weights_writes_no_paths(tmp_path: Path) -> None:
    """Else a delivered caffemodel would tell of the machine, and have other bytes in another folder."""
    files = []
    for folder in ("one", "two"):
        net = caffe_pb2.NetParameter(name="net")
        data = net.layer.add(name="data", type="Data", top=["data"])
        data.data_param.source, data.data_param.batch_size = f"/{folder}/lmdb", 8
        data.transform_param.mean_file = f"/{folder}/mean.binaryproto"
        write_net_weights(tmp_path / folder, net, {})
        files.append((tmp_path / folder).read_bytes())
        assert net.layer[0].data_param.source == f"/{folder}/lmdb", "the net is left as it is"
    assert files[0] == files[1]
    assert caffe_pb2.NetParameter.FromString(files[0]).layer[0].data_param.batch_size == 8
