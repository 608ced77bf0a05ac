"""Nets that make no numbers, though their outputs are."""

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, build_graph
from distcalib.engine.soundness import is_fp32, refuse_unsound
from distcalib.errors import EngineError
from distcalib.layers import FileBlobs

SHAPES = {"x": (2, 3, 6, 6)}
RELU = 'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }'


def graph_of(*layers: str, quantized: str = "") -> Graph:
    text = f"""layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [2, 3, 6, 6] }} }} }}
      layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" {quantized}
        convolution_param {{ num_output: 4 kernel_size: 3 bias_term: false }} }}
      {" ".join(layers)}"""
    return build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net.prototxt")


def check(graph: Graph, weight: float, x: float = 1.0) -> None:
    random = np.random.RandomState(0)
    w = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    d = random.standard_normal((4, 4, 1, 1)).astype(np.float32)
    blobs = FileBlobs({"c": (w * np.float32(weight),), "d": (d * np.float32(weight),)}, "w")
    batch = random.standard_normal(SHAPES["x"]).astype(np.float32) * np.float32(x)
    refuse_unsound(graph, blobs, SHAPES, "net.prototxt", {"x": batch}, 1)


D = """layer { name: "d" type: "Convolution" bottom: "c" top: "d"
  convolution_param { num_output: 4 kernel_size: 1 bias_term: false } }
  layer { name: "dr" type: "ReLU" bottom: "d" top: "d" }"""


@pytest.mark.parametrize(
    ("layers", "weight", "x", "said"),
    [
        pytest.param((RELU, D), 1.0, 1.0, None, id="sound"),
        pytest.param((RELU, D), 1e15, 1.0, None, id="large"),
        pytest.param((RELU, D), 3e25, 1.0, r"layer 'd' \(Convolution\)", id="overflow_in_the_second"),
        pytest.param((RELU, D), 1e30, 1e20, r"layer 'c' \(Convolution\)", id="overflow_in_the_first"),
        pytest.param(
            ('layer { name: "e" type: "Exp" bottom: "c" top: "e" }',), 1e3, 1.0, r"layer 'e' \(Exp\)", id="exp"
        ),
        pytest.param(
            (
                'layer { name: "l" type: "Log" bottom: "c" top: "l" }',
                'layer { name: "r" type: "ReLU" bottom: "l" top: "l" }',
            ),
            1.0,
            1.0,
            r"layer 'l' \(Log\)",
            id="nan_before_a_relu",
        ),
    ],
)
def test_refuse_unsound_names_the_layer(layers: tuple[str, ...], weight: float, x: float, said: str | None) -> None:
    graph = graph_of(*layers)
    if said is None:
        check(graph, weight, x)
        return
    with pytest.raises(EngineError, match=rf"^net\.prototxt: {said} makes values in FP32 that are NaN or infinite"):
        check(graph, weight, x)


def test_is_fp32() -> None:
    assert is_fp32(graph_of(RELU))
    assert not is_fp32(graph_of(RELU, quantized="quantization_param { scale_in: 1 scale_out: 1 scale_params: 1 }"))
