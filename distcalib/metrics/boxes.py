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


def sizes(boxes: Array, pixels: bool = False) -> Array:
    """The areas (n,) of boxes (n, 4); 0 for one whose corners are crossed.  In `pixels` the last row and column count.

    (BBoxSize of bbox_util.cpp.)
    """
    extent = boxes[:, 2:] - boxes[:, :2]
    crossed = (extent < 0).any(axis=1)
    if pixels:
        extent = extent + ONE
    area: Array = np.where(crossed, np.float32(0.0), extent[:, 0] * extent[:, 1])
    return area


def overlaps(a: Array, b: Array, pixels: bool = False) -> Array:
    """Intersection over union (m, n) of boxes a (m, 4) with b (n, 4) (JaccardOverlap of bbox_util.cpp)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # of boxes without a size or without an end
        return _ratio(a, b, sizes(a, pixels), sizes(b, pixels), pixels)


def centred_overlaps(a: Array, b: Array) -> Array:
    """Intersection over union (m, n) of boxes (x, y, width, height) a (m, 4) with b (n, 4).

    (Calc_iou of region_loss_layer.cpp.)
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return _ratio(_corners(a), _corners(b), a[:, 2] * a[:, 3], b[:, 2] * b[:, 3])


def centred(boxes: Array) -> Array:
    """Corners (n, 4) as centres and extents (n, 4)."""
    extent = boxes[:, 2:] - boxes[:, :2]
    return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / TWO, extent])


def _corners(boxes: Array) -> Array:
    """Centres and extents (n, 4) as corners (n, 4)."""
    half = boxes[:, 2:] / TWO
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def _ratio(a: Array, b: Array, area_a: Array, area_b: Array, pixels: bool = False) -> Array:
    """Intersection over union (m, n) of corners a (m, 4) with b (n, 4), of the areas given."""
    columns_a, columns_b = np.ascontiguousarray(a.T)[:, :, None], np.ascontiguousarray(b.T)[:, None, :]
    common: Array = _shared(columns_a[0], columns_a[2], columns_b[0], columns_b[2], pixels)
    common *= _shared(columns_a[1], columns_a[3], columns_b[1], columns_b[3], pixels)
    union = area_a[:, None] + area_b[None, :]
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
