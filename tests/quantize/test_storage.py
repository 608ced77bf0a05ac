"""How values are stored, by the parameters in a file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import read_net, test_net
from distcalib.caffe.caffe_pb2 import QuantizationParameter
from distcalib.caffe.graph import build_graph
from distcalib.errors import FormatError
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import Grid, input_grid, params_of, runs_int8, storage, weight_integers
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu, value


def q(scale_out: float, bw_layer_out: int = 8, more: str = "") -> str:
    """A quantization_param."""
    return (
        f"bw_layer_in: 8 bw_layer_out: {bw_layer_out} bw_params: 8 scale_in: 3 scale_out: {scale_out} "
        f"scale_params: 5 {more}"
    )


def stored(params: Mapping[str, str], *layers: str) -> dict[str, str]:
    graph = make_graph(*layers)
    made = {name: text_format.Parse(text, QuantizationParameter()) for name, text in params.items()}
    return {str(blob): str(grid) for blob, grid in storage(graph, find_fused(graph), made).items()}


C, D, G = conv("c", "x"), conv("d", "c"), conv("g", "x")
POOL = layer("Pooling", "p", "c")


MASKED = POOL.replace('top: "p"', 'top: "p" top: "m"')


def test_a_pooling_with_a_mask_is_fp32() -> None:
    assert "m" in MASKED
    assert stored({"c": q(7)}, C, relu("r", "c"), MASKED) == {"c#1": "u8/7"}


@pytest.mark.parametrize(
    ("params", "layers", "expected"),
    [
        pytest.param({}, [C, relu("r", "c")], {}, id="fp32"),
        pytest.param({"c": q(7)}, [C], {"c": "s8/7"}, id="no_relu_s8"),
        pytest.param({"c": q(7)}, [C, relu("r", "c")], {"c#1": "u8/7"}, id="relu_u8"),
        pytest.param({"c": q(7)}, [C, relu("r", "c", 0.1)], {"c#1": "s8/7"}, id="leaky_s8"),
        pytest.param({"c": q(7)}, [conv("c", "x", "relu: true")], {"c": "u8/7"}, id="own_relu_u8"),
        pytest.param({"c": q(1, 32)}, [C, relu("r", "c")], {}, id="bw_layer_out_32"),
        pytest.param(
            {"c": q(7, 8, "is_negative_input: true")}, [C, relu("r", "c")], {"c#1": "u8/7"}, id="input_does_not_matter"
        ),
        pytest.param({"c": q(7)}, [C, POOL], {"c": "s8/7", "p": "s8/7"}, id="pooling"),
        pytest.param(
            {"c": q(7)}, [C, layer("Split", "t", "c", "t1 t2")], {"c": "s8/7", "t1": "s8/7", "t2": "s8/7"}, id="split"
        ),
        pytest.param(
            {"c": q(7)},
            [C, layer("ReLU", "r", "c"), conv("e", "c")],
            {"c": "s8/7", "r": "s8/7"},
            id="relu_that_is_not_fused",
        ),
        pytest.param({"c": q(7)}, [C, layer("LRN", "l", "c")], {"c": "s8/7"}, id="lrn_is_fp32"),
        pytest.param(
            {"c": q(7), "g": q(6)},
            [C, G, layer("Concat", "k", "c g")],
            {"c": "s8/7", "g": "s8/6", "k": "s8/6"},
            id="concat_smallest_scale",
        ),
        pytest.param(
            {"c": q(7), "g": q(6)},
            [C, G, relu("r", "g"), layer("Concat", "k", "c g")],
            {"c": "s8/7", "g#1": "u8/6"},
            id="concat_of_two_types",
        ),
        pytest.param({"c": q(7)}, [C, G, layer("Concat", "k", "c g")], {"c": "s8/7"}, id="concat_with_fp32"),
        pytest.param(
            {"c": q(7), "g": q(6)},
            [C, G, layer("Pooling", "p", "g"), eltwise("e", "c p")],
            {"c": "s8/7", "g": "s8/6", "p": "s8/6", "e": "s8/1"},
            id="eltwise_that_is_not_fused",
        ),
        pytest.param(
            {"c": q(7), "g": q(6)},
            [C, G, eltwise("e", "c g", "operation: MAX")],
            {"c": "s8/7", "e": "s8/6"},
            id="maximum_is_a_sum",
        ),
        pytest.param(
            {"c": q(7), "g": q(6)},
            [C, G, eltwise("e", "c g"), relu("r", "e"), layer("Pooling", "p", "e")],
            {"c": "s8/7", "e#1": "s8/6", "p": "u8/6"},
            id="pooling_of_a_sum",
        ),
        pytest.param(
            {"c": q(7), "d": q(6)},
            [C, D, eltwise("e", "c d"), relu("r", "e")],
            {"c": "s8/7", "e#1": "s8/6"},
            id="sum_on_s8_is_s8",
        ),
        pytest.param(
            {"c": q(7), "d": q(6)},
            [C, relu("a", "c"), D, eltwise("e", "c d"), relu("r", "e")],
            {"c#1": "u8/7", "e#1": "u8/6"},
            id="sum_on_u8_is_u8",
        ),
        pytest.param(
            {"c": q(7), "d": q(6)},
            [C, relu("a", "c"), D, eltwise("e", "c d")],
            {"c#1": "u8/7", "e": "u8/6"},
            id="sum_on_u8_is_u8_without_relu",
        ),
        pytest.param(
            {"c": q(7), "d": q(1, 32)},
            [C, D, eltwise("e", "c d"), relu("r", "e")],
            {"c": "s8/7", "e#1": "s8/1"},
            id="bw_layer_out_32_ignored_on_sum",
        ),
        pytest.param(
            {"d": q(6)}, [C, D, eltwise("e", "c d"), relu("r", "e")], {}, id="sum_on_fp32_is_fp32_with_its_convolution"
        ),
        pytest.param(
            {"c": q(1, 32), "d": q(6)}, [C, D, eltwise("e", "c d"), relu("r", "e")], {}, id="residual_written_as_fp32"
        ),
        pytest.param(
            {"c": q(7), "d": q(6)},
            [C, POOL, conv("d", "x"), eltwise("e", "p d")],
            {"c": "s8/7", "p": "s8/7", "e": "s8/6"},
            id="residual_through_pooling",
        ),
        pytest.param(
            {"c": q(7), "d": q(6)},
            [C, D, eltwise("e", "c d", top="c")],
            {"c": "s8/7", "c#1": "s8/6"},
            id="in_place_sum",
        ),
    ],
)
def test_storage_follows_intel_caffe(params: dict[str, str], layers: list[str], expected: dict[str, str]) -> None:
    assert stored(params, *layers) == expected


@pytest.mark.parametrize(
    ("params", "runs"),
    [
        pytest.param({}, False, id="no_param"),
        pytest.param({"d": q(6)}, False, id="fp32_residual"),
        pytest.param({"c": q(7), "d": q(6)}, True, id="int8_residual"),
    ],
)
def test_runs_int8_needs_an_int8_residual(params: dict[str, str], runs: bool) -> None:
    graph = make_graph(C, D, eltwise("e", "c d"))
    fused = find_fused(graph)
    made = {name: text_format.Parse(text, QuantizationParameter()) for name, text in params.items()}
    assert runs_int8(fused["d"], made, storage(graph, fused, made)) == runs


@pytest.mark.parametrize(("signed", "low", "high"), [(False, 0, 255), (True, -128, 127)])
def test_grid_is_u8_or_s8(signed: bool, low: int, high: int) -> None:
    assert (Grid(2.0, signed).low, Grid(2.0, signed).high) == (low, high)


@pytest.mark.parametrize("negative", [False, True])
def test_input_grid_is_signed_as_is_negative_input_says(negative: bool) -> None:
    param = QuantizationParameter(scale_in=[3.0], is_negative_input=negative)
    assert input_grid(param) == Grid(3.0, negative)


def quantized(name: str, param: str, kind: str = "Convolution") -> str:
    return layer(kind, name, "x", "", f"quantization_param {{ {param} }}")


def test_params_of_reads_the_layers_that_have_one() -> None:
    graph = make_graph(quantized("a", q(7)), conv("b", "x"))
    assert {name: param.scale_out[0] for name, param in params_of(graph).items()} == {"a": 7.0}


def test_params_of_names_all_scales_that_cannot_be() -> None:
    graph = make_graph(
        quantized("a", "scale_out: 1 scale_params: 1"),
        quantized("b", "scale_in: 1 scale_out: 0 scale_params: 1"),
        quantized("c", "scale_in: 1 scale_out: 1"),
        quantized("d", "scale_in: 1 scale_in: 2 scale_out: 1 scale_params: 1"),
        quantized("e", "scale_in: nan scale_out: inf scale_params: -1"),
        quantized("f", "scale_in: 1 scale_out: 1 scale_params: 0 scale_params: 1"),
        quantized("p", "", "Pooling"),
    )
    with pytest.raises(FormatError) as caught:
        params_of(graph)
    assert str(caught.value) == "; ".join(
        [
            "layer 'a': quantization_param has 0 scale_in; one positive number is needed",
            "layer 'b': quantization_param has scale_out 0; one positive number is needed",
            "layer 'c': quantization_param has 0 scale_params; give one, or one per output channel, none negative",
            "layer 'd': quantization_param has 2 scale_in; one positive number is needed",
            "layer 'e': quantization_param has scale_in nan; one positive number is needed",
            "layer 'e': quantization_param has scale_out inf; one positive number is needed",
            "layer 'e': quantization_param has scale_params -1; give one, or one per output channel, none negative",
        ]
    )


@pytest.mark.golden
@pytest.mark.parametrize(
    ("net", "blob", "kind"),
    [
        ("concat_two_scales", "cc", "u8"),
        ("concat_u8_s8", "cc", "FP32"),
        ("residual_identity", "s#1", "u8"),
        ("residual_projection_127", "s#1", "s8"),
        ("residual_projection_255", "s#1", "s8"),
        ("residual_fp32_shortcut", "s#1", "FP32"),
        ("pool_ave_then_conv", "pp", "u8"),
    ],
)
def test_storage_of_the_recorded_nets(golden: Path, net: str, blob: str, kind: str) -> None:
    graph = build_graph(test_net(read_net(golden / "golden" / f"{net}.prototxt")).layer, net)
    grid = storage(graph, find_fused(graph), params_of(graph)).get(value(blob))
    assert str(grid or "FP32").split("/")[0] == kind


def test_weight_integers_are_rounded_to_even_and_saturated() -> None:
    weight = np.array([[0.25, 0.75, -0.25, 9.0], [-9.0, 0.5, 0.6, 0.0], [1.0, 1.0, 1.0, 1.0]], np.float32)
    found = weight_integers(weight, np.array([2.0, 100.0, 0.0]))
    assert found.dtype == np.int8
    assert found.tolist() == [[0, 2, 0, 18], [-128, 50, 60, 0], [0, 0, 0, 0]]
