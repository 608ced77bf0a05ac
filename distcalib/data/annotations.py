"""Boxes of objects through the same resizing and cropping as their image.

The arithmetic is Caffe's, in float32 and in its order: DataTransformer::TransformAnnotation, UpdateBBoxByResizePolicy,
ProjectBBox and ExtrapolateBBox of SSD.  The image itself is resized to whole pixels, a box is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import BadRecord
from distcalib.data.source import FloatArray

Resize = caffe_pb2.ResizeParameter
Array = npt.NDArray[Any]
WHOLE = np.array([0.0, 0.0, 1.0, 1.0], np.float32)
"""The window of an image that is not cropped."""


def crop_window(size: tuple[int, int], crop: tuple[int, int]) -> FloatArray:
    """What a central crop of `crop` shows of an image of `size`, both height and width: normalized corners."""
    if not crop[0]:
        return WHOLE
    (height, width), (top, left) = size, ((size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2)
    corners = np.array([left, top, left + crop[1], top + crop[0]], np.float32)
    window = corners / np.array([width, height, width, height], np.float32)
    return window.astype(np.float32)


@np.errstate(over="ignore", invalid="ignore")  # of boxes that are none; what comes of them is left out, or seen later
def label_rows(
    annotated: caffe_pb2.AnnotatedDatum,
    item: int,
    param: caffe_pb2.TransformationParameter,
    window: FloatArray,
    *,
    size: tuple[int, int] | None = None,
    sampled: bool = False,
) -> FloatArray:
    """Rows (n, 8) of (item, label, instance, xmin, ymin, xmax, ymax, difficult) of what is left in the `window`.

    `size`: height and width of the image before resizing; None: as the record says.  `sampled`: whether the whole image
    was taken as a sample first, which cuts the boxes off at its border.
    Raises BadRecord for a box with a corner that is no number, and for an image without a size that is resized: a box
    cannot follow it.
    """
    rows = [
        [item, group.group_label, one.instance_id, b.xmin, b.ymin, b.xmax, b.ymax, b.difficult]
        for group in annotated.annotation_group
        for one in group.annotation
        for b in (one.bbox,)
    ]
    table = np.array(rows, np.float32).reshape(-1, 8)
    if not np.isfinite(table[:, 3:7]).all():
        raise BadRecord("has a box with a corner that is NaN or infinite; correct it")
    if sampled:
        table = _inside(table, table[:, 3:7], WHOLE, param)
    boxes = table[:, 3:7]
    size = size or (annotated.datum.height, annotated.datum.width)
    resize = param.resize_param if param.HasField("resize_param") else None
    if resize is not None and len(table):
        if min(size) < 1:
            raise BadRecord("has boxes and no height and width, which resizing needs; write both into its datum")
        boxes = resized(boxes, size, resize)
    table = _inside(table, boxes, window, param)
    if resize is not None and len(table):
        table[:, 3:7] = _extrapolated(table[:, 3:7], size, resize, window)
    return table


def _inside(rows: FloatArray, boxes: Array, window: FloatArray, param: caffe_pb2.TransformationParameter) -> FloatArray:
    """Those `rows` of whose `boxes` the `window` shows something that counts, in its coordinates."""
    emitted = _emitted(boxes, window, param.emit_constraint) if param.HasField("emit_constraint") else True
    projected, inside = _projected(boxes, window)
    kept = inside & emitted
    shown = rows[kept]
    shown[:, 3:7] = projected[kept]
    return shown


def resized(boxes: Array, size: tuple[int, int], param: Resize) -> Array:
    """Normalized boxes (n, 4) of an image of `size` (height, width), in the image after resizing."""
    aspect = np.float32(size[1]) / np.float32(size[0])
    width, height = np.float32(param.width), np.float32(param.height)
    x, y = np.float32(0.0), np.float32(0.0)  # padding at each side
    if param.resize_mode == Resize.FIT_SMALL_SIZE:
        if aspect < width / height:
            height = width / aspect
        else:
            width = aspect * height
    elif param.resize_mode == Resize.FIT_LARGE_SIZE_AND_PAD:
        if aspect > width / height:
            y = (height - width / aspect) / np.float32(2.0)
        else:
            x = (width - aspect * height) / np.float32(2.0)
    old, whole, padding = _twice(size[1], size[0]), _twice(width, height), _twice(x, y)
    corners = boxes * old * (whole - np.float32(2.0) * padding) / old
    np.maximum(corners[:, :2], np.float32(0.0), out=corners[:, :2])
    np.minimum(corners[:, 2:], whole[2:], out=corners[:, 2:])
    return np.asarray((padding + corners) / whole)


def _twice(x: float | np.float32, y: float | np.float32) -> FloatArray:
    """(x, y, x, y), for both corners of a box."""
    return np.array([x, y, x, y], np.float32)


def _projected(boxes: Array, window: FloatArray) -> tuple[Array, Array]:
    """Boxes (n, 4) in the coordinates of the window, cut off at its border, and whether anything is left of each."""
    low, high = window[:2], window[2:]
    touches = ~((boxes[:, :2] >= high) | (boxes[:, 2:] <= low)).any(axis=1)
    projected = np.clip((boxes - _twice(*low)) / _twice(*(high - low)), np.float32(0.0), np.float32(1.0))
    return projected, touches & (_area(projected) > 0.0)


def _emitted(boxes: Array, window: FloatArray, param: caffe_pb2.EmitConstraint) -> Array:
    """Whether the center of each box (n, 4) is in the window, or more than emit_overlap of it (MeetEmitConstraint)."""
    if param.emit_type == caffe_pb2.EmitConstraint.CENTER:
        center = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2.0)
        return np.asarray(((center >= window[:2]) & (center <= window[2:])).all(axis=1))
    shared = np.hstack([np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])])
    common, whole = _area(shared), _area(boxes)
    covered = np.divide(common, whole, out=np.zeros_like(common), where=(common > 0.0) & (whole > 0.0))
    return np.asarray(covered > np.float32(param.emit_overlap))


def _extrapolated(boxes: Array, size: tuple[int, int], param: Resize, window: FloatArray) -> Array:
    """Boxes (n, 4) in units of width_scale and height_scale, where both are given with FIT_SMALL_SIZE."""
    if param.resize_mode != Resize.FIT_SMALL_SIZE or not (param.height_scale and param.width_scale):
        return boxes
    aspect = np.float32(size[1]) / np.float32(size[0])
    width, height = np.float32(param.width), np.float32(param.height)
    if aspect < width / height:
        height = width / aspect
    else:
        width = height * aspect
    shown = np.array([width, height], np.float32) * (window[2:] - window[:2])
    scale = np.array([param.width_scale, param.height_scale], np.float32)
    if (shown < scale).any():
        raise BadRecord(f"shows {shown[1]:g} x {shown[0]:g}, less than height_scale x width_scale; lower these")
    return np.asarray(boxes * _twice(*shown) / _twice(*scale))


def _area(boxes: Array) -> Array:
    extent = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(np.where((extent < 0.0).any(axis=1), np.float32(0.0), extent[:, 0] * extent[:, 1]), np.float32)
