"""A net of two branches with one convolution's weights: read, measured, quantized and written as Caffe shares them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_net, write_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import WeightsError
from distcalib.session.inspect import inspect
from tests.data.databases import raw_datum, write_datums
from tests.session.evaluated import evaluate

pytestmark = pytest.mark.usefixtures("actors")

Array = npt.NDArray[np.float32]

CONV = """layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {param}
  convolution_param {{ num_output: {n_out} kernel_size: 3 pad: 1 }} }}
layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}
"""
SHARED = 'param { name: "w" } param { name: "b" }'
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.01 mean_value: 127 }}
  data_param {{ source: "{source}" batch_size: 8 backend: LMDB }} }}
layer {{ name: "flipped" type: "Power" bottom: "data" top: "flipped" power_param {{ scale: -1 }} }}
{convs}
layer {{ name: "both" type: "Concat" bottom: "left2" bottom: "right2" top: "both" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "both" top: "fc" inner_product_param {{ num_output: 5 }} }}
layer {{ name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top1" }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""


def make_net(folder: Path, *, n_right: int = 4) -> Path:
    random = np.random.RandomState(3)
    datums = [raw_datum(random.randint(0, 256, (3, 8, 8)).astype(np.uint8), i % 5) for i in range(24)]
    source = write_datums(folder / "db", datums)
    convs = CONV.format(name="left", bottom="data", param=SHARED, n_out=4)
    convs += CONV.format(name="right", bottom="flipped", param=SHARED, n_out=n_right)
    for side in ("left", "right"):
        convs += CONV.format(name=f"{side}2", bottom=side, param='param { name: "w2" }', n_out=4)
    prototxt = folder / "net.prototxt"
    prototxt.write_text(NET.format(source=source, convs=convs))
    return prototxt


def pair(random: np.random.RandomState, n_in: int) -> tuple[Array, ...]:
    weight = random.standard_normal((4, n_in, 3, 3)) / np.sqrt(9 * n_in / 2)
    return weight.astype(np.float32), (0.1 * random.standard_normal(4)).astype(np.float32)


def blobs_of(*names: str) -> dict[str, tuple[Array, ...]]:
    """Blobs of `left` or `right`, by who is to have those of another seed: "left", "right'" and so on."""
    made: dict[str, tuple[Array, ...]] = {}
    for name in names:
        made[name.rstrip("'")] = pair(np.random.RandomState(len(name) - len(name.rstrip("'"))), 3)
    for side, seed in (("left2", 7), ("right2", 8)):
        made[side] = pair(np.random.RandomState(seed), 4)
    made["right2"] = made["left2"][0], made["right2"][1]  # their weights are shared, their biases are not
    random = np.random.RandomState(9)
    made["fc"] = (random.standard_normal((5, 8 * 64)) / 12).astype(np.float32), np.zeros(5, np.float32)
    return made


def write(prototxt: Path, name: str, blobs: dict[str, tuple[Array, ...]]) -> Path:
    path = prototxt.with_name(f"{name}.caffemodel")
    layers = text_format.Parse(prototxt.read_text(), caffe_pb2.NetParameter()).layer
    order = sorted(layers, key=lambda layer: list(blobs).index(layer.name) if layer.name in blobs else -1)
    write_weights(path, "net", order, blobs)
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_net(tmp_path_factory.mktemp("siamese"))


def loss(net: Path, *names: str) -> float:
    """The net's loss with these blobs in its caffemodel, in this order."""
    weights = write(net, "_".join(names), blobs_of(*names))
    assert inspect(net, weights).problems == ()
    return evaluate(net, weights, 3, n_actors=1).scores["loss"]


@pytest.mark.slow
def test_shared_weights_are_those_that_caffe_loads(net: Path) -> None:
    one, other = loss(net, "left", "right"), loss(net, "left'", "right'")
    assert one != other
    assert loss(net, "left") == loss(net, "right") == one
    assert loss(net, "left", "right'") == other
    assert loss(net, "right'", "left") == one, "the last of the file, not of the net"


def test_shared_weights_are_quantized_by_each_layer_and_written_as_they_were(net: Path, tmp_path: Path) -> None:
    weights = write(net, "calibrate", blobs_of("left"))
    options = CalibrationOptions(iterations=3, enable_1st_conv=True, accuracy_loss=1.0, out=tmp_path, n_actors=1)
    report = calibrate(net, weights, options)
    assert report.int8_layers == ("left", "right", "left2", "right2")
    assert evaluate(report.output, weights, 3, n_actors=1).scores["top1"] == report.score
    layers = {layer.name: layer for layer in read_net(report.output).layer}
    params = {name: layers[name].quantization_param for name in report.int8_layers}
    assert params["left"].scale_params == params["right"].scale_params
    assert params["left2"].scale_in != params["right2"].scale_in
    for layer in read_net(net).layer:
        assert layers[layer.name].param == layer.param


def test_shared_weights_serve_the_performance_model(net: Path, tmp_path: Path) -> None:
    weights = write(net, "performance", blobs_of("left"))
    report = calibrate(net, weights, CalibrationOptions(performance_model=True, enable_1st_conv=True, out=tmp_path))
    assert evaluate(report.output, weights, 1, n_actors=1).int8_layers == report.int8_layers


def test_shared_weights_of_two_shapes_are_refused_by_both_names(tmp_path: Path) -> None:
    net = make_net(tmp_path, n_right=5)
    weights = write(net, "first", blobs_of("left"))
    said = "layer 'right': blob 0, shared with layer 'left' (param 'w'), has shape (4, 3, 3, 3) but the prototxt needs"
    assert said in inspect(net, weights).problems[0]
    with pytest.raises(WeightsError, match=r"layer 'right': blob 0, shared with layer 'left' \(param 'w'\)"):
        evaluate(net, weights, 1, n_actors=1)
    five = {**blobs_of("left"), "right": (np.zeros((5, 3, 3, 3), np.float32), np.zeros(5, np.float32))}
    both = write(net, "both", five)
    with pytest.raises(WeightsError, match=r"layer 'right' shares blob 0 with layer 'left' \(param 'w'\), but their"):
        evaluate(net, both, 1, n_actors=1)
