"""Scales of weights, values of no use, and the parameters as a whole."""

from dataclasses import replace

import numpy as np
import pytest

from distcalib.caffe.graph import Blob
from distcalib.errors import OptionError, UnsupportedError
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.every import every
from tests.quantize.nets import calibrate, conv, eltwise, layer, make_graph, relu
from tests.quantize.test_scales import FIRST, MULTIPLE, C, D, f32, params

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
