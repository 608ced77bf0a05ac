"""LRN over channels and over pixels, as Caffe defines each."""

import numpy as np
import pytest

from tests.layers.harness import Array, random, refused, run


def across(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        around = x[:, max(0, c - size // 2) : c + size // 2 + 1].astype(np.float64)
        y[:, c] = x[:, c] / (k + alpha / size * (around**2).sum(axis=1)) ** beta
    return y.astype(np.float32)


def within(x: Array, size: int, alpha: float, beta: float) -> Array:
    y, pad = np.empty(x.shape), size // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            around = x[:, :, max(0, i - pad) : i + pad + 1, max(0, j - pad) : j + pad + 1].astype(np.float64)
            y[:, :, i, j] = x[:, :, i, j] / (1 + alpha * (around**2).sum(axis=(2, 3)) / size**2) ** beta
    return y.astype(np.float32)


@pytest.mark.parametrize(
    ("fields", "size", "alpha", "beta", "k"),
    [
        pytest.param("", 5, 1.0, 0.75, 1.0, id="default"),
        pytest.param("local_size: 5 alpha: 0.0001 beta: 0.75", 5, 1e-4, 0.75, 1.0, id="alexnet"),
        pytest.param("local_size: 3 alpha: 2 beta: 0.5 k: 2", 3, 2.0, 0.5, 2.0, id="k"),
        pytest.param("local_size: 1 alpha: 0.3 beta: 1.2", 1, 0.3, 1.2, 1.0, id="one"),
        pytest.param("local_size: 15", 15, 1.0, 0.75, 1.0, id="more_than_all_channels"),
    ],
)
def test_lrn_across_channels(fields: str, size: int, alpha: float, beta: float, k: float) -> None:
    x = random(2, 7, 3, 4) * 2
    [y] = run(f'type: "LRN" lrn_param {{ {fields} }}', x)
    np.testing.assert_allclose(y, across(x, size, alpha, beta, k), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "size", "alpha", "beta"),
    [
        pytest.param("local_size: 3", 3, 1.0, 0.75, id="default"),
        pytest.param("local_size: 3 alpha: 0.00005 beta: 0.75", 3, 5e-5, 0.75, id="cifar10_full"),
        pytest.param("local_size: 5 alpha: 2 beta: 0.5 k: 9", 5, 2.0, 0.5, id="k_is_not_used"),
        pytest.param("local_size: 1 alpha: 2", 1, 2.0, 0.75, id="one"),
    ],
)
def test_lrn_within_a_channel(fields: str, size: int, alpha: float, beta: float) -> None:
    x = random(2, 3, 6, 5) * 2
    [y] = run(f'type: "LRN" lrn_param {{ norm_region: WITHIN_CHANNEL {fields} }}', x)
    np.testing.assert_allclose(y, within(x, size, alpha, beta), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "says"),
    [
        pytest.param("local_size: 4", (1, 8, 2, 2), "local_size=4; it must be odd", id="even"),
        pytest.param("", (1, 8), "its input has 2 axes", id="matrix"),
    ],
)
def test_lrn_refuses(fields: str, shape: tuple[int, ...], says: str) -> None:
    assert says in refused(f'type: "LRN" lrn_param {{ {fields} }}', shape)
