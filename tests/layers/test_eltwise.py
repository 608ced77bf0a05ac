"""Eltwise over two and more bottoms."""

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from distcalib.layers.eltwise import eltwise_onto
from tests.layers.harness import CONFIG, Array, make_layer, random, refused, run

HALF, TWO, THREE = np.float32(0.5), np.float32(2), np.float32(3)
A, B, C = (random(2, 3, 4, 5, seed=i) for i in range(3))

CASES: dict[str, tuple[str, list[Array], Array]] = {
    "sum_is_the_default": ("", [A, B], A + B),
    "sum_of_three": ("operation: SUM", [A, B, C], A + B + C),
    "difference": ("coeff: 1 coeff: -1", [A, B], A - B),
    "weighted": (
        "coeff: 0.5 coeff: 2 coeff: -3",
        [A, B, C],
        HALF * A + TWO * B - THREE * C,
    ),
    "product": ("operation: PROD", [A, B], A * B),
    "product_of_three": ("operation: PROD", [A, B, C], A * B * C),
    "maximum": ("operation: MAX", [A, B], np.maximum(A, B)),
    "maximum_of_three": ("operation: MAX", [A, B, C], np.maximum(np.maximum(A, B), C)),
    "one_blob_twice": ("operation: PROD", [A, A], A * A),
}


@pytest.mark.parametrize("case", CASES)
def test_eltwise_folds_its_bottoms(case: str) -> None:
    fields, inputs, expected = CASES[case]
    [y] = run(f'type: "Eltwise" eltwise_param {{ {fields} }}', *inputs)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shapes", "says"),
    [
        pytest.param("", [(2, 3)], "1 bottoms are given; at least 2", id="one_bottom"),
        pytest.param("", [(2, 3), (2, 1)], "its bottoms have shapes (2, 3), (2, 1)", id="no_broadcasting"),
        pytest.param("coeff: 1", [(2, 3)] * 2, "1 coeff for 2 bottoms", id="coeff_count"),
        pytest.param(
            "operation: PROD coeff: 1 coeff: 2", [(2, 3)] * 2, "coeff is given with an operation other", id="coeff"
        ),
    ],
)
def test_eltwise_refuses(fields: str, shapes: list[tuple[int, ...]], says: str) -> None:
    assert says in refused(f'type: "Eltwise" eltwise_param {{ {fields} }}', *shapes)


@pytest.mark.parametrize("factors", [(2, 3, 1, 1), (2, 3)], ids=str)
def test_axpy_adds_what_a_factor_a_channel_scales(factors: tuple[int, ...]) -> None:
    scale, x, y = random(*factors), random(2, 3, 4, 5, seed=1), random(2, 3, 4, 5, seed=2)
    [z] = run('type: "Axpy"', scale, x, y)
    np.testing.assert_allclose(z, scale.reshape(2, 3, 1, 1) * x + y, rtol=1e-5, atol=1e-6)


def test_axpy_refuses_shapes_that_do_not_fit() -> None:
    assert "its first bottom has shape" in refused('type: "Axpy"', (2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5))
    assert "they must be one" in refused('type: "Axpy"', (2, 3), (2, 3, 4, 5), (2, 3, 4, 1))


@pytest.mark.parametrize("other", [(2, 3, 4, 5), (2, 3, 1, 1), (5,), (), (4, 1)], ids=str)
def test_mul_broadcasts_as_numpy(other: tuple[int, ...]) -> None:
    x, factor = random(2, 3, 4, 5), random(*other, seed=1)
    [y] = run('type: "Mul"', x, np.asarray(factor, np.float32))
    np.testing.assert_allclose(y, x * factor, rtol=1e-6)


def test_mul_of_one_bottom_has_a_blob() -> None:
    x, blob = random(2, 3, 4), random(3, 1, seed=1)
    [y] = run('type: "Mul" mul_param { mul_shape: 3 mul_shape: 1 }', x, blobs=[blob])
    np.testing.assert_allclose(y, x * blob, rtol=1e-6)
    assert "sizes must be equal, or one of them 1" in refused('type: "Mul"', (2, 3), (2, 4))


LEAST = np.full_like(A, np.finfo(np.float32).min)
ONTO: dict[str, tuple[str, list[Array], list[bool], Array]] = {
    "sum": ("", [A, B], [True, False], B),
    "weighted": ("coeff: 3 coeff: 2", [A, B], [True, False], TWO * B),
    "what_was_summed_up_counts_again": ("coeff: 1 coeff: 2 coeff: 3", [A, B, A], [True, False, True], TWO * B * 4),
    "nothing_is_left": ("", [A, A], [True, True], np.zeros_like(A)),
    "maximum": ("operation: MAX", [A, B, C], [True, False, False], np.maximum(B, C)),
    "no_largest": ("operation: MAX", [A, A], [True, True], LEAST),
    "product": ("operation: PROD", [A, B, A], [True, False, True], A * B * A * B),
}


@pytest.mark.parametrize("case", ONTO)
def test_eltwise_onto_writes_over_what_it_reads(case: str) -> None:
    fields, inputs, onto, expected = ONTO[case]
    layer = make_layer(f'type: "Eltwise" eltwise_param {{ {fields} }}')
    parameters = [ops.parameter(list(x.shape), np.float32) for x in inputs]
    made = eltwise_onto(layer, onto, *[parameter.output(0) for parameter in parameters])
    model = ov.Model([ops.result(made)], parameters, "one layer")
    found = ov.Core().compile_model(model, "CPU", CONFIG)(inputs)[0]
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
