"""Graphs and files that Intel Caffe computes otherwise are told by layer."""

import numpy as np
import pytest

from distcalib.quantize.faults import intel_faults
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import Grid, params_of, storage
from tests.every import every
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu, value, weights_of

SPLIT = layer("Split", "t", "b", "t1 t2")
W = 'num_output: 2 kernel_size: 1 } param { name: "w"'


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        pytest.param([conv("a", "x"), conv("b", "x"), eltwise("s", "a b"), relu("r", "s")], [], id="projection"),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), conv("c", "b"), eltwise("s", "a c")], [], id="identity"
        ),
        pytest.param(
            [conv("a", "x"), conv("b", "a"), relu("rb", "b"), eltwise("s", "a b")],
            ["layer 's' (Eltwise): follows convolution 'b' and its ReLU"],
            id="conv_relu_eltwise",
        ),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), eltwise("s", "a b")],
            ["layer 's' (Eltwise): adds 'b' to that convolution's own input"],
            id="own_input",
        ),
        pytest.param([conv("a", "x"), relu("ra", "a"), eltwise("s", "x a"), conv("c", "a")], [], id="relu_read_twice"),
        pytest.param(
            [conv("a", "x"), conv("b", "a"), relu("rb", "b"), eltwise("s", "a b", "operation: MAX")],
            ["layer 's' (Eltwise): stands right behind convolution 'b', and Intel Caffe takes that for a plain sum"],
            id="max",
        ),
        pytest.param(
            [conv("a", "x"), conv("b", "x"), eltwise("s", "x a b")],
            ["layer 's' (Eltwise): stands right behind convolution 'b'"],
            id="three",
        ),
        pytest.param([conv("b", "x"), SPLIT, eltwise("s", "x t1", "operation: MAX")], [], id="max_of_something_else"),
        pytest.param(
            [conv("a", "x", W), layer("BatchNorm", "n", "a", "a"), conv("b", "a", W)],
            ["layer 'a' (Convolution): Intel Caffe folds the BatchNorm behind it into its weights, which 'b' shares"],
            id="shared_and_folded",
        ),
        pytest.param([conv("a", "x", W), relu("r", "a"), conv("b", "a", W)], [], id="shared"),
    ],
)
def test_intel_faults_of_a_graph(layers: list[str], said: list[str]) -> None:
    graph = make_graph(*layers)
    found = intel_faults(graph, find_fused(graph), {}, {})
    assert len(found) == len(said)
    assert every(full.startswith(begin) for full, begin in zip(found, said, strict=True))


def test_intel_faults_tell_of_integers_that_meet_in_an_eltwise() -> None:
    graph = make_graph(conv("a", "x"), layer("Split", "u", "a", "u1 u2"), conv("b", "x"), SPLIT, eltwise("m", "u1 t1"))
    groups = find_fused(graph)
    u8, s8 = Grid(1.0, signed=False), Grid(2.0, signed=True)
    a, b = value("u1"), value("t1")
    [said] = intel_faults(graph, groups, {a: u8, b: u8}, {})
    assert said.startswith("layer 'm' (Eltwise): has two INT8 inputs of one type")
    assert intel_faults(graph, groups, {a: u8, b: s8}, {}) == []
    assert intel_faults(graph, groups, {a: u8}, {}) == []


def quantized(name: str, bottom: str, text: str = "bw_layer_out: 8", scale_params: str = "scale_params: 1") -> str:
    own = "convolution_param { num_output: 2 kernel_size: 1 }"
    scales = f"scale_in: 1 scale_out: 3 {scale_params}"
    return layer("Convolution", name, bottom, "", f"{own} quantization_param {{ {scales} {text} }}")


S8 = "bw_layer_out: 8 is_negative_input: true"
ZERO = "scale_params: 0 scale_params: 1"


@pytest.mark.parametrize(
    ("layers", "bias", "said"),
    [
        pytest.param(
            [quantized("a", "x"), quantized("b", "x", "bw_layer_out: 32"), eltwise("s", "a b"), relu("r", "s")],
            None,
            "layer 'b' (Convolution): bw_layer_out 32 is ignored on a sum with an INT8 residual; its sums are stored "
            "as integers at scale_out 3",
            id="width_of_a_sum",
        ),
        pytest.param(
            [quantized("a", "x"), relu("ra", "a"), quantized("b", "x"), eltwise("s", "a b")],
            None,
            "layer 'b' (Convolution): its sum can be negative but is stored u8, as its residual 'a' is; negative sums",
            id="negative_sum_on_u8",
        ),
        pytest.param(
            [quantized("a", "x"), quantized("b", "a")],
            None,
            "layer 'b' (Convolution): reads 'a', stored s8, without is_negative_input; negative values become 0",
            id="s8_read_as_u8",
        ),
        pytest.param(
            [quantized("a", "x", scale_params=ZERO)],
            0.5,
            "layer 'a' (Convolution): scale_params is 0 in 1 channel with a bias, which Intel Caffe rounds to a whole",
            id="scale_of_0",
        ),
        pytest.param([quantized("a", "x", scale_params=ZERO)], 0.0, "", id="scale_of_0_without_bias"),
        pytest.param([quantized("a", "x", scale_params=ZERO)], None, "", id="scale_of_0_without_weights"),
        pytest.param([quantized("a", "x"), quantized("b", "a", S8)], None, "", id="right"),
        pytest.param(
            [quantized("a", "x"), quantized("b", "x"), eltwise("s", "a b"), relu("r", "s"), quantized("c", "s")],
            None,
            "",
            id="s8_of_a_relu_read_as_u8",
        ),
        pytest.param([conv("a", "x"), quantized("b", "x", "bw_layer_out: 32"), eltwise("s", "a b")], None, "", id="f"),
    ],
)
def test_intel_faults_of_a_file(layers: list[str], bias: float | None, said: str) -> None:
    graph = make_graph(*layers)
    groups, params = find_fused(graph), params_of(graph)
    weights = {name: (*blobs, np.array([bias, 0], np.float32)) for name, blobs in weights_of(graph).items()}
    found = intel_faults(graph, groups, storage(graph, groups, params), params, None if bias is None else weights)
    assert len(found) == bool(said)
    assert "".join(found).startswith(said)
