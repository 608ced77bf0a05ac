"""Embed, Parameter and SPP against their definitions."""

import math

import numpy as np
import pytest

from tests.layers.harness import random, refused, run


@pytest.mark.parametrize("bias", [True, False])
def test_embed_takes_rows_of_a_table(bias: bool) -> None:
    x = np.array([[0, 3, 1], [4, 4, 2]], np.float32)
    weight, b = random(5, 3), random(3, seed=1)
    text = f"num_output: 3 input_dim: 5 bias_term: {str(bias).lower()}"
    [y] = run(f'type: "Embed" embed_param {{ {text} }}', x, blobs=[weight, b] if bias else [weight])
    np.testing.assert_allclose(y, weight[x.astype(int)] + (b if bias else 0), rtol=1e-6)


def test_parameter_is_its_blob() -> None:
    blob = random(2, 3)
    [y] = run('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', blobs=[blob])
    np.testing.assert_array_equal(y, blob)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(("height", "size"), [(1, (6, 7)), (3, (8, 8)), (3, (9, 11))])
def test_spp_pools_into_grids_of_several_sizes(pool: str, height: int, size: tuple[int, int]) -> None:
    x = random(2, 3, *size)
    [y] = run(f'type: "SPP" spp_param {{ pyramid_height: {height} pool: {pool} }}', x)
    parts = []
    for level in range(height):
        bins = 2**level
        k = [math.ceil(n / bins) for n in size]
        pad = [(k[i] * bins - size[i] + 1) // 2 for i in (0, 1)]
        grid = np.empty((2, 3, bins, bins), np.float32)
        for i, j in np.ndindex(bins, bins):
            top, left = i * k[0] - pad[0], j * k[1] - pad[1]
            window = x[:, :, max(top, 0) : top + k[0], max(left, 0) : left + k[1]]
            area = (min(top + k[0], size[0] + pad[0]) - top) * (min(left + k[1], size[1] + pad[1]) - left)
            if not any(pad):
                area = window[0, 0].size
            grid[:, :, i, j] = window.max(axis=(2, 3)) if pool == "MAX" else window.sum(axis=(2, 3)) / area
        parts.append(grid.reshape(2, -1))
    assert y.shape == ((2, 3, 1, 1) if height == 1 else (2, 3 * sum(4**i for i in range(height))))
    np.testing.assert_allclose(y.reshape(2, -1), np.concatenate(parts, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "says"),
    [
        ('type: "Embed" embed_param { num_output: 3 }', [(2,)], "input_dim=0"),
        ('type: "Parameter"', [], "its shape is ()"),
        ('type: "SPP"', [(1, 2, 4, 4)], "pyramid_height=0"),
        ('type: "SPP" spp_param { pyramid_height: 2 }', [(1, 2)], "its input has 2 axes"),
    ],
)
def test_lookup_refuses(text: str, shapes: list[tuple[int, ...]], says: str) -> None:
    assert says in refused(text, *shapes)
