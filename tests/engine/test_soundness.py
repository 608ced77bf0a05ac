"""Nets that make no numbers, though their outputs are."""

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.engine.bounds import SOURCE, bound, gain
from distcalib.engine.builder import build_model
from distcalib.engine.program import Program, compile_program
from distcalib.engine.soundness import Soundness, is_fp32, is_small
from distcalib.engine.spec import NetSpec
from distcalib.errors import EngineError
from distcalib.layers import FileBlobs
from tests.every import every

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
    Soundness(graph, blobs, SHAPES, "net.prototxt", 1).refuse({"x": batch}, 0)


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
def test_refuse_names_the_layer(layers: tuple[str, ...], weight: float, x: float, said: str | None) -> None:
    graph = graph_of(*layers)
    if said is None:
        check(graph, weight, x)
        return
    with pytest.raises(EngineError, match=rf"^net\.prototxt: {said} makes values in FP32 that are NaN or infinite"):
        check(graph, weight, x)


def test_is_fp32() -> None:
    assert is_fp32(graph_of(RELU))
    assert not is_fp32(graph_of(RELU, quantized="quantization_param { scale_in: 1 scale_out: 1 scale_params: 1 }"))


def weights_of(weight: float) -> FileBlobs:
    random = np.random.RandomState(0)
    w, d = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 3, 3, 3), (4, 4, 1, 1)))
    return FileBlobs({"c": (w * np.float32(weight),), "d": (d * np.float32(weight),)}, "w")


@pytest.mark.parametrize(
    ("layers", "weight", "watched", "is_proven"),
    [
        pytest.param((RELU, D), 1.0, [], True, id="small_weights_prove_all"),
        pytest.param((RELU, D), 1e12, ["c#1"], True, id="large_weights_need_a_look_between"),
        pytest.param((RELU, D), 1e25, ["c#1"], False, id="weights_that_prove_nothing"),
        pytest.param(('layer { name: "e" type: "Exp" bottom: "c" top: "e" }',), 1.0, ["e"], True, id="exp"),
        pytest.param(
            ('layer { name: "l" type: "LRN" bottom: "c" top: "l" }',), 1e3, ["c"], True, id="squares_of_large_values"
        ),
        pytest.param(
            ('layer { name: "s" type: "Softmax" bottom: "c" top: "s" }', D.replace('bottom: "c"', 'bottom: "s"')),
            1e3,
            [],
            True,
            id="a_softmax_begins_anew",
        ),
    ],
)
def test_watched_are_the_values_that_bounds_do_not_reach(
    layers: tuple[str, ...], weight: float, watched: list[str], is_proven: bool
) -> None:
    sound = Soundness(graph_of(*layers), weights_of(weight), SHAPES, "net.prototxt", 1)
    assert ([str(blob) for blob in sound.watched], sound.is_proven) == (watched, is_proven)


def test_bounds_hold_for_the_largest_values_that_are_let_through() -> None:
    graph, blobs = graph_of(RELU, D), weights_of(1e12)
    sound = Soundness(graph, blobs, SHAPES, "net.prototxt", 1)
    built = build_model(graph, blobs, SHAPES, "net", watched=sound.watched)
    program = Program(compile_program(built, NetSpec(b"", "net"), 1), 1)
    for x in (1e-6, 1.0, 1e6, SOURCE, 1e13):
        batch = {"x": np.full(SHAPES["x"], np.float32(x))}
        outputs, _, sums = program.run_watched(batch)
        assert sums.shape == (1,)
        if is_small(batch, sums):
            assert every(np.isfinite(values).all() for values in outputs.values())
            sound.refuse(batch, 0)
    assert not is_small({"x": np.full(3, np.float32(np.nan))}, [])
    assert not is_small({"x": np.ones(3, np.float32)}, [np.nan])
    assert not is_small({"x": np.ones(3, np.float32)}, [np.inf])


def test_watching_changes_no_result() -> None:
    graph, blobs = graph_of(RELU, D), weights_of(1.0)
    batch = {"x": np.random.RandomState(1).standard_normal(SHAPES["x"]).astype(np.float32)}
    found = []
    for watched in ((), (Blob("c", 1),)):
        built = build_model(graph, blobs, SHAPES, "net", watched=watched)
        outputs, _, sums = Program(compile_program(built, NetSpec(b"", "net"), 1), 1).run_watched(batch)
        found.append(next(iter(outputs.values())).tobytes())
    assert found[0] == found[1]
    assert sums == np.abs(np.asarray(sums))


def f32(values: object) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


BLOBS: dict[str, tuple[NDArray[np.float32], ...]] = {
    "Scale": (f32([2, -3]), f32([1, -5])),
    "BatchNorm": (f32([1, 2]), f32([4, 0.25]), f32([1])),
    "PReLU": (f32([0.5, -4]),),
    "Deconvolution": (np.arange(8).reshape(2, 1, 2, 2).astype(np.float32), f32([3])),
}


@pytest.mark.parametrize(
    ("text", "inputs", "expected"),
    [
        ('type: "Scale" scale_param { bias_term: true }', [10.0], 35.0),
        ('type: "BatchNorm" batch_norm_param { use_global_stats: true eps: 0 }', [10.0], 24.0),
        ('type: "PReLU"', [10.0], 40.0),
        ('type: "Deconvolution"', [10.0], 283.0),
        ('type: "ReLU" relu_param { negative_slope: -2 }', [10.0], 20.0),
        ('type: "Eltwise" eltwise_param { coeff: [1, -2] }', [10.0, 3.0], 16.0),
        ('type: "Eltwise" eltwise_param { operation: MAX }', [10.0, 3.0], 10.0),
        ('type: "Eltwise" eltwise_param { operation: PROD }', [10.0, 3.0], None),
        ('type: "Power" power_param { scale: -2 shift: -1 }', [10.0], 21.0),
        ('type: "Power" power_param { power: 2 }', [10.0], None),
        ('type: "LRN" lrn_param { k: 0.5 }', [10.0], None),
        ('type: "Log"', [10.0], None),
    ],
)
def test_bound_is_the_largest_that_a_layer_makes(text: str, inputs: list[float], expected: float | None) -> None:
    layer = text_format.Parse(f'name: "a" {text}', caffe_pb2.LayerParameter())
    assert bound(layer, inputs, BLOBS.get(layer.type, ())) == expected


def test_gain_of_what_is_no_number_is_infinite() -> None:
    nothing = np.zeros(1, np.float32)
    assert gain(f32([[1, -2], [0.5, 0]]), f32([-7])) == (3.0, 7.0)
    for bad in (np.nan, np.inf):
        assert gain(f32([[1, bad]]), nothing) == (np.inf, np.inf)
        assert gain(f32([[1, 1]]), f32([bad])) == (np.inf, np.inf)
