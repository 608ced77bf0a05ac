"""`transform_param` in the TEST phase: decoded records -> the values that a net is fed with.

Caffe computes (pixel - mean) * scale an element at a time in float32. Here the crops of a batch are put together as
bytes first and converted at once, with the same two float32 operations in the same order: the results are the same
bits.

The order is that of Intel Caffe's data_transformer.cpp: decode, random_resize_param, resize_param, crop at the centre,
pad, mean, scale. distort_param, expand_param, emit_constraint and flow are ignored, since a Data layer ignores them
there. Surprising in it, and kept, since a score is to be Intel Caffe's:

- `pad` is done for encoded records and image files alone: raw records are not padded (golden_rules/a_pad).
- Its frame is pixels, not zeros: 0, or what lies around a crop, and neither mean nor scale touches them. But the first
  row below the image and the first column right of it get both. With a mean_value the image is rounded, too.
- With `pad` a mean_file is read `pad` rows and columns too far.
- `resize_param` with `crop_size`: the window is placed by the resized image, but cut out of the one before resizing.

What differs, on purpose: `mirror` is not applied. Caffe draws it at random for each image in TEST too, and then no
score comes twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import (
    AS_STORED,
    COLOR,
    GRAY,
    Bytes,
    Mismatch,
    Pixels,
    as_jpeg,
    decode,
    planes,
    times,
)
from distcalib.data.resize import resize, resize_short_side, resized_size, size_wrong
from distcalib.data.source import FloatArray
from distcalib.errors import AbsentError, DataError


@dataclass(frozen=True)
class Whole:
    """A record before it is cropped: `pixels` (C, H, W), of which a crop is cut out at the centre of `size`.

    That is theirs but where a crop is placed by the image after resizing and cut out of the one before.
    `image`: (C, H, W) before any resizing.  `is_encoded`: whether it was an image, not raw values.
    """

    pixels: Pixels
    size: tuple[int, int]
    image: Pixels
    is_encoded: bool

    @property
    def before(self) -> tuple[int, int]:
        """Height and width before any resizing."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, and the size that counts."""
        return self.pixels.shape[0], *self.size


class Transform:
    """One layer's transform_param; `where` begins its errors: "net.prototxt: layer 'data' (Data)".

    `files`: contents of files by absolute path, which are not read then.

    Raises DataError for what would be random in a test or is not done, all at once, and for an unusable mean_file."""

    def __init__(
        self,
        param: caffe_pb2.TransformationParameter,
        where: str,
        prototxt: Path,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        faults = list(_faults(param))
        if faults:
            raise DataError(f"{where}: transform_param: " + "; ".join(faults))
        self.param = param
        self.crop = (param.crop_size, param.crop_size) if param.crop_size else (param.crop_h, param.crop_w)
        self._short_side = param.HasField("random_resize_param")
        self._resized = param.HasField("resize_param")
        self._flags = COLOR if param.force_color else GRAY if param.force_gray else AS_STORED
        self._scale = np.float32(param.scale)
        self._pad = int(param.pad)
        self._mean_value = np.array(param.mean_value, np.float32)
        self._frames: bool | None = None  # whether records get a frame, as the first one says
        self._mean_image: FloatArray | None = None
        if param.mean_file:
            self._mean_image = _read_mean(resolve_path(param.mean_file, prototxt), where, files or {})
        self._where = where
        self._refuse_overflow()
        # The cores of an actor belong to the inference engine, and OpenCV would start a thread for each core it sees.
        cv2.setNumThreads(1)

    def _refuse_overflow(self) -> None:
        """Raise DataError where a pixel, 0 or 255, becomes no float32 by mean and scale."""
        means = self._mean_value if self._mean_image is None else self._mean_image
        ends = np.array([0.0, 255.0], np.float32).reshape(2, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            values = (ends - (means.reshape(1, -1) if means.size else np.float32(0.0))) * self._scale
        if not np.isfinite(values).all():
            raise DataError(
                f"{self._where}: transform_param: its mean and a scale of {self._scale:g} make values that are NaN or "
                "infinite; correct them"
            )

    def whole(self, datum: caffe_pb2.Datum, n_encodings: int = 0) -> Whole:
        """One record, decoded and resized: u8, or float32 for float_data. Raises BadRecord.

        `n_encodings`: how often an encoded image is encoded again, as JPEG, before it is resized."""
        if not datum.encoded:
            # Caffe aborts on resize_param here, and its random_resize_param takes the planes for interleaved pixels.
            if self._short_side or self._resized:
                raise Mismatch("is raw, and only encoded images are resized; encode it, or take the resizing out")
            pixels = planes(datum)
            size = pixels.shape[1], pixels.shape[2]
            return Whole(pixels, size, pixels, False)
        image = decode(datum.data, self._flags)
        for _ in range(n_encodings):
            image = decode(as_jpeg(image), self._flags)
        return self._sized(image)

    def image(self, image: Bytes) -> Pixels:
        """A decoded image (H, W, C), resized and cropped: (C, H, W) u8. Raises BadRecord."""
        return self.centre(self._sized(image))

    def _sized(self, image: Bytes) -> Whole:
        """A decoded image (H, W, C), resized. Raises BadRecord."""
        before = np.asarray(image.transpose(2, 0, 1), np.uint8)
        if self._short_side:
            limits = self.param.random_resize_param
            image = resize_short_side(image, limits.min_size, limits.resize_param)
        size = (image.shape[0], image.shape[1])
        if self._resized and self.crop[0]:
            size = resized_size(size, self.param.resize_param)
        elif self._resized:
            image = resize(image, self.param.resize_param)
            size = (image.shape[0], image.shape[1])
        return Whole(np.asarray(image.transpose(2, 0, 1), np.uint8), size, before, True)

    def n_channels(self, datum: caffe_pb2.Datum) -> int:
        """Those of an encoded record as it is decoded first. Raises BadRecord."""
        return int(decode(datum.data, self._flags).shape[2])

    def finish(self, batch: Pixels) -> FloatArray:
        """(N, C, H, W) of `pixels` -> (value - mean) * scale, but for a frame: float32, a new array."""
        values = batch.astype(np.float32)
        if self._frames:
            self._finish_inner(values)
            return values
        if self._mean_image is not None:
            values -= _window(self._mean_image, values.shape[2:])  # where the image of that size was cut, too
        elif self._mean_value.size:
            values -= self._mean_value.reshape(1, -1, 1, 1)
        with np.errstate(over="ignore"):
            if self._scale != 1:
                values *= self._scale
        if batch.dtype != np.uint8 and not np.isfinite(values).all():
            raise DataError(
                f"{self._where}: transform_param: mean and scale make values that are NaN or infinite of a record's "
                "floats; correct them, or write the records again"
            )
        return values

    def _finish_inner(self, values: FloatArray) -> None:
        """Mean and scale in place, where a frame lets them: a row and a column more than the image has at its end."""
        pad = self._pad
        inner = values[:, :, pad : values.shape[2] - pad + 1, pad : values.shape[3] - pad + 1]
        if self._mean_image is not None:
            inner -= self._mean_image.reshape(-1)[self._mean_places(inner.shape[1:])]
        elif self._mean_value.size:
            inner -= self._mean_value.reshape(1, -1, 1, 1)
        inner *= self._scale
        if self._mean_value.size:
            np.rint(inner, out=inner)

    def _mean_places(self, inner: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Where in the mean image Caffe reads what it takes from (C, H, W) inside a frame: `pad` too far both ways."""
        assert self._mean_image is not None
        _, height, width = self._mean_image.shape
        top, left = ((height - self.crop[0]) // 2, (width - self.crop[1]) // 2) if self.crop[0] else (0, 0)
        channel, row, column = np.ogrid[: inner[0], : inner[1], : inner[2]]
        places = (channel * height + top + self._pad + row) * width + left + self._pad + column
        return np.asarray(places, np.int64)

    def centre(self, whole: Whole) -> Pixels:
        """The crop of a record, once its size is seen to suit mean and crop, with the frame around it."""
        mean, shape, image = self._mean_image, whole.shape, whole.pixels
        if mean is not None and mean.shape != shape:
            raise Mismatch(
                f"is {times(shape)} where mean_file is {times(mean.shape)}; give the mean of these images, or "
                + ("set force_color or force_gray" if mean.shape[1:] == shape[1:] else "resize them to its size")
            )
        if self._mean_value.size not in (0, 1, shape[0]):
            many = f" or {shape[0]}" if shape[0] > 1 else ""
            raise Mismatch(f"has {_channels(shape[0])} for {self._mean_value.size} mean_value; give one{many}")
        if self.crop[0] > shape[1] or self.crop[1] > shape[2]:
            raise Mismatch(f"is {times(shape)}, less than the crop of {times(self.crop)}; resize it or crop less")
        window = (0, 0, shape[1], shape[2])
        if self.crop[0]:
            window = ((shape[1] - self.crop[0]) // 2, (shape[2] - self.crop[1]) // 2, *self.crop)
        if window[0] + window[2] > image.shape[1] or window[1] + window[3] > image.shape[2]:
            raise Mismatch(
                f"is {times(image.shape)} before resize_param, and Intel Caffe cuts its crop out of that, placed by "
                "the resized image: it lies outside, and Caffe aborts; take crop_size or resize_param out"
            )
        self._see_frame(whole)
        if self._frames:
            return self._framed(image, window)
        top, left, height, width = window
        return image[:, top : top + height, left : left + width]

    def _see_frame(self, whole: Whole) -> None:
        """Whether there is one: encoded records alone get it. Raises BadRecord for a mean that cannot be taken."""
        frames = self._pad > 0 and whole.is_encoded
        if self._frames is None:
            self._frames = frames
        if frames != self._frames:
            raise Mismatch(
                f"is {'encoded' if frames else 'raw'}, the first record is not, and transform_param.pad frames encoded "
                "ones alone; write all records alike"
            )
        if not frames or self._mean_image is None:
            return
        crop = self.crop if self.crop[0] else self._mean_image.shape[1:]
        if self._mean_places((self._mean_image.shape[0], crop[0] + 1, crop[1] + 1)).max() >= self._mean_image.size:
            raise Mismatch(
                "would get a frame by transform_param.pad, with which Intel Caffe reads behind the end of mean_file; "
                "give mean_value in its place, or take pad out"
            )

    def _framed(self, image: Pixels, window: tuple[int, int, int, int]) -> Pixels:
        """The window (top, left, height, width) of an image, and around it what the image has there, else 0."""
        pad, (top, left, height, width) = self._pad, window
        framed: Pixels = np.zeros((height + 2 * pad, width + 2 * pad, image.shape[0]), np.uint8).transpose(2, 0, 1)
        begin = max(0, top - pad), max(0, left - pad)
        seen = image[:, begin[0] : top + height + pad, begin[1] : left + width + pad]
        down, right = begin[0] - (top - pad), begin[1] - (left - pad)
        framed[:, down : down + seen.shape[1], right : right + seen.shape[2]] = seen
        return framed


def _channels(n: int) -> str:
    return "1 channel" if n == 1 else f"{n} channels"


def _window(image: Pixels, size: tuple[int, ...]) -> Pixels:
    """The (C, size[0], size[1]) in the middle of (C, H, W); of two middles the upper left, as in Caffe."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def mean_of(
    param: caffe_pb2.TransformationParameter, prototxt: Path, where: str, crop: tuple[int, int] | None
) -> FloatArray:
    """What is taken from the pixels of a crop (C, H, W): mean values as (C, 1, 1), the window of a mean_file as
    (C, crop), zeros as (1, 1, 1).  Raises DataError.
    """
    if not param.mean_file:
        return np.array(list(param.mean_value) or [0.0], np.float32).reshape(-1, 1, 1)
    image = _read_mean(resolve_path(param.mean_file, prototxt), where, {})
    return image if crop is None else np.asarray(_window(image, crop), np.float32)


def _faults(param: caffe_pb2.TransformationParameter) -> Iterator[str]:
    """What cannot be done as it is written, each with its remedy."""
    if param.mean_file and param.mean_value:
        yield "mean_file and mean_value exclude each other; keep one"
    if param.force_color and param.force_gray:
        yield "force_color and force_gray exclude each other; keep one"
    if not param.crop_size and bool(param.crop_h) != bool(param.crop_w):
        yield "crop_h and crop_w belong together; give both, or crop_size"
    if param.bgr2rgb:
        yield "bgr2rgb is not done; swap the channels of the images or of the first convolution"
    if param.HasField("noise_param"):
        yield "noise_param would change the test images; take it out"
    if param.HasField("random_resize_param"):
        yield from _random_resize_faults(param)
    elif param.HasField("random_aspect_ratio_param"):
        yield "random_aspect_ratio_param cuts at random; use random_resize_param with one size for a test"
    if param.HasField("resize_param"):
        if not (param.resize_param.height and param.resize_param.width):
            yield "resize_param needs a height and a width"
        elif wrong := size_wrong(param.resize_param.height, param.resize_param.width):
            yield f"resize_param: {wrong}; correct it"
        yield from _resize_faults("resize_param", param.resize_param)


def _random_resize_faults(param: caffe_pb2.TransformationParameter) -> Iterator[str]:
    limits = param.random_resize_param
    if limits.min_size != limits.max_size or not limits.min_size:
        yield (
            f"random_resize_param draws a size from {limits.min_size or 'the shorter side'} to "
            f"{limits.max_size or 'the longer side'} for each image; give min_size and max_size one value for a test"
        )
    yield from _resize_faults("random_resize_param.resize_param", limits.resize_param)


def _resize_faults(name: str, param: caffe_pb2.ResizeParameter) -> Iterator[str]:
    if len(param.interp_mode) > 1:
        yield f"{name} draws one of {len(param.interp_mode)} interp_mode for each image; keep one for a test"


def _read_mean(path: Path, where: str, files: Mapping[str, bytes]) -> FloatArray:
    """The mean image of a binaryproto as (C, H, W). Raises DataError."""
    try:
        blob = caffe_pb2.BlobProto.FromString(files[str(path)] if str(path) in files else path.read_bytes())
    except OSError as error:
        kind = AbsentError if isinstance(error, FileNotFoundError) else DataError
        raise kind(
            f"{where}: mean_file {path} cannot be read ({error.strerror}); a relative path is looked up from the "
            "working directory, then from the folder of the prototxt"
        ) from error
    except DecodeError as error:
        raise DataError(f"{where}: mean_file {path} is not a BlobProto; give what compute_image_mean wrote") from error
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape: tuple[int, ...] = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    values = np.array(blob.double_data if blob.double_data else blob.data, np.float32)
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or min(shape) < 1 or values.size != prod(shape):
        raise DataError(
            f"{where}: mean_file {path} holds {values.size} values in the shape {times(shape)}; "
            "give the mean of one image, as compute_image_mean writes it"
        )
    if not np.isfinite(values).all():
        raise DataError(
            f"{where}: mean_file {path} holds values that are NaN or infinite; make it again with compute_image_mean"
        )
    return values.reshape(shape)
