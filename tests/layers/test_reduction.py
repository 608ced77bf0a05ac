"""Reduction of the axes from one on."""

import numpy as np
import pytest

from tests.layers.harness import random, refused, run


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("coeff", [1.0, -0.5])
@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
def test_reduction_reduces_to_the_end(operation: str, coeff: float, axis: int) -> None:
    x = random(2, 3, 4)
    [y] = run(f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: {coeff} }}', x)
    first = axis % 3
    rows = x.astype(np.float64).reshape(*x.shape[:first], -1)
    reduced = {"SUM": rows.sum(-1), "ASUM": abs(rows).sum(-1), "SUMSQ": (rows**2).sum(-1), "MEAN": rows.mean(-1)}
    assert y.shape == x.shape[:first]
    np.testing.assert_allclose(y, coeff * reduced[operation], rtol=1e-5, atol=1e-6)


def test_reduction_refuses_an_axis_outside() -> None:
    assert "axis=3 of an input with 3 axes" in refused('type: "Reduction" reduction_param { axis: 3 }', (2, 3, 4))
