"""Concat, Slice, Split, Crop, Dropout and Silence."""

import numpy as np
import pytest

from distcalib.layers import convert
from tests.layers.harness import make_layer, random, refused, run

SHAPE = (2, 6, 4, 5)


@pytest.mark.parametrize(
    ("fields", "axis", "shapes"),
    [
        pytest.param("", 1, [(2, 3, 4), (2, 1, 4), (2, 2, 4)], id="channels"),
        pytest.param("axis: 0", 0, [(2, 3), (1, 3)], id="batch"),
        pytest.param("axis: -1", 2, [(2, 3, 4), (2, 3, 1)], id="negative"),
        pytest.param("concat_dim: 2", 2, [(2, 3, 4, 5), (2, 3, 1, 5)], id="legacy"),
        pytest.param("", 1, [(2, 3)], id="one_bottom"),
    ],
)
def test_concat_joins_along_an_axis(fields: str, axis: int, shapes: list[tuple[int, ...]]) -> None:
    inputs = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    [y] = run(f'type: "Concat" concat_param {{ {fields} }}', *inputs)
    np.testing.assert_array_equal(y, np.concatenate(inputs, axis))


@pytest.mark.parametrize(
    ("fields", "axis", "points"),
    [
        pytest.param("", 1, [3], id="halves"),
        pytest.param("", 1, [2, 4], id="thirds"),
        pytest.param("slice_point: 1 slice_point: 5", 1, [1, 5], id="points"),
        pytest.param("axis: 0", 0, [1], id="batch"),
        pytest.param("axis: -1 slice_point: 2", 3, [2], id="negative"),
        pytest.param("slice_dim: 2 slice_point: 3", 2, [3], id="legacy"),
        pytest.param("", 1, [], id="one_top"),
    ],
)
def test_slice_cuts_along_an_axis(fields: str, axis: int, points: list[int]) -> None:
    x = random(*SHAPE)
    tops = " ".join(f'top: "y{i}"' for i in range(len(points) + 1))
    pieces = run(f'type: "Slice" {tops} slice_param {{ {fields} }}', x)
    for piece, expected in zip(pieces, np.split(x, points, axis), strict=True):
        np.testing.assert_array_equal(piece, expected)


def test_split_gives_its_bottom_to_each_top() -> None:
    x = random(2, 3)
    first, second, third = run('type: "Split" top: "a" top: "b" top: "c"', x)
    for y in (first, second, third):
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("kind", ["Dropout", "SpatialDropout"])
def test_dropout_passes_its_bottom_on(kind: str) -> None:
    x = random(2, 3, 4, 5)
    [y] = run(f'type: "{kind}" dropout_param {{ dropout_ratio: 0.9 }}', x)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("fields", "like", "window"),
    [
        pytest.param("", (9, 9, 2, 3), np.s_[:, :, 0:2, 0:3], id="default"),
        pytest.param("offset: 1", (9, 9, 2, 3), np.s_[:, :, 1:3, 1:4], id="one_offset"),
        pytest.param("axis: 2 offset: 2 offset: 0", (9, 9, 2, 3), np.s_[:, :, 2:4, 0:3], id="offset_an_axis"),
        pytest.param("axis: 1 offset: 3 offset: 0 offset: 1", (9, 2, 4, 3), np.s_[:, 3:5, 0:4, 1:4], id="channels"),
        pytest.param("axis: -1 offset: 2", (9, 9, 9, 3), np.s_[:, :, :, 2:5], id="negative_axis"),
        pytest.param("axis: 0", (1, 2, 3, 4), np.s_[0:1, 0:2, 0:3, 0:4], id="all"),
        pytest.param("", (9, 9, 4, 5), np.s_[:, :, :, :], id="nothing_to_cut"),
    ],
)
def test_crop_cuts_to_the_size_of_its_second_bottom(
    fields: str, like: tuple[int, ...], window: tuple[slice, ...]
) -> None:
    x = random(*SHAPE)
    [y] = run(f'type: "Crop" crop_param {{ {fields} }}', x, random(*like))
    np.testing.assert_array_equal(y, x[window])


def test_silence_has_no_top() -> None:
    assert convert(make_layer('type: "Silence"'), [object(), object()]) == ()


@pytest.mark.parametrize(
    ("text", "shapes", "says"),
    [
        pytest.param('type: "Concat"', [(2, 3), (1, 3)], "they may differ along axis 1 only", id="concat_sizes"),
        pytest.param('type: "Concat"', [(2, 3), (2, 3, 1)], "they may differ along axis 1 only", id="concat_axes"),
        pytest.param(
            'type: "Concat" concat_param { axis: 2 }', [(2, 3)] * 2, "axis=2 of an input with 2 axes", id="concat_axis"
        ),
        pytest.param(
            'type: "Concat" concat_param { axis: 1 concat_dim: 1 }',
            [(2, 3)] * 2,
            "axis and concat_dim are both given",
            id="concat_both",
        ),
        pytest.param(
            'type: "Slice" top: "a" top: "b"', [(2, 5)], "do not part into 2 tops; give slice_point", id="slice_parts"
        ),
        pytest.param(
            'type: "Slice" top: "a" top: "b" slice_param { slice_point: 1 slice_point: 2 }',
            [(2, 5)],
            "2 tops with 2 slice_point; 1 would do",
            id="slice_count",
        ),
        pytest.param(
            'type: "Slice" top: "a" top: "b" slice_param { slice_point: 5 }',
            [(2, 5)],
            "they must rise",
            id="slice_empty",
        ),
        pytest.param('type: "Crop"', [(1, 1, 2, 2), (1, 1, 3, 2)], "reaches beyond (1, 1, 2, 2)", id="crop_size"),
        pytest.param('type: "Crop" crop_param { offset: 1 }', [(1, 1, 2, 2)] * 2, "at offset [1, 1]", id="crop_offset"),
        pytest.param('type: "Crop"', [(1, 1, 2, 2), (2, 2)], "as many axes", id="crop_axes"),
        pytest.param(
            'type: "Crop" crop_param { axis: 1 offset: 0 offset: 0 }',
            [(1, 1, 2, 2)] * 2,
            "2 offset for 3 axes",
            id="crop_n",
        ),
        pytest.param('type: "Silence" top: "a"', [(1,)], "1 tops are given; 0 can be converted", id="silence"),
    ],
)
def test_joining_refuses(text: str, shapes: list[tuple[int, ...]], says: str) -> None:
    assert says in refused(text, *shapes)


def test_concat_with_per_fla_fuse_permutes_and_flattens_first() -> None:
    a, b = random(2, 3, 4, 5), random(2, 6, 2, 1, seed=1)
    [found] = run('type: "Concat" concat_param { axis: 1 per_fla_fuse: true }', a, b)
    expected = np.concatenate([x.transpose(0, 2, 3, 1).reshape(2, -1) for x in (a, b)], axis=1)
    assert found.shape == (2, 72, 1, 1)
    np.testing.assert_array_equal(found[:, :, 0, 0], expected)


@pytest.mark.parametrize(
    ("axis", "shape", "said"),
    [
        (2, (1, 2, 3, 3), "per_fla_fuse with axis=2; only axis=1 is converted"),
        (1, (1, 2), "per_fla_fuse of an input with 2 axes; 4 (N, C, H, W) are converted"),
    ],
)
def test_concat_with_per_fla_fuse_refuses(axis: int, shape: tuple[int, ...], said: str) -> None:
    assert refused(f'type: "Concat" concat_param {{ axis: {axis} per_fla_fuse: true }}', shape, shape).endswith(said)


@pytest.mark.parametrize(("fields", "factor"), [("", 1.0), ("scale_train: true", 1.0), ("scale_train: false", 0.7)])
def test_dropout_scales_in_test_what_training_did_not(fields: str, factor: float) -> None:
    x = random(2, 3)
    [y] = run(f'type: "Dropout" dropout_param {{ dropout_ratio: 0.3 {fields} }}', x)
    np.testing.assert_allclose(y, x * np.float32(factor), rtol=1e-6)
