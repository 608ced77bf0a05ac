"""The parameters that are written: every formula and rule of them."""

import numpy as np
import pytest

from distcalib.caffe.caffe_pb2 import QuantizationParameter
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.quantize.nets import calibrate, conv, eltwise, layer, make_graph, relu, weights_of

C, D, G = conv("c", "x"), conv("d", "c"), conv("g", "x")
M, D2 = conv("m", "c"), conv("d", "m")  # a convolution is not summed onto its own input
FIRST = Options(enable_1st_conv=True)
MULTIPLE = Options("multiple", enable_1st_conv=True)


def params(calibration: Calibration, *dropped: str) -> dict[str, QuantizationParameter]:
    return calibration.params(calibration.quantizer.space.all_int8.without(*dropped))


def f32(value: float) -> float:
    """As the file holds it."""
    return float(np.float32(value))


# scale_in


@pytest.mark.parametrize(
    ("layers", "scale_in", "negative"),
    [
        pytest.param([conv("d", "x")], 127 / 4, True, id="any_input"),
        pytest.param([layer("ReLU", "y", "x"), conv("d", "y")], 255 / 4, False, id="after_relu"),
        pytest.param(
            [layer("ReLU", "y", "x", "", "relu_param { negative_slope: 0.1 }"), conv("d", "y")],
            127 / 4,
            True,
            id="after_leaky_relu",
        ),
        pytest.param([layer("Softmax", "y", "x"), conv("d", "y")], 255 / 4, False, id="softmax"),
    ],
)
def test_scale_in_of_fp32_is_255_unless_it_can_be_negative(layers: list[str], scale_in: float, negative: bool) -> None:
    param = params(calibrate(*layers, largest={"x": 4, "y": 4}))["d"]
    assert (param.scale_in[0], param.is_negative_input) == (f32(scale_in), negative)


def test_scale_in_is_signed_by_what_can_come_not_by_what_came() -> None:
    quantizer = Quantizer(make_graph(C), FIRST)
    ranges = {blob: Range(0.0, 2.0) for blob in quantizer.observed}  # nothing negative in the sample
    param = Calibration(quantizer, ranges, weights_of(quantizer.graph)).params(quantizer.space.all_int8)["c"]
    assert (param.scale_in[0], param.is_negative_input) == (63.5, True)


@pytest.mark.parametrize(
    ("between", "reads", "scale", "negative"),
    [
        pytest.param([], "c", 127 / 8, True, id="directly"),
        pytest.param([relu("r", "c")], "c", 255 / 8, False, id="u8"),
        pytest.param([layer("ReLU", "r", "c"), layer("LRN", "l", "c")], "r", 127 / 8, True, id="relu_of_s8_is_s8"),
        pytest.param([layer("Pooling", "p", "c")], "p", 127 / 8, True, id="pooling"),
        pytest.param(
            [layer("Pooling", "p", "c", "", "pooling_param { pool: AVE }")], "p", 127 / 8, True, id="average_pooling"
        ),
        pytest.param([layer("Split", "t", "c", "t1 t2")], "t2", 127 / 8, True, id="split"),
        pytest.param([G, layer("Concat", "k", "c g")], "k", 127 / 16, True, id="concat_smallest"),
        pytest.param([G, layer("Concat", "k", "c g"), layer("Pooling", "p", "k")], "p", 127 / 16, True, id="both"),
        pytest.param([G, relu("r", "g"), layer("Concat", "k", "c g")], "k", 127 / 32, True, id="concat_of_types_fp32"),
        pytest.param([layer("LRN", "l", "c")], "l", 127 / 32, True, id="lrn_fp32"),
    ],
)
def test_consumer_takes_over_the_stored_scale(between: list[str], reads: str, scale: float, negative: bool) -> None:
    own = dict.fromkeys(["r", "p", "t2", "k", "l"], 32.0)  # what it would see for itself
    calibration = calibrate(C, *between, conv("z", reads), largest=own | {"c": 8, "c#1": 8, "g": 16})
    made = params(calibration)
    assert (made["z"].scale_in[0], made["z"].is_negative_input) == (f32(scale), negative)


# scale_out and bw_layer_out


@pytest.mark.parametrize(
    ("fused", "blob", "top"),
    [
        pytest.param([], "c", 127, id="none"),
        pytest.param([relu("r", "c")], "c#1", 255, id="relu"),
        pytest.param([relu("r", "c", 0.1)], "c#1", 127, id="leaky"),
        pytest.param([layer("BatchNorm", "b", "c", "c"), relu("r", "c")], "c#2", 255, id="batch_norm_relu"),
    ],
)
def test_scale_out_is_255_after_a_fused_relu_of_slope_0(fused: list[str], blob: str, top: int) -> None:
    param = params(calibrate(C, *fused, D, largest={blob: 5}))["c"]
    assert (param.bw_layer_out, param.scale_out[0]) == (8, f32(top / 5))


@pytest.mark.parametrize(
    ("after", "dropped", "width"),
    [
        pytest.param([D], (), 8, id="int8_convolution"),
        pytest.param([D], ("d",), 32, id="fp32_convolution"),
        pytest.param([D, conv("e", "c")], ("d",), 8, id="one_int8_of_two"),
        pytest.param([], (), 32, id="output"),
        pytest.param([layer("InnerProduct", "f", "c")], (), 32, id="inner_product"),
        pytest.param([layer("Pooling", "p", "c"), conv("d", "p")], (), 8, id="pooling_int8"),
        pytest.param([layer("Pooling", "p", "c"), conv("d", "p")], ("d",), 32, id="pooling_fp32"),
        pytest.param([layer("Pooling", "p", "c"), layer("InnerProduct", "f", "p")], (), 32, id="pooling_inner_product"),
        pytest.param([layer("Split", "t", "c", "t1 t2"), conv("d", "t2")], (), 8, id="split"),
        pytest.param([layer("LRN", "l", "c"), conv("d", "l")], (), 32, id="lrn"),
        pytest.param([layer("Scale", "s", "c"), conv("d", "s")], (), 32, id="lone_scale"),
        pytest.param([G, layer("Concat", "k", "c g"), conv("d", "k")], (), 8, id="concat"),
        pytest.param([G, layer("Concat", "k", "c g"), conv("d", "k")], ("g",), 32, id="concat_with_fp32"),
        pytest.param([G, relu("r", "g"), layer("Concat", "k", "c g"), conv("d", "k")], (), 32, id="concat_of_types"),
        pytest.param([G, eltwise("e", "c g"), conv("d", "e")], (), 8, id="residual"),
        pytest.param([G, eltwise("e", "c g"), conv("d", "e")], ("g",), 32, id="residual_of_fp32"),
        pytest.param([layer("Pooling", "p", "c"), G, eltwise("e", "p g")], (), 8, id="residual_through_pooling"),
    ],
)
def test_bw_layer_out_is_32_where_no_int8_layer_reads_integers(
    after: list[str], dropped: tuple[str, ...], width: int
) -> None:
    param = params(calibrate(C, *after, largest={"c": 5}), *dropped)["c"]
    assert (param.bw_layer_out, param.scale_out[0]) == (width, 1.0 if width == 32 else f32(127 / 5))


# sums


def test_sum_on_an_s8_residual_is_127_even_after_relu() -> None:
    made = params(calibrate(C, M, D2, eltwise("e", "c d"), relu("r", "e"), conv("z", "e"), largest={"e#1": 6}))
    assert (made["d"].bw_layer_out, made["d"].scale_out[0]) == (8, f32(127 / 6))
    assert (made["z"].scale_in[0], made["z"].is_negative_input) == (f32(127 / 6), True)


def test_sum_on_a_u8_residual_is_255() -> None:
    layers = [C, relu("a", "c"), M, D2, eltwise("e", "c d"), relu("r", "e"), conv("z", "e")]
    made = params(calibrate(*layers, largest={"e#1": 6}))
    assert (made["d"].bw_layer_out, made["d"].scale_out[0]) == (8, f32(255 / 6))
    assert (made["z"].scale_in[0], made["z"].is_negative_input) == (f32(255 / 6), False)


def test_sum_on_an_int8_residual_is_never_written_as_fp32() -> None:
    made = params(calibrate(C, M, D2, eltwise("e", "c d"), largest={"e": 6}))  # nothing reads it
    assert (made["d"].bw_layer_out, made["d"].scale_out[0]) == (8, f32(127 / 6))


def test_sum_in_place_keeps_the_range_of_its_residual_apart() -> None:
    made = params(calibrate(C, M, D2, eltwise("e", "c d", top="c"), largest={"c": 2, "c#1": 9}))
    assert (made["c"].scale_out[0], made["m"].scale_in[0], made["d"].scale_out[0]) == (
        63.5,
        63.5,
        f32(127 / 9),
    )


@pytest.mark.parametrize(
    ("layers", "options", "name", "reason"),
    [
        pytest.param([C, D], Options(), "c", "first convolution, which -1st quantizes", id="first"),
        pytest.param([layer("InnerProduct", "f", "x")], FIRST, "f", "InnerProduct", id="inner_product"),
        pytest.param([layer("LRN", "l", "x"), C, eltwise("e", "l c")], FIRST, "c", "residual 'l' is FP32", id="fp32"),
        pytest.param([C, D, eltwise("e", "c d")], Options(), "d", "residual 'c' is FP32", id="on_the_first"),
        pytest.param(
            [C, relu("r", "c"), D, eltwise("e", "c d")],
            FIRST,
            "d",
            "sum can be negative but would be stored u8",
            id="u8",
        ),
        pytest.param(
            [C, relu("r", "c"), G, layer("Concat", "k", "c g"), conv("d", "x"), eltwise("e", "k d")],
            FIRST,
            "d",
            "residual 'k' is FP32",
            id="concat_of_types",
        ),
        pytest.param(
            [C, D, eltwise("e", "c d"), conv("h", "e"), eltwise("m", "e h x"), conv("z", "e")],
            FIRST,
            "none",
            "",
            id="three_bottoms_of_which_one_is_int8",
        ),
        pytest.param(
            [C, G, layer("Pooling", "p", "c"), conv("d", "c"), eltwise("e", "p d"), eltwise("m", "e g x")],
            FIRST,
            "d",
            "its sum would be INT8 in Eltwise 'm', which Intel Caffe computes wrongly",
            id="sum_in_another_eltwise",
        ),
    ],
)
def test_refused_tells_why_a_layer_stays_fp32(layers: list[str], options: Options, name: str, reason: str) -> None:
    quantizer = Quantizer(make_graph(*layers), options)
    assert reason in quantizer.refused.get(name, "")
    assert name not in quantizer.space.order


def test_refused_is_in_net_order() -> None:
    layers = [C, G, layer("Pooling", "p", "c"), D, eltwise("e", "p d"), eltwise("m", "e g x")]
    quantizer = Quantizer(make_graph(*layers, layer("InnerProduct", "f", "m")), FIRST)
    assert list(quantizer.refused) == ["d", "f"]


def test_first_convolution_is_the_first_of_the_net_only() -> None:
    graph = make_graph(layer("InnerProduct", "f", "x"), C, D, G)
    assert Quantizer(graph, Options()).space.order == ("d", "g")
    assert Quantizer(graph, FIRST).space.order == ("c", "d", "g")


def test_first_convolution_is_s8_on_request() -> None:
    made = params(calibrate(C, D, largest={"x": 8}))
    assert (made["c"].scale_in[0], made["c"].is_negative_input) == (127 / 8, True)


CHAIN = [
    *(conv("a", "x"), conv("b", "a"), eltwise("s", "a b"), relu("r", "s")),
    *(layer("Pooling", "p", "s"), conv("d", "s"), eltwise("t", "p d"), relu("q", "t"), conv("z", "t")),
]


def test_space_knows_what_a_sum_needs() -> None:
    assert Quantizer(make_graph(*CHAIN), FIRST).space.needs == {"b": {"a"}, "d": {"b"}}


def test_space_needs_all_that_a_concat_is_made_of() -> None:
    layers = [C, G, layer("Concat", "k", "c g"), conv("d", "x"), eltwise("e", "k d")]
    assert Quantizer(make_graph(*layers), FIRST).space.needs == {"d": {"c", "g"}}


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        pytest.param("a", {"z"}, id="cascade"),
        pytest.param("b", {"a", "z"}, id="half"),
        pytest.param("d", {"a", "b", "z"}, id="last"),
        pytest.param("z", {"a", "b", "d"}, id="none_needs_it"),
    ],
)
def test_fp32_residual_takes_the_sum_along(dropped: str, left: set[str]) -> None:
    assert set(params(calibrate(*CHAIN), dropped)) == left


def test_sum_follows_the_net_in_fp32_with_its_dropped_residual() -> None:
    """No parameter is left on a sum that Intel Caffe would run in FP32."""
    made = params(calibrate(C, D, eltwise("e", "c d"), conv("z", "e"), largest={"e": 4}), "c")
    assert list(made) == ["z"]
    assert made["z"].scale_in[0] == 127 / 4


# Eltwise that is not fused


@pytest.mark.parametrize(
    ("layers", "widths"),
    [
        pytest.param([C, G, eltwise("e", "c g", "operation: MAX")], [32, 32], id="same_type"),
        pytest.param([C, relu("a", "c"), G, relu("b", "g"), eltwise("e", "c g")], [32, 32], id="relu_before_the_sum"),
        pytest.param([C, relu("a", "c"), G, eltwise("e", "c g", "operation: MAX")], [8, 8], id="two_types"),
        pytest.param([C, G, layer("LRN", "l", "g"), eltwise("e", "c l", "operation: MAX")], [8, 8], id="one_is_fp32"),
        pytest.param([C, G, eltwise("e", "c c")], [32, 8], id="one_twice"),
        pytest.param(
            [C, G, layer("Pooling", "p", "c"), layer("Pooling", "q", "g"), eltwise("e", "p q", "operation: MAX")],
            [32, 32],
            id="through_pooling",
        ),
    ],
)
def test_integers_of_one_type_do_not_meet_in_an_eltwise(layers: list[str], widths: list[int]) -> None:
    made = params(calibrate(*layers, conv("y", "c"), conv("z", "g")))
    assert [made[name].bw_layer_out for name in "cg"] == widths
