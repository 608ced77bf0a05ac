"""Boxes of zhaoweicai's mscnn and cascade-rcnn: from maps of scores and moves to rois, and from rois to better ones.

Layers there make as many rows as there are boxes in the image.  A compiled net has fixed shapes, so here there are as
many rows as there may be boxes, those of each image together, and a row of zeros is none: it is passed on as zeros
(docs/decisions/015).  Where an image has no box at all the first row is that of the forks, (0, 1, 1, 10, 10)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from typing import Any

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of
from distcalib.layers.suppression import suppressed

_NOWHERE = np.array([[0.0, 1.0, 1.0, 10.0, 10.0]], np.float32)


@converts("BoxGroupOutput", bottoms=(2, None), tops=(1, 2))
def box_group_output(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """Pairs of maps, probabilities (N·G, K, H, W) and moves (N·G, 4, H, W) -> rois (R, 5, 1, 1), scored (R, 6, 1, 1).

    G is the number of anchors of the pair's box_group_param, each field_w wide and field_h high in the middle of its
    place.  A box's score is 1 less the probability of class 0, at least fg_thr; moves are bounded by field_xyr and
    field_whr, boxes clipped to the map times stride, sides at least min_size.  The max_nms_num best are suppressed by
    iou_thr, and max_post_nms_num of them are left.  Of equal scores the one of the first pair, anchor and place stands
    first; in the fork any may.  (zhaoweicai/cascade-rcnn, box_group_output_layer.cpp and bbox_util.cpp)
    """
    p = layer.param("box_group_output_param")
    groups = p.box_group_param
    layer.require(
        len(inputs) == 2 * len(groups),
        f"{len(inputs)} bottoms with {len(groups)} box_group_param; two bottoms are needed for each",
    )
    n_images = 0
    candidates: list[tuple[Output, Output, Output]] = []
    for number, group in enumerate(groups):
        probability, moves = inputs[2 * number : 2 * number + 2]
        shape, fields = shape_of(probability), list(zip(group.field_w, group.field_h, strict=False))
        layer.require(
            len(fields) == len(group.field_w) == len(group.field_h) > 0,
            f"{len(group.field_w)} field_w and {len(group.field_h)} field_h; give a pair for each anchor",
        )
        layer.require(
            len(shape) == 4 and shape_of(moves) == (shape[0], 4, *shape[2:]) and shape[0] % len(fields) == 0,
            f"its bottoms have shapes {shape} and {shape_of(moves)}; probabilities (N·{len(fields)}, K, H, W) and "
            f"moves (N·{len(fields)}, 4, H, W) are needed",
        )
        layer.require(n_images in (0, shape[0] // len(fields)), "its bottoms are of different numbers of images")
        n_images = shape[0] // len(fields)
        background = ops.gather(probability, integers([0]), integers([1]))
        score = ops.subtract(constant(1.0), background).output(0)
        places, area = _moved(layer, p, _by_channel(moves), fields, group.stride, shape[2:])
        boxes = _clipped_corners(places, area)
        sides = ops.add(ops.subtract(boxes[1], boxes[0]), constant(1.0))
        counts = _all(ops.greater_equal(sides, constant(p.min_size)).output(0))
        candidates.append(
            (_of_images(_joined(boxes), n_images, 4), _of_images(score, n_images, 1), _of_images(counts, n_images, 1))
        )
    return _rois(layer, p, candidates, n_images, pixels=True)


@converts("BoxOutput", bottoms=(1, None), tops=(1, 2))
def box_output(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """Maps (N, K + 4, H, W) -> rois (R, 5, 1, 1), and with a score (R, 6, 1, 1); one anchor a map.

    A box's score is the largest value of the classes but the first, less that of the first.  Sides are clipped at the
    map times downsample_rate, and a corner that was moved into the image moves the other one, too; an overlap is of
    corners that are no pixels.  Of equal scores the last one stands first.  All else is as in BoxGroupOutput.
    (zhaoweicai/mscnn, box_output_layer.cpp)
    """
    p = layer.param("box_output_param")
    counts = (len(p.field_h), len(p.field_w), len(p.downsample_rate))
    layer.require(
        counts == (len(inputs),) * 3,
        f"{len(inputs)} bottoms with {counts[0]} field_h, {counts[1]} field_w and {counts[2]} downsample_rate; one of "
        "each is needed for a bottom",
    )
    n_images = shape_of(inputs[0])[0]
    candidates = []
    for x, width, height, rate in zip(inputs, p.field_w, p.field_h, p.downsample_rate, strict=True):
        shape = shape_of(x)
        layer.require(
            len(shape) == 4 and shape[1] > 5 and shape[0] == n_images,
            f"a bottom has shape {shape}; ({n_images}, classes + 4, H, W), at least 2 classes, is needed",
        )
        first, others, moves = ops.variadic_split(
            x, ops.constant(np.int64(1)), integers([1, shape[1] - 5, 4])
        ).outputs()
        best = ops.reduce_max(others, integers([1]), keep_dims=True)
        score = ops.subtract(best, first).output(0)
        (middle, size), area = _moved(layer, p, _by_channel(moves), [(width, height)], rate, shape[2:])
        low = ops.maximum(ops.subtract(middle, ops.multiply(size, constant(0.5))), constant(0.0))
        sides = ops.minimum(size, ops.subtract(constant(np.array(area, np.float32)), low)).output(0)
        large = _all(ops.greater_equal(sides, constant(p.min_size)).output(0))
        boxes = _joined((low.output(0), ops.add(low, sides).output(0)))
        candidates.append(
            (_of_images(boxes, n_images, 4), _of_images(score, n_images, 1), _of_images(large, n_images, 1))
        )
    return _rois(layer, p, candidates, n_images, pixels=False)


@converts("DecodeBBox", bottoms=(2, 2))
def decode_bbox(layer: Layer, moves: Output, rois: Output) -> Output:
    """Moves (R, 8) of the background and of any object, and rois (R, 5, ...) -> rois of the same shape, moved.

    (zhaoweicai/cascade-rcnn, decode_bbox_layer.cpp and DecodeBBoxesWithPrior in bbox_util.cpp)
    """
    shape, boxes = shape_of(moves), shape_of(rois)
    fits = shape[:1] == boxes[:1] != () and prod(shape) == shape[0] * 8 and prod(boxes) == boxes[0] * 5
    layer.require(fits, f"its bottoms have shapes {shape} and {boxes}; moves (R, 8) and rois (R, 5) are needed")
    rows = reshape(rois, (boxes[0], 5))
    index, low, high = ops.variadic_split(rows, ops.constant(np.int64(1)), integers([1, 2, 2])).outputs()
    own = ops.slice(reshape(moves, (shape[0], 8)), integers([4]), integers([8]), integers([1]), integers([1])).output(0)
    shift, growth = ops.split(_unnormalized(layer, own, (1, 4)), ops.constant(np.int64(1)), 2).outputs()
    size = ops.add(ops.subtract(high, low), constant(1.0))
    middle = ops.multiply(ops.add(high, low), constant(0.5))
    grown = ops.multiply(size, ops.exp(growth))
    edge = ops.multiply(ops.subtract(grown, constant(1.0)), constant(0.5))
    start = ops.subtract(ops.add(ops.multiply(shift, size), middle), edge)
    end = ops.subtract(ops.add(start, grown), constant(1.0))
    made = ops.concat([index, start, end], 1)
    return reshape(ops.select(is_roi(rows), made, constant(0.0)).output(0), boxes)


@converts("ScaleRoute", bottoms=(1, None), tops=(1, None))
def scale_route(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """The rows of rois (R, 5, ...) whose size is in [low_scale, high_scale), in front; of other bottoms the same rows.

    The size is the root of the area in pixels.  If no roi is of such a size, the one goes on that is next to the middle
    of the two scales, in the logarithm.  (zhaoweicai/cascade-rcnn, scale_route_layer.cpp)
    """
    p = layer.param("scale_route_param")
    shape = shape_of(inputs[0])
    layer.require(shape[:1] != () and prod(shape) == 5 * shape[0], f"its rois have shape {shape}; (R, 5) is needed")
    n_rows = shape[0]
    layer.require(
        len(inputs) == len(layer.tops) and {shape_of(x)[:1] for x in inputs} == {(n_rows,)},
        f"{len(inputs)} bottoms and {len(layer.tops)} tops; as many are needed, of one number of rows",
    )
    low, high, middle = _scales(layer, p)
    rows = reshape(inputs[0], (n_rows, 5))
    _, start, end = ops.variadic_split(rows, ops.constant(np.int64(1)), integers([1, 2, 2])).outputs()
    sides = ops.add(ops.subtract(end, start), constant(1.0)).output(0)
    valid = ops.greater_equal(ops.reduce_min(sides, integers([1]), keep_dims=True), constant(1.0))
    area = ops.select(valid, ops.reduce_prod(sides, integers([1]), keep_dims=True), constant(0.0))
    scale, there = ops.sqrt(area), is_roi(rows)
    inside = ops.logical_and(
        ops.logical_and(ops.greater_equal(scale, constant(low)), ops.less(scale, constant(high))), there
    )
    distance = ops.abs(ops.log(ops.divide(scale, constant(middle))))
    far = ops.select(there, distance, constant(float("inf"))).output(0)
    nearest = ops.topk(reshape(far, (n_rows,)), ops.constant(np.int64(1)), 0, "min", "value", "i64", stable=True)
    is_nearest = ops.logical_and(ops.equal(ops.constant(np.arange(n_rows)[:, None]), nearest.output(1)), there)
    any_inside = ops.reduce_logical_or(inside, integers([0, 1]), keep_dims=True)
    chosen = ops.select(any_inside, inside, is_nearest)
    flags = reshape(ops.convert(chosen, "f32").output(0), (n_rows,))
    order = ops.topk(flags, ops.constant(np.int64(n_rows)), 0, "max", "value", "i64", stable=True)
    kept = ops.greater(order.output(0), constant(0.5)).output(0)
    made = []
    for x in inputs:
        mask = reshape(kept, (n_rows, *[1] * (len(shape_of(x)) - 1)))
        made.append(ops.select(mask, ops.gather(x, order.output(1), integers([0])), constant(0.0)).output(0))
    return made


def is_roi(rows: Output) -> Output:
    """Which of the rows (R, 5) are rois (R, 1): those that are not zeros alone."""
    return ops.greater(ops.reduce_max(ops.abs(rows), integers([1]), keep_dims=True), constant(0.0)).output(0)


def _scales(layer: Layer, p: Any) -> tuple[float, float, float]:
    """Lowest, highest and middle scale; what is not given has no bound."""
    low = p.low_scale if p.HasField("low_scale") else 0.0
    high = p.high_scale if p.HasField("high_scale") else float("inf")
    layer.require(0.0 <= low <= high, f"low_scale={low:g}, high_scale={high:g}; the second must not be below the first")
    if p.HasField("low_scale") and p.HasField("high_scale"):
        return low, high, float(np.sqrt(low * high))
    return low, high, p.low_scale if p.HasField("low_scale") else p.high_scale if p.HasField("high_scale") else 256.0


def _by_channel(maps: Output) -> Output:
    """(M, n, H, W) as (M, H, W, n)."""
    return ops.transpose(maps, integers([0, 2, 3, 1])).output(0)


def _unnormalized(layer: Layer, moves: Output, shape: tuple[int, ...]) -> Output:
    """Moves times bbox_std plus bbox_mean."""
    p = layer.param("bbox_reg_param")
    if not p.bbox_mean or not p.bbox_std:
        return moves
    layer.require(
        len(p.bbox_mean) == len(p.bbox_std) == 4, f"{len(p.bbox_mean)} bbox_mean and {len(p.bbox_std)} bbox_std; give 4"
    )
    std, mean = (np.array(v, np.float32).reshape(shape) for v in (p.bbox_std, p.bbox_mean))
    return ops.add(ops.multiply(moves, constant(std)), constant(mean)).output(0)


def _moved(
    layer: Layer, p: Any, moves: Output, fields: Sequence[tuple[int, int]], stride: float, places: tuple[int, ...]
) -> tuple[tuple[Output, Output], tuple[float, float]]:
    """Middle and size (M, H, W, 2) of the boxes, x first, and width and height of the image."""
    layer.require(p.field_whr > 1.0 and p.field_xyr > 0.0, "field_whr must be above 1 and field_xyr above 0")
    layer.require(p.nms_type == "IOU", f'nms_type="{p.nms_type}" is not converted; only "IOU" is')
    shift, growth = ops.split(_unnormalized(layer, moves, (1, 1, 1, 4)), ops.constant(np.int64(3)), 2).outputs()
    bound = float(np.float32(log(p.field_whr)))
    shift = ops.clamp(shift, -1.0 / p.field_xyr, 1.0 / p.field_xyr).output(0)
    growth = ops.clamp(growth, -bound, bound).output(0)
    n_maps, (height, width) = shape_of(moves)[0], places
    size = np.tile(np.array(fields, np.float32), (n_maps // len(fields), 1))[:, None, None]
    y, x = np.indices((height, width), np.float32)
    middle = (np.stack([x, y], axis=-1) + np.float32(0.5)) * np.float32(stride)
    moved = ops.add(ops.multiply(shift, constant(size)), constant(middle[None])).output(0)
    grown = ops.multiply(ops.exp(growth), constant(size)).output(0)
    return (moved, grown), (width * stride, height * stride)


def _clipped_corners(places: tuple[Output, Output], area: tuple[float, float]) -> tuple[Output, Output]:
    """First and last pixel (M, H, W, 2) of boxes, clipped: no lower than 0 and no further than the image's end."""
    middle, size = places
    low = ops.subtract(middle, ops.multiply(size, constant(0.5)))
    high = ops.subtract(ops.add(low, size), constant(1.0))
    return (
        ops.maximum(low, constant(0.0)).output(0),
        ops.minimum(high, constant(np.array(area, np.float32))).output(0),
    )


def _all(flags: Output) -> Output:
    """Whether all values along the last axis are true, which stays with a size of 1."""
    return ops.reduce_logical_and(flags, integers([-1]), keep_dims=True).output(0)


def _joined(corners: tuple[Output, Output]) -> Output:
    return ops.concat(list(corners), 3).output(0)


def _of_images(values: Output, n_images: int, n_values: int) -> Output:
    """Values as (N, boxes of an image, n)."""
    return reshape(values, (n_images, prod(shape_of(values)) // (n_images * n_values), n_values))


def _rois(
    layer: Layer, p: Any, candidates: Sequence[tuple[Output, Output, Output]], n_images: int, pixels: bool
) -> Sequence[Output]:
    """The tops, of boxes (N, n, 4), scores (N, n, 1) and whether they are large enough (N, n, 1), a triple a map."""
    boxes, scores, large = (ops.concat([triple[i] for triple in candidates], 1).output(0) for i in range(3))
    counts = ops.logical_and(large, ops.greater_equal(scores, constant(p.fg_thr))).output(0)
    n_all = shape_of(boxes)[1]
    n_before = min(p.max_nms_num or n_all, n_all)
    n_rows = min(p.max_post_nms_num or n_before, n_before)
    rows = []
    for item in range(n_images):
        own, score, count = (
            ops.gather(x, ops.constant(np.int64(item)), ops.constant(np.int64(0))).output(0)
            for x in (boxes, scores, counts)
        )
        chosen, is_box = suppressed(own, score, count, n_before, n_rows, p.iou_thr, pixels, last_first=not pixels)
        index = constant(np.full((n_rows, 1), item, np.float32))
        made = ops.concat([index, ops.gather(own, chosen, integers([0])), ops.gather(score, chosen, integers([0]))], 1)
        rows.append(ops.select(is_box, made, constant(0.0)).output(0))
    scored = rows[0] if n_images == 1 else ops.concat(rows, 0).output(0)
    n_all_rows = n_images * n_rows
    plain = ops.slice(scored, integers([0]), integers([5]), integers([1]), integers([1])).output(0)
    nothing = ops.logical_not(ops.reduce_logical_or(is_roi(plain), integers([0, 1]), keep_dims=True))
    first = np.concatenate([_NOWHERE, np.zeros((n_all_rows - 1, 5), np.float32)])
    tops = [reshape(ops.select(nothing, constant(first), plain).output(0), (n_all_rows, 5, 1, 1))]
    if len(layer.tops) == 2:
        tops.append(reshape(scored, (n_all_rows, 6, 1, 1)))
    return tops
