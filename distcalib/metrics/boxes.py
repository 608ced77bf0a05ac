"""Boxes as Caffe reckons with them: corners (xmin, ymin, xmax, ymax) of float32, sizes and overlaps in float32.

A box with a NaN overlaps nothing: what Caffe makes of one depends on the order of its operands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ONE = np.float32(1.0)


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
    size_a, size_b = sizes(a, pixels), sizes(b, pixels)
    size = np.ones((), np.float32)
    for axis in (0, 1):
        low = np.maximum(a[:, None, axis], b[None, :, axis])
        length = np.minimum(a[:, None, axis + 2], b[None, :, axis + 2]) - low
        apart = length < 0
        if pixels:
            length = length + ONE
        length[apart] = 0.0  # boxes that do not touch; those that do share a pixel
        size = size * length
    with np.errstate(invalid="ignore"):  # of infinite boxes; the result is no overlap
        union = size_a[:, None] + size_b[None, :] - size
        found = np.divide(size, union, out=np.zeros_like(union), where=size > 0)
    return np.where(np.isnan(found), np.float32(0.0), found)


def clipped(boxes: Array) -> Array:
    """Normalized boxes (n, 4) cut off at the border of the image."""
    return np.clip(boxes, np.float32(0.0), ONE)


def scaled(boxes: Array, height: float, width: float) -> Array:
    """Normalized boxes (n, 4) in pixels of an image of that size."""
    return boxes * np.array([width, height, width, height], np.float32)
