"""Boxes as Caffe reckons with them: corners (xmin, ymin, xmax, ymax) of float32, sizes and overlaps in float32.
Those of YOLO v2 are centres and extents (x, y, width, height).

A box with a NaN overlaps nothing: what Caffe makes of one depends on the order of its operands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ONE, TWO = np.float32(1.0), np.float32(2.0)


def areas(boxes: Array, pixels: bool = False) -> Array:
    """The areas (..) of boxes (4, ..); 0 for one whose corners are crossed.  In `pixels` the last row and column count.

    (BBoxSize of bbox_util.cpp.)
    """
    width, height = boxes[2] - boxes[0], boxes[3] - boxes[1]
    crossed = (width < 0) | (height < 0)
    area: Array = (width + ONE) * (height + ONE) if pixels else width * height
    area[crossed] = 0.0
    return area


def overlaps(a: Array, b: Array, pixels: bool = False) -> Array:
    """Intersection over union (m, n) of boxes a (m, 4) with b (n, 4) (JaccardOverlap of bbox_util.cpp)."""
    return column_overlaps(_columns(a)[:, :, None], _columns(b)[:, None, :], pixels)


def column_overlaps(a: Array, b: Array, pixels: bool = False) -> Array:
    """Intersection over union (..) of boxes a (4, ..) with b (4, ..), whose shapes broadcast."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # of boxes without a size or without an end
        return _ratio(a, b, areas(a, pixels), areas(b, pixels), pixels)


def centred_overlaps(a: Array, b: Array) -> Array:
    """Intersection over union (m, n) of boxes (x, y, width, height) a (m, 4) with b (n, 4).

    (Calc_iou of region_loss_layer.cpp.)
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        areas_a, areas_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
        columns_a, columns_b = _columns(_corners(a))[:, :, None], _columns(_corners(b))[:, None, :]
        return _ratio(columns_a, columns_b, areas_a[:, None], areas_b[None, :])


def centred(boxes: Array) -> Array:
    """Corners (n, 4) as centres and extents (n, 4)."""
    extent = boxes[:, 2:] - boxes[:, :2]
    return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / TWO, extent])


def _corners(boxes: Array) -> Array:
    """Centres and extents (n, 4) as corners (n, 4)."""
    half = boxes[:, 2:] / TWO
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def _columns(boxes: Array) -> Array:
    """Boxes (n, 4) as (4, n), each row in one piece."""
    return np.ascontiguousarray(boxes.T)


def _ratio(a: Array, b: Array, area_a: Array, area_b: Array, pixels: bool = False) -> Array:
    """Intersection over union (..) of corners a (4, ..) with b (4, ..), of the areas given."""
    common: Array = _shared(a[0], a[2], b[0], b[2], pixels)
    common *= _shared(a[1], a[3], b[1], b[3], pixels)
    union = area_a + area_b
    union -= common
    common /= union
    np.fmax(common, np.float32(0.0), out=common)  # a NaN is no overlap
    return common


def _shared(low_a: Array, high_a: Array, low_b: Array, high_b: Array, pixels: bool) -> Array:
    """The lengths that intervals have in common; 0 for those that do not touch, a pixel for those that do."""
    length: Array = np.minimum(high_a, high_b)
    length -= np.maximum(low_a, low_b)
    if pixels:
        length = np.where(length >= 0.0, length + ONE, np.float32(0.0))
    np.fmax(length, np.float32(0.0), out=length)
    return length


def clipped(boxes: Array) -> Array:
    """Normalized boxes (n, 4) cut off at the border of the image."""
    return np.clip(boxes, np.float32(0.0), ONE)


def scaled(boxes: Array, height: float, width: float) -> Array:
    """Normalized boxes (n, 4) in pixels of an image of that size."""
    return boxes * np.array([width, height, width, height], np.float32)
