"""The predecessor's flags that change what is written."""

from dataclasses import replace

import numpy as np
import pytest

from distcalib.caffe.caffe_pb2 import QuantizationParameter
from distcalib.quantize.options import Options
from distcalib.quantize.scales import Calibration
from tests.quantize.nets import calibrate, conv, eltwise, layer, make_graph, relu, weights_of

BASE = Options(enable_1st_conv=True)
JOINED = [
    conv("a", "x"),
    relu("ra", "a"),
    conv("b", "x"),
    relu("rb", "b"),
    layer("Concat", "cat", "a b"),
    conv("last", "cat"),
]
AVERAGED = [
    conv("a", "x"),
    layer("Pooling", "p", "a", "", "pooling_param { pool: AVE kernel_size: 2 }"),
    conv("b", "p"),
]


def params(calibration: Calibration) -> dict[str, QuantizationParameter]:
    return calibration.params(calibration.quantizer.space.all_int8)


def f32(value: float) -> float:
    return float(np.float32(value))


@pytest.mark.parametrize("fused", [[], [relu("r", "a", 0.1)], [relu("r", "a")]], ids=["none", "leaky", "relu"])
def test_unsigned_range_widens_scale_out_without_relu(fused: list[str]) -> None:
    net = [conv("a", "x"), *fused, conv("b", "a")]
    plain = params(calibrate(*net, options=BASE))["a"].scale_out[0]
    wide = params(calibrate(*net, options=replace(BASE, unsigned_range=True)))["a"].scale_out[0]
    assert wide == (f32(255) if not fused else plain)


def test_concat_use_fp32_gives_its_feeders_fp32_output() -> None:
    found = params(calibrate(*JOINED, options=replace(BASE, concat_use_fp32=True)))
    assert [found[name].bw_layer_out for name in "ab"] == [32, 32]
    assert [params(calibrate(*JOINED, options=BASE))[name].bw_layer_out for name in "ab"] == [8, 8]


def test_concat_use_fp32_makes_a_sum_on_the_concat_fp32() -> None:
    net = [*JOINED[:5], conv("s", "cat"), eltwise("sum", "cat s"), relu("rs", "sum"), conv("last", "sum")]
    calibration = calibrate(*net, options=replace(BASE, concat_use_fp32=True))
    assert "its residual 'cat' is FP32" in calibration.quantizer.refused["s"]
    assert "s" not in params(calibration)


def test_unify_concat_scales_shares_the_smallest() -> None:
    sizes = {"a#1": 2.0, "b#1": 5.0}
    apart = params(calibrate(*JOINED, options=BASE, largest=sizes))
    assert [apart[name].scale_out[0] for name in "ab"] == [f32(255 / 2), f32(255 / 5)]
    shared = params(calibrate(*JOINED, options=replace(BASE, unify_concat_scales=True), largest=sizes))
    assert [shared[name].scale_out[0] for name in "ab"] == [f32(255 / 5), f32(255 / 5)]
    assert shared["last"].scale_in[0] == f32(255 / 5)


def test_unify_concat_scales_leaves_out_what_fell_back() -> None:
    sizes = {"a#1": 2.0, "b#1": 5.0}
    calibration = calibrate(
        *JOINED, options=replace(BASE, unify_concat_scales=True, disable_force_fp32=True), largest=sizes
    )
    found = calibration.params(calibration.quantizer.space.all_int8.without("b"))
    assert found["a"].scale_out[0] == f32(255 / 2)


def test_disable_force_fp32_writes_int8_where_nobody_reads_it() -> None:
    net = [conv("a", "x"), relu("r", "a"), layer("Softmax", "s", "a")]
    assert params(calibrate(*net, options=BASE))["a"].bw_layer_out == 32
    found = params(calibrate(*net, options=replace(BASE, disable_force_fp32=True), largest={"a#1": 2.0}))["a"]
    assert (found.bw_layer_out, found.scale_out[0]) == (8, f32(255 / 2))


def test_disable_cac_unify_gives_the_consumer_of_an_average_its_own_range() -> None:
    sizes = {"a": 4.0, "p": 2.0}
    assert params(calibrate(*AVERAGED, options=BASE, largest=sizes))["b"].scale_in[0] == f32(127 / 4)
    apart = params(calibrate(*AVERAGED, options=replace(BASE, disable_cac_unify=True), largest=sizes))
    assert apart["b"].scale_in[0] == f32(127 / 2)
    assert apart["a"].scale_out[0] == f32(127 / 4)


def test_fc_int8_quantizes_inner_products_and_lets_them_fall_back() -> None:
    net = [
        conv("a", "x"),
        relu("r", "a"),
        layer("InnerProduct", "fc", "a", "", "inner_product_param { num_output: 2 }"),
        layer("InnerProduct", "end", "fc", "", "inner_product_param { num_output: 2 }"),
    ]
    graph = make_graph(*net)
    weights = {**weights_of(graph), "fc": (np.ones((2, 2), np.float32),), "end": (np.full((2, 2), 4, np.float32),)}
    without = calibrate(*net, options=BASE, weights=weights)
    assert without.quantizer.refused["fc"] == "InnerProduct, which -fc quantizes"
    calibration = calibrate(*net, options=replace(BASE, fc_int8=True), weights=weights)
    found = params(calibration)
    assert list(found) == ["a", "fc", "end"]
    assert found["fc"].bw_layer_out == 8
    assert found["end"].scale_params[0] == f32(127 / 4)
    assert found["end"].bw_layer_out == 32
    alone = calibration.params(calibration.quantizer.space.all_int8.without("end"))
    assert alone["fc"].bw_layer_out == 32
