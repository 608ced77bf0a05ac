"""BatchNorm in all forms of its blobs, and with the statistics of the batch."""

import numpy as np
import pytest

from tests.cpu import not_held_to_avx2
from tests.layers.harness import Array, random, refused, run

MEAN = np.array([1.0, -2.0, 0.5], np.float32)
VARIANCE = np.array([0.5, 4.0, 1.5], np.float32)
GAMMA = np.array([2.0, -1.0, 0.1], np.float32)
BETA = np.array([0.0, 3.0, -1.0], np.float32)


def factor(value: float) -> Array:
    return np.array([value], np.float32)


def expected(
    x: Array, mean: Array, variance: Array, eps: float = 1e-5, gamma: Array | None = None, beta: Array | None = None
) -> Array:
    y = x.astype(np.float64)
    for c in range(x.shape[1]):
        y[:, c] = (y[:, c] - mean[c]) / np.sqrt(float(variance[c]) + eps)
        y[:, c] = y[:, c] * (1.0 if gamma is None else gamma[c]) + (0.0 if beta is None else beta[c])
    return y.astype(np.float32)


def batch_statistics(x: Array) -> tuple[Array, Array]:
    channels = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
    return channels.mean(axis=1), channels.var(axis=1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 3)], ids=str)
def test_batch_norm_divides_its_sums_by_the_factor(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    [y] = run('type: "BatchNorm"', x, blobs=[MEAN * 8, VARIANCE * 8, factor(8)])
    np.testing.assert_allclose(y, expected(x, MEAN, VARIANCE), rtol=1e-5, atol=1e-6)


def test_batch_norm_with_a_factor_of_zero_has_statistics_of_zero() -> None:
    x = random(2, 3, 4, 5)
    [y] = run('type: "BatchNorm" batch_norm_param { eps: 0.25 }', x, blobs=[MEAN, VARIANCE, factor(0)])
    np.testing.assert_allclose(y, x * 2, rtol=1e-6)


def test_batch_norm_takes_statistics_without_a_factor_as_they_are() -> None:
    x = random(2, 3, 4, 5)
    [y] = run('type: "BatchNorm"', x, blobs=[MEAN, VARIANCE])
    np.testing.assert_allclose(y, expected(x, MEAN, VARIANCE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "n_blobs"),
    [
        pytest.param("", 3, id="plain_caffe"),
        pytest.param("use_weight_bias: false", 3, id="without_gamma"),
        pytest.param("bias_term: false", 4, id="gamma_only"),
        pytest.param("", 5, id="gamma_and_beta"),
        pytest.param("use_global_stats: true use_weight_bias: true bias_term: true", 5, id="all_said"),
    ],
)
def test_batch_norm_has_gamma_and_beta_where_they_are_stored(fields: str, n_blobs: int) -> None:
    x = random(2, 3, 4, 5)
    blobs = [MEAN * 2, VARIANCE * 2, factor(2), GAMMA, BETA][:n_blobs]
    [y] = run(f'type: "BatchNorm" batch_norm_param {{ eps: 0.01 {fields} }}', x, blobs=blobs)
    gamma, beta = GAMMA if n_blobs > 3 else None, BETA if n_blobs > 4 else None
    np.testing.assert_allclose(y, expected(x, MEAN, VARIANCE, 0.01, gamma, beta), rtol=1e-5, atol=1e-6)


def test_batch_norm_applies_a_relu_merged_into_it() -> None:
    x = random(2, 3, 4, 5)
    [y] = run('type: "BatchNorm" batch_norm_param { relu: true }', x, blobs=[MEAN, VARIANCE, factor(1)])
    np.testing.assert_allclose(y, np.maximum(expected(x, MEAN, VARIANCE), 0), rtol=1e-5, atol=1e-6)


def test_batch_norm_reads_blobs_of_old_files() -> None:
    x = random(2, 3, 4, 5)
    old = [b.reshape((1,) * 3 + b.shape) for b in (MEAN, VARIANCE, factor(1))]
    [y] = run('type: "BatchNorm"', x, blobs=old)
    np.testing.assert_allclose(y, expected(x, MEAN, VARIANCE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_blobs", [0, 3, 5])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)], ids=str)
def test_batch_norm_takes_the_statistics_of_the_batch_if_told(shape: tuple[int, ...], n_blobs: int) -> None:
    x = random(*shape) * 3 + 1
    blobs = [MEAN, VARIANCE, factor(1), GAMMA, BETA][:n_blobs]
    [y] = run('type: "BatchNorm" batch_norm_param { use_global_stats: false }', x, blobs=blobs)
    gamma, beta = (GAMMA, BETA) if n_blobs == 5 else (None, None)
    np.testing.assert_allclose(y, expected(x, *batch_statistics(x), gamma=gamma, beta=beta), rtol=2e-5, atol=2e-6)


def test_batch_norm_of_a_vector_has_one_channel() -> None:
    x = random(6)
    [y] = run('type: "BatchNorm"', x, blobs=[factor(2), factor(4), factor(1)])
    np.testing.assert_allclose(y, (x - 2) / 2, rtol=1e-5)


@not_held_to_avx2
def test_batch_norm_of_a_vector_takes_the_statistics_of_the_batch() -> None:
    x = random(6)
    [y] = run('type: "BatchNorm" batch_norm_param { use_global_stats: false }', x)
    np.testing.assert_allclose(y, (x - x.mean()) / np.sqrt(x.var() + 1e-5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "blobs", "says"),
    [
        pytest.param("", [], "layer 'it' has no blobs there but needs some", id="none"),
        pytest.param("", [MEAN], "layer 'it' has 1 of the blobs, and blob 1 of shape (3) is needed", id="one"),
        pytest.param(
            "", [MEAN[:2], VARIANCE, factor(1)], "blob 0 has shape (2) but the prototxt needs (3)", id="channels"
        ),
        pytest.param("", [MEAN, VARIANCE, MEAN], "blob 2 has shape (3) but the prototxt needs (1)", id="factor"),
        pytest.param(
            "use_weight_bias: false",
            [MEAN, VARIANCE, factor(1), GAMMA, BETA],
            "the caffemodel has 5 blobs and the prototxt uses 3",
            id="too_many",
        ),
        pytest.param(
            "use_global_stats: false stats_batch_size: 2", [], "stats_batch_size=2 in a batch of 4", id="parts"
        ),
    ],
)
def test_batch_norm_refuses(fields: str, blobs: list[Array], says: str) -> None:
    assert says in refused(f'type: "BatchNorm" batch_norm_param {{ {fields} }}', (4, 3, 2, 2), blobs=blobs)


def test_batch_norm_of_nvidia_has_scale_and_bias() -> None:
    x, text = random(2, 3, 4, 5), 'type: "BatchNorm" batch_norm_param { scale_bias: true }'
    mean, variance, gamma, beta = random(3, seed=1), abs(random(3, seed=2)), random(3, seed=3), random(3, seed=4)
    blobs = [mean, variance, np.ones(1, np.float32), gamma, beta]
    [made] = run(text, x, blobs=blobs)
    mean, variance, gamma, beta = (b.reshape(3, 1, 1) for b in (mean, variance, gamma, beta))
    np.testing.assert_allclose(made, (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, rtol=1e-4, atol=1e-5)
    assert "has 3 blobs; NVIDIA's Caffe has 5 then" in refused(text, (2, 3, 4, 5), blobs=blobs[:3])


def test_batch_norm_of_synopsys_may_add_eps_to_the_root() -> None:
    x, text = random(2, 3, 4, 5), 'type: "BatchNorm" batch_norm_param { add_eps_before_sqrt: false eps: 0.1 }'
    [made] = run(text, x, blobs=[MEAN, VARIANCE, np.ones(1, np.float32)])
    mean, variance = (b.reshape(3, 1, 1) for b in (MEAN, VARIANCE))
    np.testing.assert_allclose(made, (x - mean) / (np.sqrt(variance) + 0.1), rtol=1e-4, atol=1e-5)
