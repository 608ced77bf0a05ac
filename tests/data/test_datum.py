from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import AS_STORED, COLOR, GRAY, BadRecord, decode, parse_datum, planes, stacked
from tests.data.databases import encoded_datum, noise, raw_datum


def test_parse_datum_gives_what_was_written() -> None:
    datum = raw_datum(noise(3, 4, 5), label=7)
    assert parse_datum(memoryview(datum.SerializeToString())) == datum


def test_parse_datum_refuses_other_bytes() -> None:
    with pytest.raises(BadRecord, match=r"is not a Datum \(3 bytes\); write it again or leave it out"):
        parse_datum(b"\xff\xff\xff")


def test_planes_are_channel_row_column() -> None:
    pixels = noise(3, 4, 5)
    got = planes(raw_datum(pixels))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels)


def test_planes_of_floats_are_float32() -> None:
    pixels = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    got = planes(raw_datum(pixels))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, pixels)


def test_planes_prefer_bytes_to_floats() -> None:
    datum = raw_datum(np.full((1, 1, 1), 5, np.uint8))
    datum.float_data.append(6)
    assert planes(datum).item() == 5


@pytest.mark.parametrize(
    ("datum", "sentence"),
    [
        (caffe_pb2.Datum(), "is empty; write it again"),
        (caffe_pb2.Datum.FromString(b"\n\x01x"), r"is no Datum \(3 bytes, with none of its fields\); write it again"),
        (caffe_pb2.Datum(label=3), "declares 0 x 0 x 0 = 0 values but holds 0 floats"),
        (caffe_pb2.Datum(channels=3, height=4, width=5), "declares 3 x 4 x 5 = 60 values but holds 0 floats"),
        (caffe_pb2.Datum(channels=3, height=2, width=1, data=b"12345"), "= 6 values but holds 5 bytes"),
        (caffe_pb2.Datum(channels=1, height=2, width=1, float_data=[1.0]), "= 2 values but holds 1 floats"),
        (caffe_pb2.Datum(channels=-1, height=-2, width=1, data=b"12"), "declares -1 x -2 x 1"),
    ],
    ids=["nothing", "another message", "a label", "no data", "too few bytes", "too few floats", "negative sizes"],
)
def test_planes_refuse_a_wrong_count(datum: caffe_pb2.Datum, sentence: str) -> None:
    with pytest.raises(BadRecord, match=sentence):
        planes(datum)


@pytest.mark.parametrize(
    ("stored", "flags", "channels"),
    [
        (noise(4, 5, 3), AS_STORED, 3),
        (noise(4, 5), AS_STORED, 1),
        (noise(4, 5, 4), AS_STORED, 4),
        (noise(4, 5), COLOR, 3),
        (noise(4, 5, 3), GRAY, 1),
    ],
    ids=["colour", "gray", "with alpha", "gray forced to colour", "colour forced to gray"],
)
def test_decode_gives_row_column_channel(stored: npt.NDArray[np.uint8], flags: int, channels: int) -> None:
    got = decode(encoded_datum(stored).data, flags)
    assert got.shape == (4, 5, channels)
    if flags == AS_STORED:
        np.testing.assert_array_equal(got.reshape(stored.shape), stored)


def test_decode_keeps_opencvs_channel_order() -> None:
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 0] = 255
    np.testing.assert_array_equal(decode(encoded_datum(blue).data, COLOR), blue)


def test_decode_of_jpeg_is_opencvs() -> None:
    datum = encoded_datum(cv2.GaussianBlur(noise(32, 48, 3), (5, 5), 2), suffix=".jpg")
    expected = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decode(datum.data, AS_STORED), expected)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", r"is not an image that can be decoded \(0 bytes\); write it again or leave it out"),
        (b"\xff\xd8 not really", r"is not an image that can be decoded \(13 bytes\)"),
        (cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes(), "is an image of uint16 values where Caffe"),
    ],
    ids=["nothing", "broken jpeg", "16 bits"],
)
def test_decode_refuses_what_is_no_image(data: bytes, sentence: str) -> None:
    with pytest.raises(BadRecord, match=sentence):
        decode(data, AS_STORED)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("cut", [slice(None), slice(1, 4)], ids=["whole", "cropped"])
def test_stacked_gives_planes_of_what_is_interleaved_and_of_planes(channels: int, cut: slice) -> None:
    interleaved = noise(5, 7, channels).reshape(5, 7, channels)
    image = interleaved.transpose(2, 0, 1)[:, cut, cut]
    made = stacked([image, np.ascontiguousarray(image), image[:, :, ::-1]])
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous
    for row, wanted in zip(made, (image, image, image[:, :, ::-1]), strict=True):
        np.testing.assert_array_equal(row, wanted)


def test_stacked_gives_floats_where_one_is() -> None:
    image = noise(4, 4, 3).transpose(2, 0, 1)
    made = stacked([image, image.astype(np.float32) / 2])
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, np.stack([image, image / 2]))
