"""`transform_param` in the TEST phase: decoded records -> the values that a net is fed with.

Caffe computes (pixel - mean) * scale an element at a time in float32. Here the crops of a batch are put together as
bytes first and converted at once, with the same two float32 operations in the same order: the results are the same
bits.

The order is that of Intel Caffe's data_transformer.cpp: decode, random_resize_param, resize_param, crop at the centre,
mean, scale, pad. `pad` is what a convolution on u8 input has in place of its own: the frame is 128, the u8 that stands
for zero there (docs/decisions/007-a-first-convolution-on-u8.md). distort_param, expand_param, emit_constraint and flow
are ignored, since a Data layer ignores them there.
What differs, on purpose:
- `mirror` is not applied. Caffe draws it at random for each image in TEST too, and then no score comes twice.
- `resize_param` with a crop crops the resized image, as SSD does, where the code is from; Intel's places the window by
  the resized image but cuts it out of the one before resizing, and aborts where that is too small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import cv2
import numpy as np
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import AS_STORED, COLOR, GRAY, Bytes, Mismatch, Pixels, decode, planes, times
from distcalib.data.resize import resize, resize_short_side, size_wrong
from distcalib.data.source import FloatArray
from distcalib.errors import DataError
from distcalib.quantize.storage import ZERO_POINT


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
        self._mean_image: FloatArray | None = None
        if param.mean_file:
            self._mean_image = _read_mean(resolve_path(param.mean_file, prototxt), where, files or {})
        # The cores of an actor belong to the inference engine, and OpenCV would start a thread for each core it sees.
        cv2.setNumThreads(1)

    def pixels(self, datum: caffe_pb2.Datum) -> Pixels:
        """One record, decoded, resized and cropped: (C, H, W) u8, or float32 for float_data. Raises BadRecord."""
        return self.centre(self.whole(datum))

    def whole(self, datum: caffe_pb2.Datum) -> Pixels:
        """One record, decoded and resized: (C, H, W) u8, or float32 for float_data. Raises BadRecord."""
        if not datum.encoded:
            # Caffe aborts on resize_param here, and its random_resize_param takes the planes for interleaved pixels.
            if self._short_side or self._resized:
                raise Mismatch("is raw, and only encoded images are resized; encode it, or take the resizing out")
            return planes(datum)
        return self._sized(decode(datum.data, self._flags))

    def image(self, image: Bytes) -> Pixels:
        """A decoded image (H, W, C), resized and cropped: (C, H, W) u8. Raises BadRecord."""
        return self.centre(self._sized(image))

    def _sized(self, image: Bytes) -> Pixels:
        """A decoded image (H, W, C), resized: (C, H, W) u8. Raises BadRecord."""
        if self._short_side:
            limits = self.param.random_resize_param
            image = resize_short_side(image, limits.min_size, limits.resize_param)
        if self._resized:
            image = resize(image, self.param.resize_param)
        return np.asarray(image.transpose(2, 0, 1), np.uint8)

    def shape(self, pixels: tuple[int, ...]) -> tuple[int, int, int]:
        """The (C, H, W) that `finish` makes of an image whose `pixels` have this shape."""
        return pixels[0], pixels[1] + 2 * self._pad, pixels[2] + 2 * self._pad

    def finish(self, batch: Pixels) -> FloatArray:
        """(N, C, H, W) of `pixels` -> (value - mean) * scale in a frame of ZERO_POINT, float32, a new array."""
        values = batch.astype(np.float32)
        if self._mean_image is not None:
            values -= _window(self._mean_image, values.shape[2:])  # where the image of that size was cut, too
        elif self._mean_value.size:
            values -= self._mean_value.reshape(1, -1, 1, 1)
        if self._scale != 1:
            values *= self._scale
        if not self._pad:
            return values
        padded = np.full((len(batch), *self.shape(batch.shape[1:])), ZERO_POINT, np.float32)
        padded[:, :, self._pad : -self._pad, self._pad : -self._pad] = values
        return padded

    def centre(self, image: Pixels) -> Pixels:
        """The crop of (C, H, W), once its size is seen to suit mean and crop."""
        mean, shape = self._mean_image, image.shape
        if mean is not None and mean.shape != shape:
            raise Mismatch(
                f"is {times(shape)} where mean_file is {times(mean.shape)}; give the mean of these images, or "
                + ("set force_color or force_gray" if mean.shape[1:] == shape[1:] else "resize them to its size")
            )
        if self._mean_value.size not in (0, 1, shape[0]):
            many = f" or {shape[0]}" if shape[0] > 1 else ""
            raise Mismatch(f"has {_channels(shape[0])} for {self._mean_value.size} mean_value; give one{many}")
        if not self.crop[0]:
            return image
        if self.crop[0] > shape[1] or self.crop[1] > shape[2]:
            raise Mismatch(f"is {times(shape)}, less than the crop of {times(self.crop)}; resize it or crop less")
        return _window(image, self.crop)


def _channels(n: int) -> str:
    return "1 channel" if n == 1 else f"{n} channels"


def _window(image: Pixels, size: tuple[int, ...]) -> Pixels:
    """The (C, size[0], size[1]) in the middle of (C, H, W); of two middles the upper left, as in Caffe."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


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
        raise DataError(
            f"{where}: mean_file {path} cannot be read ({error.strerror}); a relative path is looked up from the "
            "working directory, then from the folder of the prototxt"
        ) from error
    except DecodeError as error:
        raise DataError(f"{where}: mean_file {path} is no BlobProto; give what compute_image_mean wrote") from error
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
    return values.reshape(shape)
