"""Convolutions of several bottoms, split into layers that share their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, write_weights
from distcalib.caffe.several import split_several
from distcalib.engine.builder import build_model
from distcalib.engine.net import open_net
from distcalib.layers import FileBlobs
from tests.layers.harness import CONFIG, random

NET = """layer { name: "x" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
layer { name: "c" type: "Convolution" bottom: "x" bottom: "y" top: "a" top: "b"
  convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "c" type: "Convolution" bottom: "x" bottom: "y" top: "a" top: "b" include { phase: TRAIN } }
"""


def test_split_several_leaves_other_layers_alone() -> None:
    net = text_format.Parse('layer { name: "r" type: "ReLU" bottom: "x" top: "r" }', caffe_pb2.NetParameter())
    before = net.SerializeToString()
    assert split_several(net) == []
    assert net.SerializeToString() == before


def test_a_convolution_of_two_bottoms_has_one_set_of_weights(tmp_path: Path) -> None:
    path, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    path.write_text(NET)
    kernel, bias = random(3, 2, 3, 3, seed=1), random(3, seed=2)
    net = open_net(path)
    assert [(layer.name, list(layer.top)) for layer in net.test.layer[1:]] == [("c", ["a"]), ("c_2", ["b"])]
    assert [layer.name for layer in net.full.layer] == ["x", "c", "c_2", "c", "c_2"]
    write_weights(weights, "net", net.test.layer[1:2], {"c": (kernel, bias)})
    inputs = [random(1, 2, 5, 5), random(1, 2, 3, 3, seed=3)]
    shapes = {"x": (1, 2, 5, 5), "y": (1, 2, 3, 3)}
    built = build_model(net.graph, FileBlobs(net.weights(weights), "net.caffemodel"), shapes, "net")
    results = ov.Core().compile_model(built.model, "CPU", CONFIG)(inputs)
    for i, (blob, x) in enumerate(zip(built.outputs, inputs, strict=True)):
        assert blob.name == "ab"[i]
        windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
        wanted = np.einsum("cyxij,ocij->oyx", windows, kernel) + bias[:, None, None]
        np.testing.assert_allclose(results[i][0], wanted, rtol=1e-4, atol=1e-5)
