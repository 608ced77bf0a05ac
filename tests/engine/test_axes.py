"""Convolutions over one axis and over three, against their loops."""

import numpy as np
import openvino as ov
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import build_model, layer_shapes
from distcalib.engine.work import multiply_adds
from distcalib.errors import UnsupportedError
from distcalib.layers import FileBlobs, RandomBlobs, ZeroBlobs
from tests.layers.harness import CONFIG, random

Array = NDArray[np.float32]
ONE, THREE = (2, 4, 9), (1, 2, 5, 6, 7)


def net(shape: tuple[int, ...], fields: str, more: str = "") -> caffe_pb2.NetParameter:
    dims = " ".join(f"dim: {n}" for n in shape)
    text = f"""layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}
      layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" {more}
        convolution_param {{ num_output: 6 {fields} }} }}
      layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}"""
    return text_format.Parse(text, caffe_pb2.NetParameter())


def loop(x: Array, weight: Array, bias: Array, stride: int, pad: int, dilation: int, group: int) -> Array:
    """relu(x * W + b), an output at a time, the same number along each axis."""
    n_axes = x.ndim - 2
    framed = np.pad(x, ((0, 0), (0, 0), *[(pad, pad)] * n_axes)).astype(np.float64)
    extents = [dilation * (k - 1) + 1 for k in weight.shape[2:]]
    sizes = [(n - extent) // stride + 1 for n, extent in zip(framed.shape[2:], extents, strict=True)]
    y = np.zeros((len(x), len(weight), *sizes))
    n_in, n_out = weight.shape[1], len(weight) // group
    for place in np.ndindex(*sizes):
        window = framed
        for axis, (i, extent) in enumerate(zip(place, extents, strict=True), 2):
            window = window.take(range(i * stride, i * stride + extent, dilation), axis)
        for m in range(len(weight)):
            first = m // n_out * n_in
            part = window[:, first : first + n_in] * weight[m]
            np.moveaxis(y[:, m], 0, -1)[place] = part.reshape(len(x), -1).sum(axis=1) + bias[m]
    return np.maximum(y, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("stride", "pad", "dilation", "group"), [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2)], ids=str
)
@pytest.mark.parametrize("shape", [ONE, THREE], ids=["one", "three"])
def test_convolution_over_other_axes(shape: tuple[int, ...], stride: int, pad: int, dilation: int, group: int) -> None:
    fields = f"kernel_size: 3 stride: {stride} pad: {pad} dilation: {dilation} group: {group}"
    parameter = net(shape, fields)
    weight, bias = random(6, shape[1] // group, *[3] * (len(shape) - 2), seed=1), random(6, seed=2)
    blobs = FileBlobs({"c": (weight, bias)}, "w.caffemodel")
    built = build_model(build_graph(parameter.layer, "net"), blobs, {"data": shape}, "net")
    x = random(*shape)
    found = np.array(ov.Core().compile_model(built.model, "CPU", CONFIG)([x])[0])
    np.testing.assert_allclose(found, loop(x, weight, bias, stride, pad, dilation, group), rtol=1e-4, atol=1e-4)


def test_convolution_takes_a_number_an_axis() -> None:
    parameter = net(THREE, "kernel_size: [1, 2, 3] stride: [1, 2, 1] pad: [0, 1, 1] axis: -4")
    graph = build_graph(parameter.layer, "net")
    shapes, problems = layer_shapes(graph, ZeroBlobs(), {"data": THREE}, "net")
    assert not problems
    node = next(node for node in graph if node.name == "c")
    assert shapes[node.tops[0]] == (1, 6, 5, 4, 7)
    assert multiply_adds(node, {**shapes, node.bottoms[0]: THREE}) == 6 * 5 * 4 * 7 * 2 * 6


@pytest.mark.parametrize(
    ("shape", "fields", "more", "says"),
    [
        pytest.param(ONE, "kernel_h: 3 kernel_w: 3", "", "kernel_h is for images", id="h_and_w"),
        pytest.param(THREE, "kernel_size: 3 kernel_size: 3", "", "kernel_size is given 2 times; 1 or 3", id="count"),
        pytest.param(ONE, "kernel_size: 3 pad_l: 1", "", "pad_l is for images", id="side"),
        pytest.param(ONE, "kernel_size: 3 stride: 0", "", "stride is (0,); it must be above zero", id="zero"),
        pytest.param((2, 6), "kernel_size: 1", "", "its input has 2 dimensions; 3 to 5", id="few"),
        pytest.param(
            ONE,
            "kernel_size: 3",
            "quantization_param { bw_layer_out: 32 scale_in: 1 scale_out: 1 scale_params: 1 }",
            "INT8 is for images, of 4; keep it in FP32",
            id="int8",
        ),
    ],
)
def test_convolution_over_other_axes_refuses(shape: tuple[int, ...], fields: str, more: str, says: str) -> None:
    parameter = net(shape, fields, more)
    with pytest.raises(UnsupportedError, match=r"^net: layer 'c' \(Convolution\): ") as caught:
        build_model(build_graph(parameter.layer, "net"), RandomBlobs(0), {"data": shape}, "net")
    assert says in str(caught.value)
