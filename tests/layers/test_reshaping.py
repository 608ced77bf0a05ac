"""Flatten, Reshape, Permute, Reorg and Tile: shapes as Caffe works them out, elements in their order."""

import numpy as np
import numpy.typing as npt
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


def reorg_naively(x: npt.NDArray[np.float32], stride: int, reverse: bool) -> npt.NDArray[np.float32]:
    """The loop of reorg_layer.hpp, over the flat elements of both."""
    n, c, h, w = x.shape
    c_out = c // stride**2
    shape = (n, c_out, h * stride, w * stride) if reverse else (n, c * stride**2, h // stride, w // stride)
    flat, out = x.reshape(n, -1), np.zeros((n, x[0].size), np.float32)
    for k, j, i in np.ndindex(c, h, w):
        offset, channel = divmod(k, c_out)
        row, column = j * stride + offset // stride, i * stride + offset % stride
        here, there = i + w * (j + h * k), column + w * stride * (row + h * stride * channel)
        if reverse:
            out[:, there] = flat[:, here]
        else:
            out[:, here] = flat[:, there]
    return out.reshape(shape)


@pytest.mark.parametrize("reverse", [False, True], ids=["down", "up"])
@pytest.mark.parametrize(
    ("stride", "shape"),
    [
        pytest.param(2, (1, 64, 26, 26), id="yolo_v2"),
        pytest.param(2, (2, 8, 4, 6), id="two_images"),
        pytest.param(3, (1, 9, 6, 3), id="three"),
        pytest.param(1, (2, 3, 4, 5), id="one"),
        pytest.param(2, (1, 4, 2, 2), id="one_place"),
    ],
)
def test_reorg_moves_pixels_to_channels_as_darknet_does(stride: int, shape: tuple[int, ...], reverse: bool) -> None:
    x = random(*shape)
    [y] = run(f'type: "Reorg" reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}', x)
    expected = reorg_naively(x, stride, reverse)
    assert y.shape == expected.shape
    assert (y == expected).all()


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        pytest.param("", (1, 4, 4, 4), "no stride is given; 2 is usual", id="no_stride"),
        pytest.param("stride: 0", (1, 4, 4, 4), "stride=0; 2 is usual", id="zero"),
        pytest.param("stride: 2", (1, 4, 5, 4), "stride=2 with 5 rows; rows must divide by 2", id="rows"),
        pytest.param("stride: 2", (1, 4, 4, 3), "stride=2 with 3 columns; columns must divide by 2", id="columns"),
        pytest.param("stride: 2", (1, 2, 4, 4), "stride=2 with 2 channels; channels must divide by 4", id="channels"),
        pytest.param("stride: 2", (4, 4), "its input has 2 axes; 4 (N, C, H, W) are converted", id="axes"),
    ],
)
def test_reorg_refuses_what_does_not_divide(fields: str, shape: tuple[int, ...], message: str) -> None:
    assert refused(f'type: "Reorg" reorg_param {{ {fields} }}', shape).endswith(f"(Reorg): {message}")


@pytest.mark.parametrize("group", [1, 2, 3])
def test_shuffle_channel_deals_the_groups(group: int) -> None:
    x = random(2, 6, 2, 3)
    [y] = run(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', x)
    k = 6 // group
    for i in range(group):
        for j in range(k):
            np.testing.assert_array_equal(y[:, j * group + i], x[:, i * k + j])


@pytest.mark.parametrize(
    ("fields", "shape"),
    [("", (2, 3)), ("axis: 2", (2, 3, 1)), ("axis: -1", (2, 1, 3)), ("axis: 1 axis: 3", (2, 3)), ("dim: 1", (2, 3, 1))],
)
def test_squeeze_drops_axes_of_one(fields: str, shape: tuple[int, ...]) -> None:
    x = random(2, 1, 3, 1)
    if fields == "axis: 2":
        x = x.reshape(2, 3, 1, 1)
    [y] = run(f'type: "Squeeze" squeeze_param {{ {fields} }}', x)
    np.testing.assert_array_equal(y, x.reshape(shape))


def test_shuffle_channel_and_squeeze_refuse_what_does_not_fit() -> None:
    assert "does not divide" in refused('type: "ShuffleChannel" shuffle_channel_param { group: 4 }', (1, 6, 2, 2))
    assert "is not of size 1" in refused('type: "Squeeze" squeeze_param { axis: 1 }', (2, 3, 1))
