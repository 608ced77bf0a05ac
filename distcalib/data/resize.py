"""Resizing of decoded images, by Caffe's rules for `resize_param` and `random_resize_param`.

Which values the pixels get is OpenCV's business; how large the result is, is Caffe's, in float32 and truncated. The
same formula in Python's doubles is a pixel off for some images (see the test), and then so is every crop of them."""

from __future__ import annotations

import cv2
import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import BadRecord, Bytes, Mismatch
from distcalib.data.limits import over_limit

Resize = caffe_pb2.ResizeParameter

_INTERPOLATIONS = {
    Resize.LINEAR: cv2.INTER_LINEAR,
    Resize.AREA: cv2.INTER_AREA,
    Resize.NEAREST: cv2.INTER_NEAREST,
    Resize.CUBIC: cv2.INTER_CUBIC,
    Resize.LANCZOS4: cv2.INTER_LANCZOS4,
}
_BORDERS = {
    Resize.CONSTANT: cv2.BORDER_CONSTANT,
    Resize.MIRRORED: cv2.BORDER_REFLECT_101,
    Resize.REPEAT_NEAREST: cv2.BORDER_REPLICATE,
}


def resize_short_side(image: Bytes, size: int, param: caffe_pb2.ResizeParameter) -> Bytes:
    """(H, W, C) -> the shorter side becomes `size`, the longer one keeps the aspect; `param` for the rest."""
    height, width = image.shape[:2]
    sized = Resize()
    sized.CopyFrom(param)
    sized.height = sized.width = size
    longer, shorter = max(height, width), min(height, width)
    length = int(np.float32(longer) / np.float32(shorter) * np.float32(size))
    _refuse_large(size, length)
    if height < width:
        sized.width = length
    else:
        sized.height = length
    return resize(image, sized)


def resize(image: Bytes, param: caffe_pb2.ResizeParameter) -> Bytes:
    """(H, W, C) -> to param.height x param.width as resize_mode says. Raises BadRecord for an image too narrow for it.

    WARP fills them; FIT_SMALL_SIZE covers them, keeping the aspect; FIT_LARGE_SIZE_AND_PAD fits inside and pads the
    rest evenly. The first interp_mode counts (Caffe draws one of several at random); without one it is LINEAR.
    `prob`, height_scale and width_scale have no effect in Caffe either."""
    interpolation = _INTERPOLATIONS[param.interp_mode[0]] if param.interp_mode else cv2.INTER_LINEAR
    height, width = _fitted(image.shape[:2], param)
    _refuse_large(max(height, param.height), max(width, param.width))
    channels = image.shape[2]
    try:
        return _resized(image, (height, width), param, interpolation, channels)
    except cv2.error as error:
        raise BadRecord(f"cannot be resized to {height} x {width} ({error.err or error}); leave it out") from error


def _resized(
    image: Bytes, size: tuple[int, int], param: caffe_pb2.ResizeParameter, interpolation: int, channels: int
) -> Bytes:
    """(H, W, C) -> to `size`, then padded if the mode says so. Raises cv2.error."""
    height, width = size
    resized = cv2.resize(image, (width, height), interpolation=interpolation)
    if param.resize_mode == Resize.FIT_LARGE_SIZE_AND_PAD:
        top, left = (param.height - height) // 2, (param.width - width) // 2
        bottom, right = param.height - height - top, param.width - width - left
        value = _pad_values(param, channels)
        resized = cv2.copyMakeBorder(resized, top, bottom, left, right, _BORDERS[param.pad_mode], value=value)
    # OpenCV drops an axis of one channel
    return np.asarray(resized, np.uint8).reshape(*resized.shape[:2], channels)


def size_wrong(height: int, width: int) -> str | None:
    """Why no image is resized to height x width: "30000 x 100000 are 12,000 MB ..."; None if that can be done."""
    wrong = over_limit(4 * height * width)
    return f"{height} x {width} pixels are {wrong}" if wrong else None


def _refuse_large(height: int, width: int) -> None:
    if wrong := size_wrong(height, width):
        raise Mismatch(f"would be resized, and {wrong}; leave it out, or correct the resizing")


def resized_size(size: tuple[int, int], param: caffe_pb2.ResizeParameter) -> tuple[int, int]:
    """The height and width that `resize` makes of an image of `size`. Raises BadRecord as it does."""
    fitted = _fitted(size, param)
    return (param.height, param.width) if param.resize_mode == Resize.FIT_LARGE_SIZE_AND_PAD else fitted


def _fitted(size: tuple[int, ...], param: caffe_pb2.ResizeParameter) -> tuple[int, int]:
    """Height and width of the resized image, before padding."""
    height, width = param.height, param.width
    if param.resize_mode == Resize.WARP:
        return height, width
    aspect = np.float32(size[1]) / np.float32(size[0])
    wanted = np.float32(width) / np.float32(height)
    covers = param.resize_mode == Resize.FIT_SMALL_SIZE
    if aspect >= wanted if covers else aspect <= wanted:
        width = int(aspect * np.float32(height))
    else:
        height = int(np.float32(width) / aspect)
    if not (height and width):
        raise BadRecord(f"is {size[0]} x {size[1]}, too narrow to be resized; leave it out")
    return height, width


def _pad_values(param: caffe_pb2.ResizeParameter, channels: int) -> list[float]:
    """One value a channel; 0 where none is given."""
    values = list(param.pad_value) or [0.0]
    if len(values) not in (1, channels):
        many = f" or {channels}" if channels > 1 else ""
        raise Mismatch(f"has {channels} channels for {len(values)} pad_value; give one{many}")
    return values if len(values) == channels else values * channels
