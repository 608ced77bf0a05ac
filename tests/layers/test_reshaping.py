"""Flatten, Reshape, Permute and Tile: shapes as Caffe works them out, elements in their order."""

import numpy as np
import pytest

from tests.layers.harness import random, refused, run


@pytest.mark.parametrize(
    ("fields", "shape", "expected"),
    [
        pytest.param("", (2, 3, 4, 5), (2, 60), id="default"),
        pytest.param("axis: 0", (2, 3, 4, 5), (120,), id="all"),
        pytest.param("axis: 1 end_axis: 2", (2, 3, 4, 5), (2, 12, 5), id="middle"),
        pytest.param("axis: -3 end_axis: -2", (2, 3, 4, 5), (2, 12, 5), id="negative"),
        pytest.param("axis: 2 end_axis: 2", (2, 3, 4), (2, 3, 4), id="one_axis"),
    ],
)
def test_flatten_joins_axes(fields: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = random(*shape)
    [y] = run(f'type: "Flatten" flatten_param {{ {fields} }}', x)
    assert y.shape == expected
    assert (y.ravel() == x.ravel()).all()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param("shape { dim: 0 dim: -1 }", (2, 60), id="keep_and_infer"),
        pytest.param("shape { dim: 4 dim: 30 }", (4, 30), id="sizes"),
        pytest.param("shape { dim: 0 dim: 0 dim: -1 }", (2, 3, 20), id="keep_two"),
        pytest.param("shape { dim: -1 dim: 0 dim: 2 }", (20, 3, 2), id="infer_first"),
        pytest.param("shape { dim: 0 dim: -1 } axis: 1", (2, 3, 20), id="from_axis_one"),
        pytest.param("shape { dim: 12 } axis: 1 num_axes: 2", (2, 12, 5), id="two_axes"),
        pytest.param("shape { dim: 6 dim: 2 } axis: 1 num_axes: 2", (2, 6, 2, 5), id="two_axes_by_two"),
        pytest.param("shape { dim: 1 } axis: 1 num_axes: 0", (2, 1, 3, 4, 5), id="insert"),
        pytest.param("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0", (2, 3, 4, 5, 1, 1), id="append"),
        pytest.param("shape { dim: -1 } axis: -3", (2, 3, 20), id="negative_axis"),
        pytest.param("shape { } axis: 1 num_axes: 0", (2, 3, 4, 5), id="nothing"),
        pytest.param("shape { dim: -1 dim: 20 }", (6, 20), id="permute_free"),
    ],
)
def test_reshape_works_out_the_shape(fields: str, expected: tuple[int, ...]) -> None:
    x = random(2, 3, 4, 5)
    [y] = run(f'type: "Reshape" reshape_param {{ {fields} }}', x)
    assert y.shape == expected
    assert (y.ravel() == x.ravel()).all()


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        pytest.param("order: 0 order: 2 order: 3 order: 1", (0, 2, 3, 1), id="ssd"),
        pytest.param("order: 3 order: 1", (3, 1, 0, 2), id="rest_follows"),
        pytest.param("", (0, 1, 2, 3), id="nothing"),
    ],
)
def test_permute_orders_axes(fields: str, order: tuple[int, ...]) -> None:
    x = random(2, 3, 4, 5)
    [y] = run(f'type: "Permute" permute_param {{ {fields} }}', x)
    np.testing.assert_array_equal(y, x.transpose(order))


@pytest.mark.parametrize(
    ("fields", "repeats"),
    [
        pytest.param("tiles: 3", (1, 3, 1), id="channels"),
        pytest.param("tiles: 2 axis: -1", (1, 1, 2), id="last_axis"),
        pytest.param("tiles: 2 axis: 0", (2, 1, 1), id="batch"),
    ],
)
def test_tile_repeats_along_an_axis(fields: str, repeats: tuple[int, ...]) -> None:
    x = random(2, 3, 4)
    [y] = run(f'type: "Tile" tile_param {{ {fields} }}', x)
    np.testing.assert_array_equal(y, np.tile(x, repeats))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            'type: "Flatten" flatten_param { axis: 2 end_axis: 1 }', "lies behind end_axis=1", id="flatten_order"
        ),
        pytest.param(
            'type: "Flatten" flatten_param { end_axis: 3 }', "end_axis=3 of an input with 3 axes", id="flatten_end"
        ),
        pytest.param('type: "Reshape" reshape_param { shape { dim: 5 } }', "the counts differ", id="count"),
        pytest.param(
            'type: "Reshape" reshape_param { shape { dim: 5 dim: -1 } }', "do not divide by the 5", id="division"
        ),
        pytest.param('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', "at most one", id="two_inferred"),
        pytest.param('type: "Reshape" reshape_param { shape { dim: -2 } }', "a size of -2", id="negative_size"),
        pytest.param('type: "Reshape" reshape_param { shape { dim: 0 } axis: 3 }', "keeps axis 3", id="keep_behind"),
        pytest.param('type: "Reshape" reshape_param { axis: 4 }', "axis=4 of an input with 3 axes", id="axis"),
        pytest.param('type: "Reshape" reshape_param { axis: 1 num_axes: 3 }', "reaches beyond", id="num_axes"),
        pytest.param(
            'type: "Reshape" reshape_param { pixelshuffler: 2 }', "pixelshuffler=2 is not", id="pixelshuffler"
        ),
    ],
)
def test_reshaping_refuses(text: str, says: str) -> None:
    assert says in refused(text, (2, 3, 4))
