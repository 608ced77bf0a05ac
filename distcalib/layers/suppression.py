"""The best boxes of an image that do not overlap, as many rows as are asked for whatever the image shows.

A compiled net has fixed shapes, so what is left of boxes that suppress each other stands in the first rows, and the
others are zeros (docs/decisions/015).  OpenVINO's operator wants corners that are no pixels, and drops what overlaps by
its threshold; Caffe's layers, by more."""

from __future__ import annotations

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers.shapes import constant, integers, reshape, shape_of

_DROPPED = -1e30
"""The score of a box that does not count: below any other."""
_ROWS = integers([0])


def suppressed(
    boxes: Output,
    scores: Output,
    counts: Output,
    n_before: int,
    n_rows: int,
    threshold: float,
    pixels: bool = True,
    last_first: bool = False,
) -> tuple[Output, Output]:
    """Which of `boxes` are left, best first: their rows (n_rows,), and which of these rows are boxes (n_rows, 1).

    boxes (n, 4) corners, which are pixels of the box if `pixels`; scores and counts (n, 1), whether a box counts.  Of
    those the `n_before` best are looked at; one falls if its intersection over union with a better one that is left is
    above `threshold`.  Of equal scores the first is the better one, or the last.
    """
    n_all = shape_of(boxes)[0]
    flat = reshape(ops.select(counts, scores, constant(_DROPPED)).output(0), (n_all,))
    if last_first:
        flat = ops.gather(flat, integers(list(range(n_all - 1, -1, -1))), _ROWS).output(0)
    n = min(n_before, n_all)
    top = ops.topk(flat, ops.constant(np.int64(n)), 0, "max", "value", "i64", stable=True)
    places = top.output(1)
    if last_first:
        places = ops.subtract(ops.constant(np.int64(n_all - 1)), places).output(0)
    ordered = ops.gather(boxes, places, _ROWS).output(0)
    if pixels:
        ordered = ops.add(ordered, constant(np.array([0.0, 0.0, 1.0, 1.0], np.float32))).output(0)
    selection = ops.non_max_suppression(
        reshape(ordered, (1, n, 4)),
        reshape(top.output(0), (1, 1, n)),
        ops.constant(np.int64(n_rows)),
        ops.constant(_above(threshold)),
        constant(_DROPPED / 2),
        box_encoding="corner",
        sort_result_descending=False,
        output_type="i64",
    )
    chosen = ops.gather(selection.output(0), integers([2]), integers([1]))
    filled = ops.concat([chosen, ops.constant(np.zeros((n_rows, 1), np.int64))], 0)
    first = reshape(
        ops.slice(filled, integers([0]), integers([n_rows]), integers([1]), integers([0])).output(0), (n_rows,)
    )
    is_box = ops.less(ops.constant(np.arange(n_rows)[:, None]), reshape(selection.output(2), (1, 1)))
    return ops.gather(places, first, _ROWS).output(0), is_box.output(0)


def _above(threshold: float) -> NDArray[np.float32]:
    """The least float32 above `threshold`."""
    value = np.asarray(threshold, np.float32)
    return value if float(value) > threshold else np.asarray(np.nextafter(value, np.float32(np.inf)), np.float32)
