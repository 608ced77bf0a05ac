"""INT8 layers in ONNX, in the forms that ONNX Runtime from 1.18 on has kernels for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import numpy_helper

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.exporters import build_export
from distcalib.layers import FileBlobs
from tests.exporters.exports import run_both
from tests.layers.harness import random

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_file import save_onnx

SHAPE = (2, 8, 7, 9)
INT8 = (
    "quantization_param {{ bw_layer_in: 8 bw_layer_out: {out} bw_params: 8 scale_in: {scale} scale_out: 20 "
    "scale_params: 60 is_negative_input: {negative} {more} }}"
)


def layers(group: int = 1, out: int = 8, scale: float = 40.0, negative: bool = True, more: str = "") -> str:
    """A convolution on integers behind `x`."""
    param = INT8.format(out=out, scale=scale, negative=str(negative).lower(), more=more)
    text = 'layer { name: "in" type: "Input" top: "x" } layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
    text += f"convolution_param {{ num_output: 8 kernel_size: 3 group: {group} }} {param} }}"
    return text


def exported(text: str, group: int, folder: Path) -> tuple[onnx.ModelProto, float]:
    """The ONNX graph, and how far its answers are from OpenVINO's."""
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    blobs = FileBlobs({"c": (random(8, 8 // group, 3, 3, seed=1), random(8, seed=2))}, "weights")
    made = build_export(graph, blobs, {"x": SHAPE}, "net")
    x = np.abs(random(*SHAPE, seed=3)) * np.float32(3)
    ir, ours = run_both(made, {"x": x})
    save_onnx(made, folder / "model.onnx", {}, "net")
    return onnx.load(folder / "model.onnx"), float(np.abs(ir["c"] - ours["c"]).max())


@pytest.mark.parametrize("group", [2, 8], ids=["grouped", "depthwise"])
@pytest.mark.parametrize("negative", [True, False], ids=["s8", "u8"])
def test_a_grouped_layer_that_ends_in_fp32_multiplies_u8_alone(group: int, negative: bool, tmp_path: Path) -> None:
    model, off = exported(layers(group, out=32, negative=negative), group, tmp_path)
    assert off <= 1e-5
    [node] = [node for node in model.graph.node if node.op_type == "ConvInteger"]
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    assert numpy_helper.to_array(weights).dtype == np.uint8
    assert len(node.input) == 4


@pytest.mark.parametrize(("scale", "n_products"), [(40.0, 1), (1.0, 0)], ids=["scaled", "whole"])
def test_a_quantized_input_needs_no_clip_and_no_scale_of_1(scale: float, n_products: int, tmp_path: Path) -> None:
    model, off = exported(layers(scale=scale, negative=False), 1, tmp_path)
    assert off <= 1.0 / 20.0 + 1e-6  # a step at the most, where sums end between two
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Clip") == 0
    assert kinds.count("Mul") == n_products
    assert kinds.count("QuantizeLinear") == 2


def test_a_value_on_its_grid_is_not_quantized_again(tmp_path: Path) -> None:
    """An input of bytes (force_u8_input), which the engine rounds as it comes and again for the layer."""
    model, off = exported(layers(scale=2.0, negative=False, more="force_u8_input: true"), 1, tmp_path)
    assert off <= 1.0 / 20.0 + 1e-6
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") == 2
