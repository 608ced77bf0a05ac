"""MVN and Normalize, record by record."""

import numpy as np
import pytest

from tests.cpu import not_held_to_avx2
from tests.layers.harness import Array, random, refused, run


@not_held_to_avx2
@pytest.mark.parametrize("across", [False, True], ids=["channel", "record"])
@pytest.mark.parametrize("variance", [False, True], ids=["mean_only", "variance"])
def test_mvn_takes_mean_and_deviation_out(across: bool, variance: bool) -> None:
    x = random(2, 3, 4, 5) * 3 + 1
    flags = f"across_channels: {across} normalize_variance: {variance}".lower()
    [y] = run(f'type: "MVN" mvn_param {{ {flags} eps: 0.1 }}', x)
    rows = x.astype(np.float64).reshape((2, -1) if across else (6, -1))
    expected = rows - rows.mean(axis=1, keepdims=True)
    if variance:
        expected /= rows.std(axis=1, keepdims=True) + 0.1
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True], ids=["scale_a_channel", "one_scale"])
@pytest.mark.parametrize("across", [False, True], ids=["pixel", "record"])
def test_normalize_brings_to_a_length(across: bool, shared: bool) -> None:
    x = random(2, 3, 4, 5)
    scale: Array = np.float32(20) * np.ones(() if shared else 3, np.float32) + random(*(() if shared else (3,)), seed=1)
    flags = f"across_spatial: {across} channel_shared: {shared}".lower()
    [y] = run(f'type: "Normalize" norm_param {{ {flags} eps: 0.01 }}', x, blobs=[np.asarray(scale)])
    energy = (x.astype(np.float64) ** 2).sum(axis=(1, 2, 3) if across else 1, keepdims=True)
    expected = x / np.sqrt(energy + 0.01) * np.reshape(scale, (1, -1, 1, 1))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ['type: "MVN"', 'type: "Normalize" norm_param { }'])
def test_normalize_refuses_a_matrix(text: str) -> None:
    assert "its input has 2 axes" in refused(text, (2, 3))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6)], ids=str)
@pytest.mark.parametrize(
    ("param", "kind"),
    [
        ("normalize_param { }", 2),
        ('normalize_param { normalize_type: "L1" }', 1),
        ('softmax_param { normalize_type: "L2" }', 2),
    ],
    ids=["L2", "L1", "old"],
)
def test_normalize_of_normface(shape: tuple[int, ...], param: str, kind: int) -> None:
    x = random(*shape)
    made, length = run(f'type: "Normalize" top: "y" top: "length" {param}', x)
    total = (np.abs(x) ** kind).sum(axis=1, keepdims=True) + 1e-6
    wanted = np.sqrt(total) if kind == 2 else total
    np.testing.assert_allclose(length, wanted, rtol=1e-5)
    np.testing.assert_allclose(made, x / wanted, rtol=1e-5)


def test_normalize_of_ssd_has_one_top() -> None:
    assert "has two tops" in refused('type: "Normalize" top: "y" top: "z"', (1, 2, 3, 4))


def test_channel_scale() -> None:
    x, scale = random(2, 3, 4, 5), random(2, 4, 5, seed=1)
    [made] = run('type: "ChannelScale"', x, scale)
    np.testing.assert_allclose(made, x * scale[:, None], rtol=1e-6)
    assert "a factor for each place" in refused('type: "ChannelScale"', (2, 3, 4, 5), (2, 3, 4, 5))


def test_normalize_of_two_axes_without_parameters_is_that_of_normface() -> None:
    x = random(3, 5)
    wanted = x / np.sqrt((x.astype(np.float64) ** 2).sum(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(run('type: "Normalize"', x)[0], wanted, rtol=1e-5)
