"""What layers of other forks are made of, in ONNX: the mask of a MAX Pooling, unpooling by it, MVN.

ONNX counts the places of a mask through the whole tensor, OpenVINO with axis=2 through a map, as the forks do: the rest
of a division by the map's size is the same place."""

import numpy as np
from openvino import Node

from distcalib.exporters.folding import folded
from distcalib.exporters.onnx_writer import Writer, onnx_type


def masked_pool(writer: Writer, node: Node, pads: list[int], kernel: list[int], strides: list[int]) -> None:
    """MaxPool with two outputs: the values and their places."""
    name, source = node.get_friendly_name(), node.input_value(0)
    n_places = int(np.prod([axis.get_length() for axis in list(source.get_partial_shape())[2:]]))
    made, places = writer.emit(
        "MaxPool", [writer.value(source)], name, 2, pads=pads, kernel_shape=kernel, strides=strides
    )
    writer.put(node.output(0), made)
    places = writer.one("Mod", [places, writer.integers([n_places])], f"{name}/places")
    writer.put(node.output(1), writer.one("Cast", [places], f"{name}/mask", to=onnx_type(node.output(1))))


def scatter(writer: Writer, node: Node) -> None:
    """ScatterElementsUpdate: data, places and values in both, the axis as an attribute in ONNX."""
    axis = folded(node.input_value(3))
    assert axis is not None, "the engine has axes as constants"
    inputs = [writer.value(node.input_value(i)) for i in range(3)]
    writer.put(node.output(0), writer.one("ScatterElements", inputs, node.get_friendly_name(), axis=int(axis.item())))


def mvn(writer: Writer, node: Node) -> None:
    """(x - mean)/sqrt(variance + eps), written out: ONNX's own operator has another eps."""
    a, axes, name = node.get_attributes(), folded(node.input_value(1)), node.get_friendly_name()
    assert axes is not None, "the engine has axes as constants"
    assert a["normalize_variance"], "the engine asks for it"
    assert str(a["eps_mode"]).lower() == "inside_sqrt", "the engine asks for it"
    along = [int(axis) for axis in axes.reshape(-1)]
    x = writer.value(node.input_value(0))
    mean = writer.one("ReduceMean", [x], f"{name}/mean", axes=along, keepdims=1)
    rest = writer.one("Sub", [x, mean], f"{name}/rest")
    squared = writer.one("Mul", [rest, rest], f"{name}/squared")
    variance = writer.one("ReduceMean", [squared], f"{name}/variance", axes=along, keepdims=1)
    eps = writer.constant(np.float32(a["eps"]), f"{name}/eps")
    deviation = writer.one("Sqrt", [writer.one("Add", [variance, eps], f"{name}/above_zero")], f"{name}/deviation")
    writer.put(node.output(0), writer.one("Div", [rest, deviation], name))
