"""Emulated INT8 against NumPy's int64: every stored integer the same."""

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.engine.arithmetic import Arithmetic, output_scales
from distcalib.engine.exact_sums import LARGEST, cuts
from tests.engine.integer_layers import Case, Whole, run, sums_of

CASES = {
    "plain": Case(16, 9, 24, pad=1),
    "1x1": Case(64, 6, 32, k=1),
    "odd channels": Case(7, 9, 5, k=5, pad=2, stride=2),
    "dilated": Case(8, 13, 16, pad=2, dilation=2),
    "grouped": Case(24, 7, 24, pad=1, group=3),
    "depthwise": Case(32, 8, 32, pad=1, group=32),
    "3 channels": Case(3, 15, 8, k=7, pad=3, stride=2),
    "1 channel": Case(1, 9, 8),
    "InnerProduct": Case(10, 5, 12, k=0, n=8),
    "InnerProduct of 4,608": Case(512, 3, 20, k=0),
    "4,608 inputs": Case(512, 4, 24, pad=1),
    "4,608 grouped": Case(1024, 3, 16, pad=1, group=2),
    "9,216 inputs": Case(1024, 3, 8, pad=1),
    "kernel too large alone": Case(2, 26, 3, k=25, pad=1),
}


def reference(case: Case, signed: bool, scale_in: np.float32, scale_out: float, scales: NDArray[np.float32]) -> Whole:
    """The integers that mkl-dnn stores: exact sums, then its own f32 steps."""
    x, weight, bias = case.numbers(signed)
    m = len(bias)
    shape = (1, m) if case.k == 0 else (1, m, 1, 1)
    y = case.sums(x, weight).astype(np.float32)
    b = np.rint((bias / (scale_in * scales)).astype(np.float32) * (scale_in * scales))
    step = np.float32(scale_out) / (scale_in * scales)
    y = (y + b.reshape(shape).astype(np.float32)) * step.reshape(shape)
    stored: Whole = np.clip(np.rint(y), -128, 127).astype(np.int64)
    return stored


@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_emulated_stores_each_integer_of_numpy(case: Case, signed: bool) -> None:
    x, weight, bias = case.numbers(signed)
    rng = np.random.default_rng(case.m)
    scale_in = np.float32(rng.uniform(0.5, 40))
    scales = rng.uniform(1, 900, case.m).astype(np.float32)
    # so that half of the values are within the range and the others saturate
    typical = float(np.median(np.abs(case.sums(x, weight)))) / float(scale_in * np.median(scales))
    scale_out = float(np.float32(100 / typical))
    real = (x / scale_in).astype(np.float32)
    column = (-1, 1) if case.k == 0 else (-1, 1, 1, 1)
    blobs = ((weight / scales.reshape(column)).astype(np.float32), (bias / (scale_in * scales)).astype(np.float32))
    assert np.array_equal(np.rint(blobs[0] * scales.reshape(column)), weight), "the integers survive being real"
    program = run(case.layer(signed, float(scale_in), scale_out, scales), real, blobs, Arithmetic(emulated=True))
    [y] = program.run({"x": real})[0].values()
    stored = np.rint(y * np.float32(scale_out)).astype(np.int64)
    wanted = reference(case, signed, scale_in, scale_out, scales)
    assert len(np.unique(wanted)) > 20, "a test of few integers shows little"
    assert np.array_equal(stored, wanted)


@pytest.mark.parametrize("signed", [False, True], ids=["u8", "s8"])
@pytest.mark.parametrize("name", ["4,608 inputs", "9,216 inputs", "4,608 grouped", "InnerProduct of 4,608"])
def test_emulated_sums_beyond_what_fp32_holds_are_rounded_once(name: str, signed: bool) -> None:
    """Weights and inputs all of one sign: the sums themselves exceed 2^24, and are those of int64 as f32."""
    case = CASES[name]
    x, weight, _ = case.numbers(signed)
    x, weight = np.abs(x).clip(0, 127), np.abs(weight)
    text = case.layer(signed, 1.0, None, np.ones(1, np.float32))
    blobs = (weight.astype(np.float32), np.zeros(case.m, np.float32))
    given = x.astype(np.float32)
    [y] = run(text, given, blobs, Arithmetic(emulated=True)).run({"x": given})[0].values()
    wanted = case.sums(x, weight)
    assert wanted.max() > LARGEST
    assert np.array_equal(y, wanted.astype(np.float32))


def test_without_cuts_large_sums_are_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcalib.engine.exact_sums.LARGEST", 2**40)
    case = CASES["9,216 inputs"]
    x, weight, _ = case.numbers(False)
    text = case.layer(False, 1.0, None, np.ones(1, np.float32))
    blobs, given = (np.abs(weight).astype(np.float32), np.zeros(case.m, np.float32)), x.astype(np.float32)
    [y] = run(text, given, blobs, Arithmetic(emulated=True)).run({"x": given})[0].values()
    assert not np.array_equal(y, case.sums(x, np.abs(weight)).astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "most", "bounds"),
    [
        ((2, 3, 3, 3), 255, [0, 27]),
        ((1, 518), 255, [0, 518]),
        ((1, 519), 255, [0, 518, 519]),
        ((4, 1100), 255, [0, 518, 1036, 1100]),
        ((1, 64, 3, 3), 255, [0, 513, 576]),
        ((1, 1, 25, 25), 255, [0, 518, 625]),
        ((1, 1000), 128, [0, 1000]),
    ],
    ids=["small", "just fits", "one too many", "three parts", "whole channels", "within a channel", "s8"],
)
def test_cuts_are_as_few_as_are_safe(shape: tuple[int, ...], most: int, bounds: list[int]) -> None:
    assert cuts(np.full(shape, 127, np.int8), most) == bounds


def test_cuts_look_at_the_weights_not_at_their_number() -> None:
    weight = np.ones((2, 5000), np.int8)
    assert cuts(weight, 255) == [0, 5000]
    weight[1, :600] = -127
    assert cuts(weight, 255) == [0, 518, 5000]


def test_halved_weights_are_rounded_at_half_their_scale() -> None:
    case = Case(8, 5, 4, pad=1)
    x, weight, _ = case.numbers(True)
    halved = np.rint(weight / 2).astype(np.int64)  # ties to even
    for arithmetic in (Arithmetic(emulated=True, halved=True), Arithmetic(halved=True)):
        assert np.allclose(sums_of(case, True, arithmetic), 2 * case.sums(x, halved), rtol=1e-6)


def test_halving_is_of_convolutions_with_signed_input_alone() -> None:
    halved = Arithmetic(emulated=True, halved=True)
    for case, signed in ((Case(8, 5, 4), False), (Case(8, 3, 4, k=0), True)):
        x, weight, _ = case.numbers(signed)
        assert np.array_equal(sums_of(case, signed, halved), case.sums(x, weight))


def test_output_scales_of_a_zero_channel_are_the_output_scale_alone() -> None:
    param = caffe_pb2.QuantizationParameter(scale_in=[2.0])
    assert output_scales(param, np.array([4.0, 0.0]), 3.0).tolist() == [0.375, 3.0]
