"""Softmax along any axis."""

import numpy as np
import pytest

from tests.layers.harness import random, refused, run


@pytest.mark.parametrize(
    ("fields", "shape", "axis"),
    [
        pytest.param("", (3, 10), 1, id="default"),
        pytest.param("", (2, 4, 3, 5), 1, id="channels"),
        pytest.param("axis: 2", (2, 4, 3), 2, id="axis"),
        pytest.param("axis: -1", (2, 4, 3), 2, id="negative"),
        pytest.param("axis: 0", (6,), 0, id="vector"),
    ],
)
def test_softmax_sums_to_one_along_its_axis(fields: str, shape: tuple[int, ...], axis: int) -> None:
    x = random(*shape) * 20
    [y] = run(f'type: "Softmax" softmax_param {{ {fields} }}', x)
    exponentials = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    np.testing.assert_allclose(y, exponentials / exponentials.sum(axis=axis, keepdims=True), rtol=1e-5, atol=1e-7)


def test_softmax_refuses_an_axis_outside() -> None:
    assert "axis=1 of an input with 1 axes; -1 to 0 exist" in refused('type: "Softmax"', (4,))


def test_softmax_refuses_another_kind_of_normalization() -> None:
    assert 'normalize_type="L2"' in refused('type: "Softmax" softmax_param { normalize_type: "L2" }', (2, 3))
