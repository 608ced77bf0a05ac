"""Caffe's box arithmetic told one box at a time, for the tests to compare with."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Box = Any


def box_size(box: Box, pixels: bool = False) -> float:
    """The area of a box (xmin, ymin, xmax, ymax)."""
    if box[2] < box[0] or box[3] < box[1]:
        return 0.0
    width, height = np.float32(box[2]) - np.float32(box[0]), np.float32(box[3]) - np.float32(box[1])
    return float((width + np.float32(1)) * (height + np.float32(1)) if pixels else width * height)


def jaccard(a: Box, b: Box, pixels: bool = False) -> float:
    """Intersection over union; what is no number is no overlap."""
    if np.isnan([*a, *b]).any():
        return 0.0
    if b[0] > a[2] or b[2] < a[0] or b[1] > a[3] or b[3] < a[1]:
        return 0.0
    width = min(np.float32(a[2]), np.float32(b[2])) - max(np.float32(a[0]), np.float32(b[0]))
    height = min(np.float32(a[3]), np.float32(b[3])) - max(np.float32(a[1]), np.float32(b[1]))
    if pixels:
        width, height = width + np.float32(1), height + np.float32(1)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    ratio = common / (np.float32(box_size(a, pixels)) + np.float32(box_size(b, pixels)) - common)
    return 0.0 if np.isnan(ratio) else float(ratio)


def greedy(boxes: Sequence[Box] | npt.NDArray[np.float32], threshold: float, eta: float = 1.0) -> list[int]:
    """Non-maximum suppression of boxes in their order."""
    limit, kept = np.float32(threshold), list[int]()
    for i, box in enumerate(boxes):
        if all(jaccard(box, boxes[k]) <= limit for k in kept):
            kept.append(i)
            if eta < 1 and limit > 0.5:
                limit = np.float32(limit * np.float32(eta))
    return kept


def decode(code: str, prior: Box, variance: Box, loc: Box, in_target: bool) -> list[float]:
    """A prediction as a box, in float64."""
    x1, y1, x2, y2 = map(float, prior)
    a, b, c, d = (float(t) * (1.0 if in_target else float(v)) for t, v in zip(loc, variance, strict=True))
    width, height = x2 - x1, y2 - y1
    if code == "CORNER":
        return [x1 + a, y1 + b, x2 + c, y2 + d]
    if code == "CORNER_SIZE":
        return [x1 + a * width, y1 + b * height, x2 + c * width, y2 + d * height]
    center_x, center_y = (x1 + x2) / 2 + a * width, (y1 + y2) / 2 + b * height
    w, h = np.exp(c) * width, np.exp(d) * height
    return [center_x - w / 2, center_y - h / 2, center_x + w / 2, center_y + h / 2]


def random_boxes(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Boxes (n, 4), many of which overlap."""
    rng = np.random.default_rng(seed)
    center, extent = rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.05, 0.5, (n, 2)) / sqrt(2)
    return np.hstack([center - extent / 2, center + extent / 2]).astype(np.float32)
