from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import BadRecord
from distcalib.data.transform import Transform
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, encoded_datum, noise, raw_datum

WHERE = "net.prototxt: layer 'data' (Data)"


def transform(text: str) -> Transform:
    return Transform(text_format.Parse(text, caffe_pb2.TransformationParameter()), WHERE, PROTOTXT)


def applied(text: str, datum: caffe_pb2.Datum) -> npt.NDArray[np.float32]:
    made = transform(text)
    finished: npt.NDArray[np.float32] = made.finish(made.centre(made.whole(datum))[None])[0]
    return finished


def element_by_element(
    pixels: npt.NDArray[np.generic], scale: float, mean: npt.NDArray[np.float32], crop: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """What the loops of Caffe compute for (C, H, W), in its order and in float32. `mean` (C, H, W)."""
    channels, height, width = pixels.shape
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    result = np.empty((channels, *crop), np.float32)
    for c, h, w in np.ndindex(*result.shape):
        at = c, top + h, left + w
        result[c, h, w] = (np.float32(pixels[at]) - mean[at]) * np.float32(scale)
    return result


def write_mean(path: Path, mean: npt.NDArray[np.float32], legacy: bool = True) -> Path:
    blob = caffe_pb2.BlobProto(data=mean.ravel().tolist())
    if legacy:
        blob.num, (blob.channels, blob.height, blob.width) = 1, mean.shape
    else:
        blob.shape.dim.extend(mean.shape)
    path.write_bytes(blob.SerializeToString())
    return path


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
@pytest.mark.parametrize(
    ("crop", "size"),
    [("", (7, 10)), ("crop_size: 4", (4, 4)), ("crop_size: 7", (7, 7)), ("crop_h: 3 crop_w: 5", (3, 5))],
    ids=["whole", "even", "whole height", "h and w"],
)
@pytest.mark.parametrize(
    ("text", "scale", "mean"),
    [
        ("", 1.0, (0, 0, 0)),
        ("scale: 0.016", 0.016, (0, 0, 0)),
        ("mean_value: 103.94", 1.0, (103.94,) * 3),
        ("scale: 0.017 mean_value: 103.94 mean_value: 116.78 mean_value: 123.68", 0.017, (103.94, 116.78, 123.68)),
    ],
    ids=["nothing", "scale", "one mean", "a mean a channel"],
)
def test_transform_is_caffes_to_the_bit(
    text: str, scale: float, mean: tuple[float, ...], crop: str, size: tuple[int, int], floats: bool
) -> None:
    pixels: npt.NDArray[np.generic] = noise(3, 7, 10)
    if floats:
        pixels = np.asarray(pixels, np.float32) / np.float32(3)
    means = np.broadcast_to(np.array(mean, np.float32).reshape(3, 1, 1), pixels.shape)
    got = applied(f"{text} {crop}", raw_datum(pixels))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, element_by_element(pixels, scale, means, size))


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy shape", "shape"])
@pytest.mark.parametrize("size", [None, 4])
def test_transform_crops_the_mean_image_where_it_crops_the_image(
    tmp_path: Path, legacy: bool, size: int | None
) -> None:
    pixels, mean = noise(3, 7, 10), np.asarray(noise(3, 7, 10, seed=1), np.float32) / np.float32(2)
    path = write_mean(tmp_path / "mean.binaryproto", mean, legacy)
    got = applied(f'mean_file: "{path}" scale: 0.3 crop_size: {size or 0}', raw_datum(pixels))
    np.testing.assert_array_equal(got, element_by_element(pixels, 0.3, mean, (size, size) if size else (7, 10)))


def padded_element_by_element(
    image: npt.NDArray[np.uint8],
    size: tuple[int, int],
    crop: int,
    pad: int,
    scale: float,
    value: tuple[float, ...] | None = None,
    mean: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """What the loops of Intel Caffe compute for an image (H, W, C) whose crop is placed by `size`, in its order."""
    top, left = ((size[0] - crop) // 2, (size[1] - crop) // 2) if crop else (0, 0)
    inner = (crop, crop) if crop else size
    height, width = inner[0] + 2 * pad, inner[1] + 2 * pad
    result = np.empty((image.shape[2], height, width), np.float32)
    for c, h, w in np.ndindex(*result.shape):
        row, column = top + h - pad, left + w - pad
        is_there = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        pixel = np.float32(image[row, column, c] if is_there else 0)
        if h < pad or w < pad or h > height - pad or w > width - pad:
            result[c, h, w] = pixel
        elif mean is not None:
            at = (c * size[0] + top + h) * size[1] + left + w
            result[c, h, w] = (pixel - mean.reshape(-1)[at]) * np.float32(scale)
        elif value is not None:
            result[c, h, w] = np.rint((pixel - np.float32(value[c])) * np.float32(scale))
        else:
            result[c, h, w] = pixel * np.float32(scale)
    return result


@pytest.mark.parametrize("pad", [1, 3])
@pytest.mark.parametrize("crop", [0, 4, 6], ids=["whole", "crop", "crop_near_the_border"])
@pytest.mark.parametrize(
    ("text", "scale", "value"),
    [
        ("", 1.0, None),
        ("scale: 0.3", 0.3, None),
        ("scale: 0.3 mean_value: 7.5", 0.3, (7.5,) * 3),
        ("mean_value: 99.6 mean_value: -3.2 mean_value: 0", 1.0, (99.6, -3.2, 0.0)),
    ],
    ids=["nothing", "scale", "mean_and_scale", "means"],
)
def test_transform_frames_encoded_images_with_pixels(
    text: str, scale: float, value: tuple[float, ...] | None, crop: int, pad: int
) -> None:
    image = noise(7, 10, 3)
    got = applied(f"{text} crop_size: {crop} pad: {pad}", encoded_datum(image))
    np.testing.assert_array_equal(got, padded_element_by_element(image, (7, 10), crop, pad, scale, value))
    assert got.dtype == np.float32


def test_transform_reads_a_mean_too_far_where_it_frames(tmp_path: Path) -> None:
    image, mean = noise(7, 10, 3), np.asarray(noise(3, 7, 10, seed=1), np.float32) / np.float32(2)
    path = write_mean(tmp_path / "mean.binaryproto", mean)
    got = applied(f'mean_file: "{path}" scale: 0.3 crop_size: 4 pad: 1', encoded_datum(image))
    np.testing.assert_array_equal(got, padded_element_by_element(image, (7, 10), 4, 1, 0.3, mean=mean))
    with pytest.raises(BadRecord, match="Intel Caffe reads behind the end of mean_file; give mean_value in its place"):
        applied(f'mean_file: "{path}" pad: 1', encoded_datum(image))


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
def test_transform_frames_no_raw_record(floats: bool) -> None:
    pixels = np.asarray(noise(3, 7, 10), np.float32 if floats else np.uint8)
    text = "scale: 0.3 mean_value: 7.5 crop_size: 4"
    np.testing.assert_array_equal(applied(f"{text} pad: 2", raw_datum(pixels)), applied(text, raw_datum(pixels)))


def test_transform_refuses_to_frame_some_records_and_others_not() -> None:
    made = transform("pad: 1")
    made.centre(made.whole(encoded_datum(noise(4, 4, 3))))
    with pytest.raises(BadRecord, match=r"is raw, the first record is not, and transform_param\.pad frames encoded"):
        made.centre(made.whole(raw_datum(noise(3, 4, 4))))


def test_transform_finds_the_mean_image_beside_the_prototxt(tmp_path: Path) -> None:
    write_mean(tmp_path / "mean.binaryproto", np.ones((1, 2, 2), np.float32))
    param = caffe_pb2.TransformationParameter(mean_file="mean.binaryproto")
    made = Transform(param, WHERE, tmp_path / "net.prototxt")
    assert made.finish(np.ones((1, 1, 2, 2), np.uint8)).max() == 0


def test_transform_takes_encoded_images_to_planes() -> None:
    image = noise(6, 8, 3)
    np.testing.assert_array_equal(applied("", encoded_datum(image)), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(applied("crop_size: 4", encoded_datum(image)), image[1:5, 2:6].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("text", "channels", "stored"),
    [("force_color: true", 3, noise(4, 4)), ("force_gray: true", 1, noise(4, 4, 3)), ("", 1, noise(4, 4))],
    ids=["colour", "gray", "as stored"],
)
def test_transform_forces_channels_of_encoded_images(text: str, channels: int, stored: npt.NDArray[np.uint8]) -> None:
    assert applied(text, encoded_datum(stored)).shape == (channels, 4, 4)


def test_transform_forces_nothing_on_raw_images() -> None:
    assert applied("force_color: true", raw_datum(noise(1, 4, 4))).shape == (1, 4, 4)


def test_transform_does_not_mirror() -> None:
    pixels = noise(3, 4, 4)
    for _ in range(8):
        np.testing.assert_array_equal(applied("mirror: true", raw_datum(pixels)), pixels)


def test_transform_resizes_the_short_side_then_crops() -> None:
    """As in the nets of Intel's zoo: 256 by CUBIC, then 224."""
    image = cv2.GaussianBlur(noise(30, 45, 3), (5, 5), 2)
    text = "crop_size: 14 random_resize_param { min_size: 16 max_size: 16 resize_param { interp_mode: CUBIC } }"
    resized = cv2.resize(image, (24, 16), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(applied(text, encoded_datum(image)), resized[1:15, 5:19].transpose(2, 0, 1))


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize(
    ("resized", "size"),
    [
        ("height: 10 width: 12", (10, 12)),
        ("height: 9 width: 9", (9, 9)),
        ("height: 10 width: 14 resize_mode: FIT_LARGE_SIZE_AND_PAD", (10, 14)),
        ("height: 10 width: 10 resize_mode: FIT_SMALL_SIZE", (10, 11)),
    ],
)
def test_transform_cuts_the_crop_out_of_the_image_not_resized(resized: str, size: tuple[int, int], pad: int) -> None:
    image = noise(18, 20, 3)
    got = applied(f"resize_param {{ {resized} }} crop_size: 8 pad: {pad}", encoded_datum(image))
    np.testing.assert_array_equal(got, padded_element_by_element(image, size, 8, pad, 1.0))


def test_transform_refuses_a_crop_outside_the_image_before_resizing() -> None:
    with pytest.raises(BadRecord, match=r"is 3 x 6 x 6 before resize_param, .* it lies outside, and Caffe aborts"):
        applied("resize_param { height: 10 width: 12 } crop_size: 6", encoded_datum(noise(6, 6, 3)))


@pytest.mark.parametrize(
    "text", ["distort_param {}", "expand_param {}", "emit_constraint {}", "flow: true", "pad: 0", "bgr2rgb: false"]
)
def test_transform_ignores_what_a_data_layer_ignores(text: str) -> None:
    pixels = noise(3, 4, 4)
    np.testing.assert_array_equal(applied(text, raw_datum(pixels)), pixels)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('mean_file: "m" mean_value: 1', "mean_file and mean_value exclude each other; keep one"),
        ("force_color: true force_gray: true", "force_color and force_gray exclude each other; keep one"),
        ("crop_h: 3", "crop_h and crop_w belong together; give both, or crop_size"),
        ("bgr2rgb: true", "bgr2rgb is not done; swap the channels"),
        ("noise_param {}", "noise_param would change the test images; take it out"),
        (
            "random_resize_param { min_size: 256 max_size: 480 }",
            "random_resize_param draws a size from 256 to 480 for each image; give min_size and max_size one value",
        ),
        (
            "random_resize_param {}",
            "random_resize_param draws a size from the shorter side to the longer side for each image",
        ),
        (
            "random_resize_param { min_size: 2 max_size: 2 resize_param { interp_mode: [LINEAR, AREA] } }",
            "random_resize_param.resize_param draws one of 2 interp_mode for each image; keep one for a test",
        ),
        ("random_aspect_ratio_param {}", "random_aspect_ratio_param cuts at random; use random_resize_param"),
        ("resize_param { height: 4 }", "resize_param needs a height and a width"),
        ("resize_param { height: 4 width: 4 interp_mode: [CUBIC, AREA] }", "resize_param draws one of 2 interp_mode"),
    ],
)
def test_transform_refuses(text: str, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        transform(text)
    assert str(error.value).startswith(f"{WHERE}: transform_param: {sentence}")


def test_transform_refuses_all_at_once() -> None:
    with pytest.raises(DataError, match=r"crop_h and crop_w .*; bgr2rgb is .*; noise_param would"):
        transform("crop_w: 3 bgr2rgb: true noise_param {}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file or directory); a relative path is looked up from the working directory"),
        (b"\xff\xff\xff", "is not a BlobProto; give what compute_image_mean wrote"),
        (b"", "holds 0 values in the shape 0 x 0 x 0 x 0; give the mean of one image"),
        (
            caffe_pb2.BlobProto(num=2, channels=1, height=1, width=1, data=[1, 2]).SerializeToString(),
            "holds 2 values in the shape 2 x 1 x 1 x 1; give the mean of one image",
        ),
    ],
    ids=["missing", "other bytes", "empty", "two images"],
)
def test_transform_refuses_a_mean_file(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "mean.binaryproto"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        transform(f'mean_file: "{path}"')
    assert str(error.value).startswith(f"{WHERE}: mean_file {path} {sentence}")


@pytest.mark.parametrize(
    ("text", "datum", "sentence"),
    [
        (
            "crop_size: 5",
            raw_datum(noise(3, 4, 6)),
            "is 3 x 4 x 6, less than the crop of 5 x 5; resize it or crop less",
        ),
        ("crop_h: 4 crop_w: 7", encoded_datum(noise(4, 6, 3)), "is 3 x 4 x 6, less than the crop of 4 x 7"),
        (
            "mean_value: 1 mean_value: 2",
            raw_datum(noise(3, 4, 6)),
            "has 3 channels for 2 mean_value; give one or 3",
        ),
        (
            "resize_param { height: 4 width: 4 }",
            raw_datum(noise(3, 4, 6)),
            "is raw, and only encoded images are resized",
        ),
        (
            "random_resize_param { min_size: 4 max_size: 4 }",
            raw_datum(noise(3, 4, 6)),
            "is raw, and only encoded images are resized; encode it, or take the resizing out",
        ),
    ],
    ids=["crop", "crop h and w", "mean values", "resize", "short side"],
)
def test_transform_refuses_a_record_that_does_not_suit(text: str, datum: caffe_pb2.Datum, sentence: str) -> None:
    with pytest.raises(BadRecord) as error:
        applied(text, datum)
    assert str(error.value).startswith(sentence)


def test_transform_refuses_a_record_of_another_size_than_the_mean(tmp_path: Path) -> None:
    path = write_mean(tmp_path / "mean.binaryproto", np.ones((3, 5, 5), np.float32))
    with pytest.raises(BadRecord, match="is 3 x 4 x 6 where mean_file is 3 x 5 x 5; give the mean of these images"):
        applied(f'mean_file: "{path}" crop_size: 2', raw_datum(noise(3, 4, 6)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_transform_refuses_floats_that_are_no_numbers(bad: float) -> None:
    pixels = np.ones((1, 2, 2), np.float32)
    pixels[0, 1, 1] = bad
    with pytest.raises(BadRecord, match="holds values that are NaN or infinite; write it again or leave it out"):
        applied("", raw_datum(pixels))


@pytest.mark.parametrize("text", ["scale: 1e38", "scale: 1e37 mean_value: -100", "mean_value: 3e38 scale: 2"])
def test_transform_refuses_what_overflows(text: str) -> None:
    with pytest.raises(DataError, match=r"its mean and a scale of .* make values that are NaN or infinite; correct"):
        transform(text)


def test_transform_refuses_floats_that_overflow_when_they_are_scaled() -> None:
    with pytest.raises(DataError, match="mean and scale make values that are NaN or infinite of a record's floats"):
        applied("scale: 1e10", raw_datum(np.full((1, 2, 2), 1e30, np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_transform_refuses_a_mean_that_is_no_number(tmp_path: Path, bad: float) -> None:
    path = write_mean(tmp_path / "mean.binaryproto", np.array([[[1.0, bad]]], np.float32))
    with pytest.raises(DataError, match=r"mean_file .* holds values that are NaN or infinite; make it again"):
        transform(f'mean_file: "{path}"')
