from __future__ import annotations

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import BadRecord
from distcalib.data.resize import resize, resize_short_side
from tests.data.databases import noise


def param(text: str) -> caffe_pb2.ResizeParameter:
    return text_format.Parse(text, caffe_pb2.ResizeParameter())


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("", cv2.INTER_LINEAR),
        ("interp_mode: LINEAR", cv2.INTER_LINEAR),
        ("interp_mode: AREA", cv2.INTER_AREA),
        ("interp_mode: NEAREST", cv2.INTER_NEAREST),
        ("interp_mode: CUBIC", cv2.INTER_CUBIC),
        ("interp_mode: LANCZOS4", cv2.INTER_LANCZOS4),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_warps_with_opencv(mode: str, flag: int, channels: int) -> None:
    image = noise(20, 30, channels)
    got = resize(image, param(f"height: 13 width: 40 {mode}"))
    expected = cv2.resize(image, (40, 13), interpolation=flag).reshape(13, 40, channels)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(20, 40, (16, 32)), (40, 20, (32, 16)), (21, 30, (16, 22)), (20, 20, (16, 16))],
    ids=["wide", "tall", "truncated", "square"],
)
def test_resize_to_the_small_size_covers(height: int, width: int, expected: tuple[int, int]) -> None:
    got = resize(noise(height, width, 3), param("height: 16 width: 16 resize_mode: FIT_SMALL_SIZE"))
    assert got.shape == (*expected, 3)


@pytest.mark.parametrize(
    ("height", "width", "inside"),
    [(20, 40, (slice(4, 12), slice(0, 16))), (40, 18, (slice(0, 16), slice(4, 11))), (20, 20, (slice(16), slice(16)))],
    ids=["wide", "tall, the odd column to the right", "square"],
)
@pytest.mark.parametrize(("values", "fill"), [("", (0, 0, 0)), ("pad_value: 7", (7, 7, 7)), ("1 2 3", (1, 2, 3))])
def test_resize_to_the_large_size_pads_evenly(
    height: int, width: int, inside: tuple[slice, slice], values: str, fill: tuple[int, int, int]
) -> None:
    image = noise(height, width, 3)
    if values == "1 2 3":
        values = "pad_value: 1 pad_value: 2 pad_value: 3"
    got = resize(image, param(f"height: 16 width: 16 resize_mode: FIT_LARGE_SIZE_AND_PAD {values}"))
    expected = np.empty((16, 16, 3), np.uint8)
    expected[:] = fill
    rows, columns = expected[inside].shape[:2]
    expected[inside] = cv2.resize(image, (columns, rows))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("mode", "border"), [("MIRRORED", "reflect"), ("REPEAT_NEAREST", "edge")])
def test_resize_pads_as_pad_mode_says(mode: str, border: str) -> None:
    image = noise(8, 16, 1)
    got = resize(image, param(f"height: 16 width: 16 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: {mode}"))
    expected = np.pad(image, ((4, 4), (0, 0), (0, 0)), "reflect" if border == "reflect" else "edge")
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(30, 20, (24, 16)), (20, 30, (16, 24)), (16, 16, (16, 16)), (17, 50, (16, 47)), (8, 9, (16, 18))],
)
def test_resize_short_side_keeps_the_aspect(height: int, width: int, expected: tuple[int, int]) -> None:
    assert resize_short_side(noise(height, width, 3), 16, param("")).shape == (*expected, 3)


def test_resize_short_side_ignores_the_size_of_its_resize_param() -> None:
    image = noise(20, 30, 3)
    got = resize_short_side(image, 10, param("height: 99 width: 98 interp_mode: CUBIC"))
    np.testing.assert_array_equal(got, cv2.resize(image, (15, 10), interpolation=cv2.INTER_CUBIC))


def test_resize_short_side_counts_in_float32() -> None:
    assert int(124 / 112 * 224) == 248
    assert resize_short_side(noise(112, 124, 1), 224, param("")).shape == (224, 247, 1)


def test_resize_counts_in_float32() -> None:
    assert int(224 / (196 / 175)) == 199
    got = resize(noise(175, 196, 1), param("height: 20 width: 224 resize_mode: FIT_SMALL_SIZE"))
    assert got.shape == (200, 224, 1)


@pytest.mark.parametrize("shape", [(1, 100, 3), (100, 1, 3)])
def test_resize_refuses_what_would_vanish(shape: tuple[int, int, int]) -> None:
    with pytest.raises(BadRecord, match="too narrow to be resized; leave it out"):
        resize(noise(*shape), param("height: 16 width: 16 resize_mode: FIT_LARGE_SIZE_AND_PAD"))


def test_resize_refuses_pad_values_of_other_channels() -> None:
    wanted = param("height: 4 width: 4 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 1 pad_value: 2")
    with pytest.raises(BadRecord, match="has 3 channels for 2 pad_value; give one or 3"):
        resize(noise(4, 8, 3), wanted)
