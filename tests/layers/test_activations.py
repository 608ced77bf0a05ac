"""Elementwise layers against their formulas, one number at a time."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.layers.harness import Array, random, refused, run

Formula = Callable[[float], float]

CASES: dict[str, tuple[str, Formula]] = {
    "relu": ('type: "ReLU"', lambda x: max(x, 0.0)),
    "relu_slope": (
        'type: "ReLU" relu_param { negative_slope: 0.1 }',
        lambda x: max(x, 0.0) + 0.1 * min(x, 0.0),
    ),
    "relu_negative_slope_below_zero": (
        'type: "ReLU" relu_param { negative_slope: -1 }',
        abs,
    ),
    "elu": ('type: "ELU"', lambda x: x if x > 0 else math.exp(x) - 1),
    "elu_alpha": ('type: "ELU" elu_param { alpha: 0.4 }', lambda x: x if x > 0 else 0.4 * (math.exp(x) - 1)),
    "sigmoid": ('type: "Sigmoid"', lambda x: 1 / (1 + math.exp(-x))),
    "tanh": ('type: "TanH"', math.tanh),
    "bnll": ('type: "BNLL"', lambda x: math.log(1 + math.exp(x))),
    "swish": ('type: "Swish"', lambda x: x / (1 + math.exp(-x))),
    "swish_beta": ('type: "Swish" swish_param { beta: 1.5 }', lambda x: x / (1 + math.exp(-1.5 * x))),
    "threshold": ('type: "Threshold" threshold_param { threshold: 0.25 }', lambda x: float(x > 0.25)),
    "abs": ('type: "AbsVal"', abs),
    "power_default": ('type: "Power"', lambda x: x),
    "power_affine": ('type: "Power" power_param { scale: -0.5 shift: 3 }', lambda x: 3 - 0.5 * x),
    "power_scale": ('type: "Power" power_param { scale: 0.25 }', lambda x: 0.25 * x),
    "power_square": ('type: "Power" power_param { power: 2 shift: 1 }', lambda x: (1 + x) ** 2),
    "power_cube": ('type: "Power" power_param { power: 3 }', lambda x: x**3),
    "power_inverse": ('type: "Power" power_param { power: -1 }', lambda x: 1 / x),
    "power_fraction": (
        'type: "Power" power_param { power: -0.75 scale: 0.1 shift: 2 }',
        lambda x: (2 + 0.1 * x) ** -0.75,
    ),
    "power_zero": ('type: "Power" power_param { power: 0 }', lambda x: 1.0),
    "power_scale_zero": ('type: "Power" power_param { power: 2 scale: 0 shift: -3 }', lambda x: 9.0),
    "exp": ('type: "Exp"', math.exp),
    "exp_affine": ('type: "Exp" exp_param { scale: 0.5 shift: -1 }', lambda x: math.exp(0.5 * x - 1)),
    "exp_base": ('type: "Exp" exp_param { base: 2 scale: 3 shift: 1 }', lambda x: 2 ** (1 + 3 * x)),
    "log": ('type: "Log" log_param { scale: 0.1 shift: 3 }', lambda x: math.log(3 + 0.1 * x)),
    "log_base": ('type: "Log" log_param { base: 10 scale: 0.1 shift: 3 }', lambda x: math.log10(3 + 0.1 * x)),
}


@pytest.mark.parametrize("case", CASES)
def test_activation_follows_its_formula(case: str) -> None:
    text, formula = CASES[case]
    x = random(2, 3, 4, 5)
    [y] = run(text, x)
    expected = np.array([formula(float(v)) for v in x.ravel()], np.float32).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (2, 3, 2, 2, 2)], ids=str)
def test_activation_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    for text in ('type: "ReLU"', 'type: "ReLU" relu_param { negative_slope: 0.5 }'):
        [y] = run(text, x)
        np.testing.assert_allclose(y, np.where(x > 0, x, x * (0.5 if "slope" in text else 0.0)), atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5)], ids=str)
def test_prelu_has_a_slope_a_channel(shape: tuple[int, ...]) -> None:
    x, slope = random(*shape), np.array([0.1, -0.5, 2.0], np.float32)
    [y] = run('type: "PReLU"', x, blobs=[slope])
    wide = slope.reshape(1, 3, *[1] * (len(shape) - 2))
    np.testing.assert_allclose(y, np.maximum(x, 0) + wide * np.minimum(x, 0), atol=1e-6)


@pytest.mark.parametrize("stored", [(), (1,), (1, 1, 1, 1)], ids=str)
def test_prelu_has_one_slope_if_shared(stored: tuple[int, ...]) -> None:
    x: Array = random(2, 3, 4, 5)
    [y] = run('type: "PReLU" prelu_param { channel_shared: true }', x, blobs=[np.full(stored, 0.25, np.float32)])
    np.testing.assert_allclose(y, np.maximum(x, 0) + 0.25 * np.minimum(x, 0), atol=1e-7)


@pytest.mark.parametrize(
    ("text", "shape", "says"),
    [
        pytest.param(
            'type: "Exp" exp_param { base: -2 }', (2, 3), "base=-2; it must be above zero, or -1 for e", id="exp_base"
        ),
        pytest.param('type: "Log" log_param { base: 0 }', (2, 3), "base=0", id="log_base"),
        pytest.param(
            'type: "Log" log_param { base: 1 }', (2, 3), "base=1; a logarithm needs another base", id="log_one"
        ),
        pytest.param('type: "PReLU"', (3,), "its input has 1 axes", id="prelu_vector"),
        pytest.param('type: "Power" power_param { scale: 0 power: -1 }', (3,), "is not a number", id="power_of_zero"),
        pytest.param(
            'type: "PReLU" prelu_param { channel_shared: true }',
            (2, 3),
            "net.caffemodel: layer 'it': blob 0 has shape (3) but the prototxt needs ()",
            id="prelu_shared_with_three",
        ),
    ],
)
def test_activation_refuses(text: str, shape: tuple[int, ...], says: str) -> None:
    assert says in refused(text, shape, blobs=[np.ones(3, np.float32)])


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_relu6_ends_at_six(slope: float) -> None:
    x = random(2, 3, 4) * 8
    [y] = run(f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}', x)
    np.testing.assert_allclose(y, np.minimum(np.where(x > 0, x, slope * x), 6), rtol=1e-6)
    assert y.max() == 6


def test_clip_keeps_its_range() -> None:
    x = random(2, 3, 4) * 3
    [y] = run('type: "Clip" clip_param { min: -1.5 max: 2 }', x)
    np.testing.assert_array_equal(y, np.clip(x, np.float32(-1.5), np.float32(2)))
    assert "lacks min or max" in refused('type: "Clip" clip_param { min: 0 }', (1, 2))


def test_hard_swish_is_mobilenets() -> None:
    x = np.array([[-4, -3, -1, 0, 0.5, 3, 7]], np.float32)
    [y] = run('type: "HardSwish"', x)
    np.testing.assert_allclose(y, [[v * min(max(v + 3, 0), 6) / 6 for v in x[0]]], rtol=1e-6)
