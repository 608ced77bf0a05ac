"""`transform_param` in the TEST phase: decoded records -> the values a net is fed with.

Caffe computes (pixel - mean) * scale an element at a time in float32. Here the crops of a batch are first put together as
bytes and converted at once, with the same two float32 operations in the same order, so the results are the same bits.

mirror is not applied: a test must give the same score twice, and Caffe draws it at random for each image in either phase."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import AS_STORED, COLOR, GRAY, BadRecord, Pixels, decode, planes
from distcalib.data.resize import resize, resize_short_side
from distcalib.data.source import FloatArray
from distcalib.errors import DataError


class Transform:
    """One layer's transform_param. `where` begins its errors: "net.prototxt: layer 'data' (Data)"; all offenders at once.

    Raises DataError for what would be random in a test or is not done, and for an unusable mean_file."""

    def __init__(self, param: caffe_pb2.TransformationParameter, where: str, prototxt: Path) -> None:
        faults = list(_faults(param))
        if faults:
            raise DataError(f"{where}: transform_param: " + "; ".join(faults))
        self._param = param
        self._flags = COLOR if param.force_color else GRAY if param.force_gray else AS_STORED
        self._scale = np.float32(param.scale)
        self._mean: FloatArray | None = None  # (C,) from mean_value, or (C, H, W) from mean_file
        if param.mean_value:
            self._mean = np.array(param.mean_value, np.float32)
        elif param.HasField("mean_file"):
            self._mean = _read_mean(resolve_path(param.mean_file, prototxt), where)
        # The cores of an actor belong to the inference engine, and OpenCV would start a thread for each core it sees.
        cv2.setNumThreads(1)

    def pixels(self, datum: caffe_pb2.Datum) -> Pixels:
        """One record, decoded, resized and cropped: (C, H, W) u8, or float32 for float_data. Raises BadRecord."""
        param = self._param
        resizes = param.HasField("random_resize_param") or param.HasField("resize_param")
        if not datum.encoded:
            if resizes:
                raise BadRecord("is not an encoded image, and only these are resized; take the resizing out, or encode it")
            return self._cropped(planes(datum))
        image = decode(datum.data, self._flags)
        if param.HasField("random_resize_param"):
            image = resize_short_side(image, param.random_resize_param.min_size, param.random_resize_param.resize_param)
        if param.HasField("resize_param"):
            image = resize(image, param.resize_param)
        return self._cropped(image.transpose(2, 0, 1))

    def finish(self, batch: Pixels) -> FloatArray:
        """(N, C, H, W) of `pixels` -> (value - mean) * scale, float32, a new array."""
        values = batch.astype(np.float32)
        if self._mean is not None:
            values -= self._cropped_mean(values.shape[2:]) if self._mean.ndim == 3 else self._mean.reshape(1, -1, 1, 1)
        if self._scale != 1:
            values *= self._scale
        return values

    def _cropped(self, image: Pixels) -> Pixels:
        """The centre of (C, H, W), after checking its size against crop and mean."""
        channels, height, width = image.shape
        mean = self._mean
        if mean is not None and mean.ndim == 3 and mean.shape != image.shape:
            raise BadRecord(f"is {_size(image.shape)} where mean_file is {_size(mean.shape)}; give a mean of that size")
        if mean is not None and mean.ndim == 1 and mean.size not in (1, channels):
            raise BadRecord(f"has {channels} channels for {mean.size} mean_value; give one or {channels}")
        crop_height, crop_width = self._crop(height, width)
        if crop_height > height or crop_width > width:
            raise BadRecord(f"is {height} x {width}, less than the crop of {crop_height} x {crop_width}; resize or crop less")
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return image[:, top : top + crop_height, left : left + crop_width]

    def _crop(self, height: int, width: int) -> tuple[int, int]:
        size = self._param.crop_size
        return (size, size) if size else (height, width)

    def _cropped_mean(self, size: tuple[int, ...]) -> FloatArray:
        """The centre of the mean image: its offsets are those of an image of its own size."""
        assert self._mean is not None
        top, left = ((self._mean.shape[axis + 1] - size[axis]) // 2 for axis in (0, 1))
        return self._mean[:, top : top + size[0], left : left + size[1]]


def _faults(param: caffe_pb2.TransformationParameter) -> Iterator[str]:
    """What cannot be done as it is written, each with its remedy."""
    if param.HasField("mean_file") and param.mean_value:
        yield "mean_file and mean_value exclude each other; keep one"
    if param.force_color and param.force_gray:
        yield "force_color and force_gray exclude each other; keep one"
    for name in ("crop_h", "crop_w", "pad", "bgr2rgb", "noise_param"):
        if param.HasField(name):
            yield f"{name} is not done; take it out"
    random = param.HasField("random_resize_param")
    if random:
        limits = param.random_resize_param
        if limits.min_size != limits.max_size or not limits.min_size:
            yield (
                f"random_resize_param draws a size from {limits.min_size} to {limits.max_size} for each image; "
                "set min_size and max_size to one size for a test"
            )
        if not param.crop_size:
            yield "random_resize_param needs a crop_size, as in Caffe"
        yield from _resize_faults("random_resize_param.resize_param", limits.resize_param)
    elif param.HasField("random_aspect_ratio_param"):
        yield "random_aspect_ratio_param cuts at random; use random_resize_param with one size for a test"
    if param.HasField("resize_param"):
        if not (param.resize_param.height and param.resize_param.width):
            yield "resize_param needs a height and a width"
        yield from _resize_faults("resize_param", param.resize_param)


def _resize_faults(name: str, param: caffe_pb2.ResizeParameter) -> Iterator[str]:
    if len(param.interp_mode) > 1:
        yield f"{name} draws one of {len(param.interp_mode)} interp_mode for each image; keep one for a test"


def _read_mean(path: Path, where: str) -> FloatArray:
    """The mean image of a binaryproto as (C, H, W)."""
    try:
        blob = caffe_pb2.BlobProto.FromString(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{where}: mean_file {path} cannot be read: {error.strerror}; a relative path is looked up from the working "
            "directory, then from the folder of the prototxt"
        ) from error
    except DecodeError as error:
        raise DataError(f"{where}: mean_file {path} is no BlobProto; give what compute_image_mean wrote") from error
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    values = np.array(blob.double_data if blob.double_data else blob.data, np.float32)
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or values.size != np.prod(shape, dtype=np.int64) or not values.size:
        raise DataError(
            f"{where}: mean_file {path} holds {values.size} values for the shape {_size(shape)}; "
            "give the mean of one image, as compute_image_mean writes it"
        )
    return values.reshape(shape)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
