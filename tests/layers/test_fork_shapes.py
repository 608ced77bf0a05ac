"""Resizes, Pad, Transpose, Reverse and Im2col against their definitions, a value at a time."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]


def nearest_of(place: int, scale: float, n_in: int, how: str) -> int:
    at = {
        "": math.floor(place * scale),
        "align_corners": math.floor(place * scale + 0.5),
        "half_pixel_centers": math.floor((place + 0.5) * scale),
        "half_pixel_onnx": math.floor((place + 0.5) * scale - 0.5),
    }[how]
    return min(max(at, 0), n_in - 1)


def scale_of(n_in: int, n_out: int, how: str) -> float:
    return (n_in - 1) / (n_out - 1) if how == "align_corners" and n_out > 1 else n_in / n_out


@pytest.mark.parametrize("how", ["", "align_corners", "half_pixel_centers", "half_pixel_onnx"])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_resize_nearest_neighbor(how: str, last: bool) -> None:
    x = random(2, 3, 4, 5)
    flag = f"{how}: true" if how else ""
    layout = "" if last else 'data_format: "NCHW"'
    text = f"""type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{
      output_height: 7 scale_width: 1.6 {flag} {layout} }}"""
    [made] = run(text, x.transpose(0, 2, 3, 1) if last else x)
    made = made.transpose(0, 3, 1, 2) if last else made
    assert made.shape == (2, 3, 7, 8)
    for i, j in np.ndindex(7, 8):
        row = nearest_of(i, scale_of(4, 7, how), 4, how)
        column = nearest_of(j, scale_of(5, 8, how), 5, how)
        np.testing.assert_allclose(made[:, :, i, j], x[:, :, row, column], rtol=1e-6)


def between(values: Array, at: float) -> Array:
    """Linear between the neighbours on the first axis, the ends standing for what lies beyond."""
    below = math.floor(at)
    low, high = max(below, 0), min(math.ceil(at), len(values) - 1)
    return np.asarray((1 - (at - below)) * values[min(low, len(values) - 1)] + (at - below) * values[max(high, 0)])


@pytest.mark.parametrize("how", ["", "align_corners", "half_pixel_centers", "pytorch_half_pixel"])
@pytest.mark.parametrize("size", [(7, 8), (3, 1)], ids=str)
def test_resize_bilinear(how: str, size: tuple[int, int]) -> None:
    x = random(1, 2, 4, 5)
    flag = f"{how}: true" if how else ""
    text = f"""type: "ResizeBilinear" resize_bilinear_param {{ data_format: "NCHW"
      output_height: {size[0]} output_width: {size[1]} {flag} }}"""
    [made] = run(text, x)

    def place(i: int, n_in: int, n_out: int) -> float:
        scale = scale_of(n_in, n_out, how)
        if how == "pytorch_half_pixel" and n_out == 1:
            return -0.5
        return (i + 0.5) * scale - 0.5 if "half_pixel" in how else i * scale

    for i, j in np.ndindex(size):
        rows = between(x[0].transpose(1, 2, 0), place(i, 4, size[0]))
        np.testing.assert_allclose(made[0, :, i, j], between(rows, place(j, 5, size[1])), rtol=1e-4, atol=1e-5)


def test_upsample_darknet() -> None:
    x = random(1, 2, 3, 4)
    [made] = run('type: "UpsampleDarknet" upsample_darknet_param { stride: 2 }', x)
    np.testing.assert_array_equal(made, x.repeat(2, axis=2).repeat(2, axis=3))


def test_pad() -> None:
    x = random(1, 2, 3)
    text = " ".join(f"paddings: {n}" for n in (0, 0, 1, 0, 0, 2))
    [made] = run(f'type: "Pad" pad_param {{ {text} constant_values: 7 }}', x)
    np.testing.assert_array_equal(made, np.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=7))


def test_transpose_and_reverse() -> None:
    x = random(2, 3, 4)
    [made] = run('type: "Transpose" transpose_param { dim: 2 dim: 0 dim: 1 }', x)
    np.testing.assert_array_equal(made, x.transpose(2, 0, 1))
    [made] = run('type: "Reverse" reverse_param { axis: 1 }', x)
    np.testing.assert_array_equal(made, x[:, ::-1])


def test_im2col() -> None:
    x = random(1, 2, 5, 6)
    text = 'type: "Im2col" convolution_param { kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 0 stride: 2 }'
    [made] = run(text, x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    assert made.shape == (1, 12, 3, 3)
    for c, i, j, row, column in np.ndindex(2, 3, 2, 3, 3):
        assert made[0, (c * 3 + i) * 2 + j, row, column] == padded[0, c, 2 * row + i, 2 * column + j]


@pytest.mark.parametrize(
    ("text", "shape", "said"),
    [
        ('type: "Pad" pad_param { paddings: 1 }', (2, 3), "1 paddings for 2 axes"),
        ('type: "Transpose" transpose_param { dim: 0 dim: 0 }', (2, 3), "each of 0 to 1 must be in it once"),
        (
            'type: "ResizeBilinear" resize_bilinear_param { align_corners: true half_pixel_centers: true }',
            (1, 2, 3, 4),
            "exclude each other",
        ),
        ('type: "ResizeBilinear" resize_bilinear_param { saturate: Signed_8bit }', (1, 2, 3, 4), "saturate: quantized"),
        ('type: "ResizeNearestNeighbor" resize_nearest_neighbor_param { output_height: 0 }', (1, 2, 3, 4), "0 rows"),
    ],
    ids=["pad", "transpose", "corners", "quantized", "size"],
)
def test_refusals(text: str, shape: tuple[int, ...], said: str) -> None:
    assert said in refused(text, shape)
