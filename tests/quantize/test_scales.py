"""The parameters that are written: every formula and rule of them."""

from dataclasses import replace

import numpy as np
import pytest

from distcalib.caffe.caffe_pb2 import QuantizationParameter
from distcalib.caffe.graph import Blob
from distcalib.errors import OptionError, UnsupportedError
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.every import every
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


# scale_params


def kernel(*channels: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([[c, -c / 2] for c in channels], np.float32).reshape(-1, 2, 1, 1)


@pytest.mark.parametrize(
    ("options", "weight", "expected"),
    [
        pytest.param(FIRST, kernel(2, -4), [127 / 4], id="single"),
        pytest.param(MULTIPLE, kernel(2, -4), [127 / 2, 127 / 4], id="multiple"),
        pytest.param(FIRST, kernel(0, -4), [127 / 4], id="single_one_zero"),
        pytest.param(MULTIPLE, kernel(0, -4), [0, 127 / 4], id="multiple_one_zero"),
        pytest.param(FIRST, kernel(0, 0), [0], id="single_all_zero"),
        pytest.param(MULTIPLE, kernel(0, 0), [0, 0], id="multiple_all_zero"),
    ],
)
def test_scale_params_is_127_over_the_largest_weight(
    options: Options, weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: list[float]
) -> None:
    param = params(calibrate(C, options=options, weights={"c": (weight,)}))["c"]
    assert list(param.scale_params) == expected


@pytest.mark.parametrize(
    ("options", "weight", "expected"),
    [
        pytest.param(MULTIPLE, kernel(0, -4), [127 / 4, 127 / 4], id="multiple"),
        pytest.param(MULTIPLE, kernel(0, 0), [1, 1], id="multiple_all_zero"),
        pytest.param(FIRST, kernel(0, 0), [1], id="single_all_zero"),
    ],
)
def test_scale_params_of_a_zero_channel_keeps_its_bias(
    options: Options, weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: list[float]
) -> None:
    """With scale 0 Intel Caffe would make 0 of a bias of 0.4."""
    weights = {"c": (weight, np.array([0.4, 0.4], np.float32))}
    assert list(params(calibrate(C, options=options, weights=weights))["c"].scale_params) == expected


def test_scale_params_is_of_the_folded_weights() -> None:
    ones = np.ones(2, np.float32)
    weights = {
        "c": (kernel(2, -4),),
        "b": (0 * ones, 4 * ones, ones[:1]),
        "s": (np.array([1, 8], np.float32), ones),
    }
    layers = [
        C,
        layer("BatchNorm", "b", "c", "c", "batch_norm_param { eps: 0 }"),
        layer("Scale", "s", "c", "c", "scale_param { bias_term: true }"),
    ]
    param = params(calibrate(*layers, options=MULTIPLE, weights=weights))["c"]
    assert list(param.scale_params) == [127 / 1, f32(127 / 16)]


@pytest.mark.parametrize("options", [FIRST, MULTIPLE], ids=lambda o: str(o.weights_channel))
def test_scale_params_keeps_the_bias_within_s32(options: Options) -> None:
    weights = {"c": (kernel(1e-6, 1), np.array([1e5, 0], np.float32))}
    param = params(calibrate(C, options=options, weights=weights))["c"]
    assert 1e5 * param.scale_in[0] * param.scale_params[0] == pytest.approx(2**30)
    assert len(param.scale_params) == (1 if options is FIRST else 2)


def test_scale_params_of_weights_near_zero_can_be_written() -> None:
    """Channels that training let die are left with gammas of 1e-40 and the like; 127 over that is infinite."""
    param = params(calibrate(C, options=MULTIPLE, weights={"c": (kernel(1e-40, 1),)}))["c"]
    assert np.isfinite(param.scale_params).all()
    assert param.scale_params[0] > 0


# values of no use


@pytest.mark.parametrize("size", [0.0, 1e-40], ids=["zero", "near_zero"])
def test_scales_of_a_dead_value_are_finite(size: float) -> None:
    made = params(calibrate(C, D, largest={"x": size, "c": size}))
    written = [*made["c"].scale_in, *made["c"].scale_out, *made["d"].scale_in]
    assert np.isfinite(written).all()
    assert min(written) > 0
    assert made["c"].scale_out == made["d"].scale_in


@pytest.mark.parametrize("size", [np.inf, np.nan])
def test_scales_of_a_value_that_is_not_finite_are_refused(size: float) -> None:
    calibration = calibrate(C, D, largest={"c": size})
    with pytest.raises(UnsupportedError, match="blob 'c': is not finite in the FP32 pass"):
        params(calibration)


# the whole


def test_observed_is_what_scales_are_made_from() -> None:
    layers = [C, relu("r", "c"), D, eltwise("e", "c d"), relu("s", "e"), layer("InnerProduct", "f", "e")]
    quantizer = Quantizer(make_graph(*layers), FIRST)
    assert quantizer.observed == (Blob("x", 0), Blob("c", 1), Blob("e", 1))
    assert Quantizer(make_graph(*layers), Options()).observed == ()


def test_params_are_whole_and_in_net_order() -> None:
    made = params(calibrate(C, D, conv("b", "d")))
    assert list(made) == ["c", "d", "b"]
    assert every((p.bw_layer_in, p.bw_params, p.force_u8_input) == (8, 8, False) for p in made.values())


def test_params_of_two_readers_of_one_blob_agree() -> None:
    made = params(calibrate(C, D, conv("e", "c"), largest={"c": 3}))
    assert made["d"].scale_in == made["e"].scale_in == made["c"].scale_out


def test_options_refuse_an_unknown_way_to_scale_weights() -> None:
    with pytest.raises(OptionError, match="--weights_channel both: unknown; choose single or multiple"):
        Options("both")


# which threshold


def test_scaled_names_the_values_that_scales_are_made_from() -> None:
    calibration = calibrate(C, relu("r", "c"), D, layer("Pooling", "p", "d"), conv("e", "p"), options=FIRST)
    space = calibration.quantizer.space
    assert [str(blob) for blob in calibration.quantizer.observed] == ["x", "c#1", "d", "p", "e"]
    assert [str(blob) for blob in calibration.scaled(space.all_int8)] == ["x", "c#1", "d"]
    assert [str(blob) for blob in calibration.scaled(space.all_int8.without("d"))] == ["x", "p"]
    assert [str(blob) for blob in calibration.scaled(space.all_int8.without("c", "d", "e"))] == []


def test_each_value_gets_the_threshold_of_its_own_algorithm() -> None:
    calibration = calibrate(C, D, options=FIRST)
    ranges = {blob: Range(-8.0, 8.0, (8.0, 4.0)) for blob in calibration.ranges}
    direct = replace(calibration, ranges=ranges)
    average = replace(direct, choice=Choice("MA"))
    mixed = replace(direct, choice=Choice.of("DIRECT", {Blob("c", 0): "MA"}))
    assert [params(direct)[name].scale_in[0] for name in "cd"] == [f32(127 / 8), f32(127 / 8)]
    assert [params(average)[name].scale_in[0] for name in "cd"] == [f32(127 / 6), f32(127 / 6)]
    assert [params(mixed)[name].scale_in[0] for name in "cd"] == [f32(127 / 8), f32(127 / 6)]
    assert params(mixed)["c"].scale_out[0] == f32(127 / 6)


def test_scales_are_limited_by_the_bias_that_the_layer_has_now() -> None:
    """2e-9 · scale · bias must stay within s32: a corrected bias of 1 limits the scale, whatever was asked before."""
    graph = make_graph(conv("c", "x", "num_output: 1 kernel_size: 1"))
    quantizer = Quantizer(graph, Options(enable_1st_conv=True))
    weight = np.full((1, 1, 1, 1), 2e-9, np.float32)
    ranges = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
    candidate = quantizer.space.all_int8
    before = Calibration(quantizer, ranges, {"c": (weight, np.zeros(1, np.float32))})
    [free] = before.params(candidate)["c"].scale_params
    [limited] = replace(before, corrected={"c": (weight, np.ones(1, np.float32))}).params(candidate)["c"].scale_params
    assert free == pytest.approx(127 / 2e-9, rel=1e-5)
    assert limited < free / 1000
