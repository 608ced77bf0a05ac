"""Resizing of decoded images, by Caffe's rules for `resize_param` and `random_resize_param`.

Which pixels come out is OpenCV's business; how large the result is, is Caffe's, in float32 and truncated. A size computed
in Python's doubles is one pixel off for some aspect ratios, and then every crop offset is."""

from __future__ import annotations

import cv2
import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import BadRecord, Bytes

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


def resize_short_side(image: Bytes, size: int, param: Resize) -> Bytes:
    """(H, W, C) -> the shorter side becomes `size`, the longer one keeps the aspect, truncated (random_resize_param)."""
    height, width = image.shape[:2]
    sized = Resize()
    sized.CopyFrom(param)
    sized.height = sized.width = size
    if height < width:
        sized.width = int(np.float32(width) / np.float32(height) * np.float32(size))
    else:
        sized.height = int(np.float32(height) / np.float32(width) * np.float32(size))
    return resize(image, sized)


def resize(image: Bytes, param: Resize) -> Bytes:
    """(H, W, C) -> to param.height x param.width as resize_mode says.

    WARP fills them; FIT_SMALL_SIZE covers them, keeping the aspect; FIT_LARGE_SIZE_AND_PAD fits inside and pads the rest
    evenly. At most one interp_mode may be given (Caffe draws one of several at random); without one it is LINEAR."""
    interpolation = _INTERPOLATIONS[param.interp_mode[0]] if param.interp_mode else cv2.INTER_LINEAR
    height, width = _fitted(image, param)
    channels = image.shape[2]
    resized = cv2.resize(image, (width, height), interpolation=interpolation).reshape(height, width, channels)
    if param.resize_mode != Resize.FIT_LARGE_SIZE_AND_PAD:
        return np.asarray(resized, np.uint8)
    top, left = (param.height - height) // 2, (param.width - width) // 2
    padded = cv2.copyMakeBorder(
        resized,
        top,
        param.height - height - top,
        left,
        param.width - width - left,
        _BORDERS[param.pad_mode],
        value=_pad_values(param, channels),
    )
    return np.asarray(padded, np.uint8).reshape(param.height, param.width, channels)


def _fitted(image: Bytes, param: Resize) -> tuple[int, int]:
    """Height and width of the resized image, before padding."""
    height, width = param.height, param.width
    if param.resize_mode == Resize.WARP:
        return height, width
    aspect = np.float32(image.shape[1]) / np.float32(image.shape[0])
    wider = aspect > np.float32(width) / np.float32(height)
    equal = aspect == np.float32(width) / np.float32(height)
    if param.resize_mode == Resize.FIT_SMALL_SIZE:
        keep_height = wider or equal
    else:
        keep_height = not wider
    if keep_height:
        width = int(aspect * np.float32(height))
    else:
        height = int(np.float32(width) / aspect)
    if height < 1 or width < 1:
        raise BadRecord(
            f"is {image.shape[0]} x {image.shape[1]} and would be resized to {height} x {width}; leave it out"
        )
    return height, width


def _pad_values(param: Resize, channels: int) -> list[float]:
    values = list(param.pad_value) or [0.0]
    if len(values) not in (1, channels):
        raise BadRecord(f"has {channels} channels for {len(values)} pad_value; give one or {channels}")
    return values * channels if len(values) == 1 else values
