"""What an actor hands out, in this process. (Scores: test_cifar10; ranges: tests/session.)"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob
from distcalib.engine.spec import NetSpec, Outputs, Row, Sampling
from distcalib.engine.worker import NetWorker, Setting
from distcalib.errors import EngineError
from tests.data.databases import data_layer, encoded_datum, noise, write_datums

_NET = """
layer { name: "in" type: "Input" top: "x" top: "label" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "square" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }
layer { name: "half" type: "Power" bottom: "y" top: "z" power_param { scale: 0.5 } }
layer { name: "top1" type: "Accuracy" bottom: "z" bottom: "label" top: "top1" }
"""
X = np.arange(24, dtype=np.float32).reshape(8, 3)


def run(outputs: Outputs | None, iterations: range) -> list[Row]:
    net = text_format.Parse(_NET, caffe_pb2.NetParameter()).SerializeToString()
    arrays = {"x": X, "label": np.full(8, 2, np.float32)}
    worker = NetWorker(Setting(Path("net.prototxt"), {}, "net.caffemodel", {}, arrays), 1)
    worker.load("net", worker.compile(NetSpec(net, "net.prototxt", outputs=outputs)))
    return worker.run("net", iterations)


@pytest.mark.parametrize(
    ("first", "iterations"),
    [
        pytest.param(0, range(4), id="all"),
        pytest.param(0, range(1, 3), id="a_shard"),
        pytest.param(2, range(2), id="from_later_on"),
    ],
)
def test_worker_hands_out_values_by_iteration(first: int, iterations: range) -> None:
    x, y, z = (Blob(name, 0) for name in "xyz")
    rows = run(Outputs((z, x, y), first), iterations)
    assert len(rows) == len(iterations)
    for row, iteration in zip(rows, iterations, strict=True):
        batch = X[2 * (first + iteration) :][:2]
        assert list(row.values) == [z, x, y]
        assert np.array_equal(row.values[x], batch)
        assert np.array_equal(row.values[y], batch**2)
        assert np.array_equal(row.values[z], batch**2 / 2)
        assert (row.scores, row.ranges) == ({}, ())


def test_worker_that_scores_hands_out_nothing() -> None:
    [row] = run(None, range(1))
    assert row.scores["top1"].value == 1.0
    assert row.values == {}


_QUANTIZED = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 }
  quantization_param { scale_in: 5 scale_out: 1 scale_params: 7 bw_layer_out: 32 } }
"""


def test_worker_takes_the_mean_error_of_a_block_of_iterations() -> None:
    random = np.random.RandomState(0)
    x = random.rand(10, 3).astype(np.float32)
    weight, bias = random.standard_normal((2, 3)).astype(np.float32), np.array([0.31, -0.72], np.float32)
    net = text_format.Parse(_QUANTIZED, caffe_pb2.NetParameter()).SerializeToString()
    worker = NetWorker(Setting(Path("net.prototxt"), {"fc": (weight, bias)}, "w", {}, {"x": x}), 1)
    tap = Blob("y", 0)
    sampling = Sampling((tap,), True, 1, 5, 3, errors=True)
    assert sampling.row_sizes == (3, 1)
    worker.load("net", worker.compile(NetSpec(net, "net.prototxt", sampling)))
    rows = worker.run("net", range(2))
    integers = np.rint(x * np.float32(5)) @ np.rint(weight * np.float32(7)).T + np.rint(bias * np.float32(35))
    errors = integers / 35 - (x @ weight.T + bias)
    for row, records in zip(rows, (slice(2, 8), slice(8, 10)), strict=True):
        assert list(row.values) == [tap]
        assert np.allclose(row.values[tap], errors[records].mean(axis=0), atol=1e-6)
        assert (row.scores, row.ranges) == ({}, ())


def test_worker_decodes_once_for_all_programs_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_datums(tmp_path / "db", [encoded_datum(noise(4, 4, 3, seed=i)) for i in range(6)])
    data = data_layer(tmp_path / "db", batch=2)
    power = caffe_pb2.LayerParameter(name="power", type="Power", bottom=["data"], top=["y"])
    specs = []
    for scale in (0.5, 0.25):
        power.power_param.scale = scale
        specs.append(NetSpec(caffe_pb2.NetParameter(layer=[data, power]).SerializeToString(), "net.prototxt"))
    decoded: list[int] = []

    def counted(encoded: Any, flags: int) -> object:
        decoded.append(flags)
        return decode(encoded, flags)

    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", counted)
    found = {}
    for kept_bytes in (0, 1 << 20):
        worker = NetWorker(Setting(Path("net.prototxt"), {}, "net.caffemodel", {}), 1, kept_bytes)
        for key, spec in enumerate(specs):
            worker.load(str(key), worker.compile(spec))
        decoded.clear()
        rows = [row for key in range(2) for row in worker.run(str(key), range(3))]
        found[kept_bytes] = len(decoded), [row.scores for row in rows]
    assert [n for n, _ in found.values()] == [12, 6]
    assert found[0][1] == found[1 << 20][1]


_HIDING = """
layer { name: "in" type: "Input" top: "x" top: "label" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 bias_term: false } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "fc2" type: "InnerProduct" bottom: "y" top: "z" inner_product_param { num_output: 2 bias_term: false } }
layer { name: "relu2" type: "ReLU" bottom: "z" top: "z" }
layer { name: "top1" type: "Accuracy" bottom: "z" bottom: "label" top: "top1" }
"""


@pytest.mark.parametrize("sampling", [None, Sampling((Blob("z", 1),), False, 0, 4, 4)], ids=["scores", "ranges"])
@pytest.mark.parametrize("weight", [1e5, 1e30], ids=["by the data", "always looked at"])
def test_worker_finds_an_overflow_in_any_iteration_that_a_relu_hides(sampling: Sampling | None, weight: float) -> None:
    x = np.full((8, 3), 1e-30, np.float32)
    x[6:] = 3e38  # sums of it are minus infinity, and a ReLU makes 0 of that
    net = text_format.Parse(_HIDING, caffe_pb2.NetParameter()).SerializeToString()
    blobs = {"fc": (np.full((2, 3), -weight, np.float32),), "fc2": (np.full((2, 2), weight, np.float32),)}
    arrays = {"x": x, "label": np.zeros(8, np.float32)}
    worker = NetWorker(Setting(Path("net.prototxt"), blobs, "w", {}, arrays), 1)
    worker.load("net", worker.compile(NetSpec(net, "net.prototxt", sampling)))
    if sampling is None:
        assert len(worker.run("net", range(3))) == 3
    with pytest.raises(EngineError, match=r"layer 'fc' \(InnerProduct\) makes values .* \(iteration 3\)"):
        worker.run("net", [3] if sampling is None else [0])
