"""Upsample and Interp against the loops of the forks."""

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_upsample_repeats_pixels(scale: int) -> None:
    x = random(2, 3, 4, 5)
    [y] = run(f'type: "Upsample" upsample_param {{ scale: {scale} }}', x)
    np.testing.assert_array_equal(y, x.repeat(scale, axis=2).repeat(scale, axis=3))


def test_upsample_without_a_scale_changes_nothing() -> None:
    x = random(1, 2, 3, 3)
    [y] = run('type: "Upsample"', x)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("scale: 2", (6, 8)),
        ("", (6, 8)),
        ("scale: 2 pad_out_h: true", (5, 8)),
        ("scale_h: 3 scale_w: 2", (9, 8)),
        ("upsample_h: 7 upsample_w: 9", (7, 9)),
    ],
)
def test_upsample_puts_values_where_the_mask_says(fields: str, size: tuple[int, int]) -> None:
    x = random(2, 3, 3, 4)
    rng = np.random.default_rng(1)
    rows, columns = size
    mask = np.array([rng.permutation(rows * columns)[:12] for _ in range(6)], np.float32).reshape(x.shape)
    [y] = run(f'type: "Upsample" upsample_param {{ {fields} }}', x, mask)
    expected = np.zeros((2, 3, rows * columns), np.float32)
    for n, c, i, j in np.ndindex(*x.shape):
        expected[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
    np.testing.assert_array_equal(y, expected.reshape(2, 3, rows, columns))


def interpolated(x: Array, rows: int, columns: int) -> Array:
    """Bilinear with the first and last pixels on each other: caffe_cpu_interp2."""
    h, w = x.shape[2:]
    y = np.empty((*x.shape[:2], rows, columns), np.float32)
    for i, j in np.ndindex(rows, columns):
        at_y = i * (h - 1) / (rows - 1) if rows > 1 else 0.0
        at_x = j * (w - 1) / (columns - 1) if columns > 1 else 0.0
        y0, x0 = int(at_y), int(at_x)
        y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
        a, b = at_y - y0, at_x - x0
        y[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, y0, x0] + b * x[:, :, y0, x1]) + a * (
            (1 - b) * x[:, :, y1, x0] + b * x[:, :, y1, x1]
        )
    return y


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("zoom_factor: 8", (33, 41)),
        ("shrink_factor: 2", (3, 3)),
        ("shrink_factor: 2 zoom_factor: 3", (7, 7)),
        ("height: 9 width: 4", (9, 4)),
        ("height: 1 width: 1", (1, 1)),
        ("height: 5 width: 6", (5, 6)),
        ("zoom_factor: 2 pad_beg: -1", (7, 9)),
        ("height: 8 width: 8 pad_beg: -1 pad_end: -1", (8, 8)),
    ],
)
def test_interp_is_pspnets(fields: str, size: tuple[int, int]) -> None:
    x = random(2, 3, 5, 6)
    [y] = run(f'type: "Interp" interp_param {{ {fields} }}', x)
    begin, end = -int("pad_beg" in fields), -int("pad_end" in fields)
    cut = x[:, :, -begin : 5 + end, -begin : 6 + end]
    assert y.shape[2:] == size
    np.testing.assert_allclose(y, interpolated(cut, *size), rtol=1e-4, atol=1e-5)


def test_interp_takes_the_sizes_of_a_second_bottom() -> None:
    x = random(1, 2, 3, 4)
    [y] = run('type: "Interp"', x, random(1, 5, 7, 8))
    np.testing.assert_allclose(y, interpolated(x, 7, 8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "shapes", "says"),
    [
        ('type: "Interp"', [(1, 2, 3, 3)], "no size is given"),
        ('type: "Interp" interp_param { zoom_factor: 0 }', [(1, 2, 3, 3)], "a factor is below 1"),
        ('type: "Interp" interp_param { pad_beg: 1 zoom_factor: 2 }', [(1, 2, 3, 3)], "only zero and below"),
        ('type: "Upsample" upsample_param { upsample_h: 4 }', [(1, 2, 3, 3)], "without a mask is not converted"),
        ('type: "Upsample"', [(1, 2, 3, 3), (1, 2, 3, 4)], "its mask has shape"),
        ('type: "Upsample" upsample_param { scale: 3 pad_out_w: true }', [(1, 2, 3, 3)] * 2, "need a scale of 2"),
    ],
)
def test_resizing_refuses(text: str, shapes: list[tuple[int, ...]], says: str) -> None:
    assert says in refused(text, *shapes)
