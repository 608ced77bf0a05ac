"""BN of both families of forks, against its definition."""

import numpy as np
import pytest

from tests.layers.harness import random, refused, run

ONE = (1, 3, 1, 1)


def test_bn_of_segnet_multiplies_and_adds() -> None:
    x, scale, shift = random(2, 3, 4, 5), random(*ONE, seed=1), random(*ONE, seed=2)
    [y] = run('type: "BN" bn_param { bn_mode: INFERENCE }', x, blobs=[scale, shift])
    np.testing.assert_allclose(y, scale * x + shift, rtol=1e-5, atol=1e-6)


def test_bn_of_segnet_that_learns_takes_the_statistics_of_its_batch() -> None:
    x, scale, shift = random(2, 3, 4, 5), random(*ONE, seed=1), random(*ONE, seed=2)
    [y] = run('type: "BN" bn_param { scale_filler { value: 1 } }', x, blobs=[scale, shift])
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, scale * (x - mean) / np.sqrt(variance + 1e-9) + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", ["", "frozen: true", "eps: 0.1 momentum: 0.95", "slope_filler { value: 1 }"])
def test_bn_of_pspnet_takes_the_statistics_stored(fields: str) -> None:
    x, slope, bias, mean = random(2, 3, 4, 5), random(*ONE, seed=1), random(*ONE, seed=2), random(*ONE, seed=3)
    variance = random(*ONE, seed=4) ** 2
    [y] = run(f'type: "BN" bn_param {{ {fields} }}', x, blobs=[slope, bias, mean, variance])
    eps = 0.1 if "eps" in fields else 1e-5
    np.testing.assert_allclose(y, slope * (x - mean) / np.sqrt(variance + eps) + bias, rtol=1e-4, atol=1e-5)


def test_bn_without_parameters_goes_by_the_blobs() -> None:
    x, scale, shift = random(2, 3, 4, 5), random(*ONE, seed=1), random(*ONE, seed=2)
    [y] = run('type: "BN"  bn_param { bn_mode: INFERENCE }', x, blobs=[scale, shift])
    np.testing.assert_allclose(y, scale * x + shift, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "says"),
    [
        ("bn_mode: INFERENCE frozen: true", (1, 3, 2, 2), "fields of SegNet's BN and of another's"),
        ("", (1, 3), "its input has 2 axes"),
    ],
)
def test_bn_refuses(fields: str, shape: tuple[int, ...], says: str) -> None:
    assert says in refused(f'type: "BN" bn_param {{ {fields} }}', shape)
