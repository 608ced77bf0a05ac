"""What --bias-correction does to blobs: whatever stands behind the convolution, its result moves by the error."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.quantize.bias_correction import correctable, corrected
from distcalib.quantize.fusion import find_fused, fold
from tests.quantize.nets import calibrate, conv, layer, make_graph, relu

Blobs = dict[str, tuple[NDArray[np.float32], ...]]

N_OUT = 4
CONV = "num_output: 4 kernel_size: 1"
BATCH_NORM = layer("BatchNorm", "bn", "c", "c")
SCALE = layer("Scale", "scale", "c", "c", "scale_param { bias_term: true }")
FULLY = layer("InnerProduct", "c", "x", "", "inner_product_param { num_output: 4 }")
ERROR = np.array([0.5, -0.25, 3.0, -1e-3])


def blobs_of(has_bias: bool, seed: int = 0) -> Blobs:
    random = np.random.RandomState(seed)
    weight, gamma, beta, bias = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 3, 1, 1), 4, 4, 4))
    return {
        "c": (weight, bias) if has_bias else (weight,),
        "bn": (beta, np.abs(gamma) + np.float32(0.1), np.full(1, 2, np.float32)),
        "scale": (gamma, beta),
    }


@pytest.mark.parametrize("has_bias", [True, False], ids=["biased", "bare"])
@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([conv("c", "x", CONV)], id="alone"),
        pytest.param([conv("c", "x", CONV), relu("r", "c")], id="relu"),
        pytest.param([conv("c", "x", CONV), BATCH_NORM], id="batch_norm"),
        pytest.param([conv("c", "x", CONV), BATCH_NORM, SCALE, relu("r", "c")], id="scale"),
        pytest.param([FULLY], id="inner_product"),
    ],
)
def test_corrected_takes_the_error_out_of_the_folded_bias(layers: list[str], has_bias: bool) -> None:
    group, blobs = find_fused(make_graph(*layers))["c"], blobs_of(has_bias)
    made = corrected(group, blobs, ERROR)
    weight, bias = fold(group, blobs)
    new_weight, new_bias = fold(group, {**blobs, "c": made})
    assert made[0] is blobs["c"][0]
    assert [blob.dtype for blob in made] == [np.float32] * 2
    assert np.array_equal(new_weight, weight)
    assert np.allclose(new_bias, bias - ERROR, rtol=1e-5, atol=1e-6)


def test_corrected_keeps_the_shape_of_the_bias() -> None:
    group, blobs = find_fused(make_graph(conv("c", "x", CONV)))["c"], blobs_of(has_bias=True)
    blobs["c"] = blobs["c"][0], blobs["c"][1].reshape(1, 1, 1, N_OUT)
    assert corrected(group, blobs, ERROR)[1].shape == (1, 1, 1, N_OUT)


@pytest.mark.parametrize(
    "switch_off",
    [
        pytest.param(lambda blobs: blobs["c"][0].__setitem__(1, 0.0), id="no_weights"),
        pytest.param(lambda blobs: blobs["scale"][0].__setitem__(1, 0.0), id="scale_0"),
        pytest.param(lambda blobs: blobs["scale"][0].__setitem__(1, 1e-45), id="more_than_float32"),
    ],
)
def test_corrected_leaves_a_dead_channel_alone(switch_off: object) -> None:
    group, blobs = find_fused(make_graph(conv("c", "x", CONV), BATCH_NORM, SCALE))["c"], blobs_of(has_bias=False)
    assert callable(switch_off)
    switch_off(blobs)
    with np.errstate(over="ignore"):
        bias = corrected(group, blobs, ERROR)[1]
    assert bias[1] == 0.0
    assert (bias[[0, 2, 3]] != 0.0).all()


def test_correctable_leaves_out_what_is_shared_and_other_axes() -> None:
    shared = 'param { name: "w" }'
    graph = make_graph(
        conv("a", "x"),
        layer("Convolution", "b", "a", "", f"convolution_param {{ num_output: 2 kernel_size: 1 }} {shared}"),
        layer("Convolution", "d", "b", "", f"convolution_param {{ num_output: 2 kernel_size: 1 }} {shared}"),
        layer("InnerProduct", "rows", "d", "", "inner_product_param { num_output: 2 axis: 2 }"),
        layer("InnerProduct", "fc", "rows", "", "inner_product_param { num_output: 2 }"),
    )
    assert correctable(graph, find_fused(graph)) == ("a", "fc")


def test_params_leave_room_for_the_corrected_bias() -> None:
    """A bias beyond s32 in the accumulator's unit lowers the scale of the weights; so does one that was corrected."""
    plain = calibrate(conv("a", "x"), conv("b", "a"))
    start = plain.quantizer.space.all_int8
    blobs = plain.weights["a"][0], np.array([1e9, 0.0], np.float32)
    made = replace(plain, corrected={"a": blobs}).params(start)["a"]
    [before] = plain.params(start)["a"].scale_params
    [after] = made.scale_params
    assert after < before
    assert 1e9 * after * made.scale_in[0] <= 2**30
