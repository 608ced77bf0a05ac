"""The boxes of mscnn and cascade-rcnn against their definitions, told a box at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]


class Box(NamedTuple):
    x1: float
    y1: float
    x2: float
    y2: float
    score: float


def bounded(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


def decoded(move: Array, row: int, column: int, field: tuple[int, int], stride: int) -> list[float]:
    """x, y, width and height of a box, the first two its corner; field_xyr and field_whr are 2."""
    w, h = (field[i] * math.exp(bounded(float(move[2 + i]), -math.log(2), math.log(2))) for i in (0, 1))
    x = bounded(float(move[0]), -0.5, 0.5) * field[0] + (column + 0.5) * stride - w / 2
    y = bounded(float(move[1]), -0.5, 0.5) * field[1] + (row + 0.5) * stride - h / 2
    return [x, y, w, h]


def overlap(a: Box, b: Box, more: int) -> float:
    w = min(a.x2, b.x2) - max(a.x1, b.x1) + more
    h = min(a.y2, b.y2) - max(a.y1, b.y1) + more
    shared = max(w, 0.0) * max(h, 0.0)
    areas = [(c.x2 - c.x1 + more) * (c.y2 - c.y1 + more) for c in (a, b)]
    return shared / (sum(areas) - shared)


def left(boxes: list[Box], before: int, after: int, threshold: float, more: int) -> list[Box]:
    """The boxes, best first (they come in the order in which equal ones stand)."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda one: -one.score)[:before]:
        if not any(overlap(box, better, more) > threshold for better in kept):
            kept.append(box)
    return kept[:after]


def as_rows(images: list[list[Box]], n_rows: int) -> Array:
    rows = np.zeros((len(images) * n_rows, 6), np.float32)
    for item, boxes in enumerate(images):
        for place, box in enumerate(boxes):
            rows[item * n_rows + place] = (item, *box)
    return rows


GROUPS = """type: "BoxGroupOutput" top: "rois" top: "scored"
bbox_reg_param {{ bbox_mean: 0 bbox_mean: 0.1 bbox_mean: 0 bbox_mean: 0
  bbox_std: 0.3 bbox_std: 0.3 bbox_std: 0.5 bbox_std: 0.5 }}
box_group_output_param {{ fg_thr: {thr} iou_thr: 0.5 field_whr: 2 field_xyr: 2 min_size: 9 {nms}
  box_group_param {{ field_w: 16 field_w: 24 field_h: 24 field_h: 16 stride: 8 }}
  box_group_param {{ field_w: 40 field_h: 30 stride: 16 }} }}"""
PAIRS = (([(16, 24), (24, 16)], 8, (5, 6)), ([(40, 30)], 16, (3, 3)))


def group_inputs(n_images: int) -> list[Array]:
    rng, made = np.random.default_rng(3), []
    for fields, _, places in PAIRS:
        probabilities = rng.random((n_images * len(fields), 2, *places)).astype(np.float32)
        made += [probabilities, random(n_images * len(fields), 4, *places, seed=len(fields))]
    return made


@pytest.mark.parametrize("n_images", [1, 2])
@pytest.mark.parametrize(
    ("nms", "before", "after"),
    [("max_nms_num: 30", 30, 30), ("max_nms_num: 30 max_post_nms_num: 6", 30, 6), ("", 69, 69)],
    ids=["before", "after", "all"],
)
def test_box_group_output(n_images: int, nms: str, before: int, after: int) -> None:
    inputs = group_inputs(n_images)
    images = []
    for item in range(n_images):
        boxes = []
        for pair, (fields, stride, (height, width)) in enumerate(PAIRS):
            probabilities, moves = inputs[2 * pair : 2 * pair + 2]
            for k, field in enumerate(fields):
                at = item * len(fields) + k
                for row, column in np.ndindex(height, width):
                    std, mean = np.array([0.3, 0.3, 0.5, 0.5]), np.array([0, 0.1, 0, 0])
                    move = moves[at, :, row, column] * std + mean
                    x, y, w, h = decoded(move, row, column, field, stride)
                    x1, y1 = max(x, 0.0), max(y, 0.0)
                    x2, y2 = min(x + w - 1, width * stride), min(y + h - 1, height * stride)
                    score = 1 - float(probabilities[at, 0, row, column])
                    if score >= 0.4 and x2 - x1 + 1 >= 9 and y2 - y1 + 1 >= 9:
                        boxes.append(Box(x1, y1, x2, y2, score))
        images.append(left(boxes, before, after, 0.5, 1))
    assert 3 < len(images[0]) <= after
    wanted = as_rows(images, after)
    rois, scored = run(GROUPS.format(thr=0.4, nms=nms), *inputs)
    assert rois.shape == (n_images * after, 5, 1, 1)
    np.testing.assert_allclose(scored.reshape(-1, 6), wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(rois.reshape(-1, 5), scored.reshape(-1, 6)[:, :5])


def test_box_group_output_without_a_box() -> None:
    rois, scored = run(GROUPS.format(thr=1.5, nms="max_nms_num: 3"), *group_inputs(1))
    np.testing.assert_array_equal(rois.reshape(-1, 5), [(0, 1, 1, 10, 10), (0,) * 5, (0,) * 5])
    assert not scored.any()


MAPS = """type: "BoxOutput" top: "rois" top: "scored" box_output_param {
  fg_thr: -0.5 iou_thr: 0.4 field_whr: 2 field_xyr: 2 min_size: 10 max_nms_num: 20 max_post_nms_num: 8
  field_w: 20 field_w: 30 field_h: 16 field_h: 40 downsample_rate: 8 downsample_rate: 16 }"""


@pytest.mark.parametrize("n_images", [1, 2])
def test_box_output(n_images: int) -> None:
    inputs = [random(n_images, 7, 4, 6, seed=5), random(n_images, 7, 2, 3, seed=6)]
    inputs[0][:, :3, 1] = np.round(inputs[0][:, :3, 1])  # equal scores: the last stands first
    images = []
    for item in range(n_images):
        boxes = []
        for x, field, rate in zip(inputs, ((20, 16), (30, 40)), (8, 16), strict=True):
            height, width = x.shape[2:]
            for row, column in np.ndindex(height, width):
                values = x[item, :, row, column]
                score = float(values[1:3].max() - values[0])
                left_x, top_y, w, h = decoded(values[3:], row, column, field, rate)
                x1, y1 = max(left_x, 0.0), max(top_y, 0.0)
                w, h = min(w, width * rate - x1), min(h, height * rate - y1)
                if score >= -0.5 and w >= 10 and h >= 10:
                    boxes.append(Box(x1, y1, x1 + w, y1 + h, score))
        images.append(left(boxes[::-1], 20, 8, 0.4, 0))
    assert len(images[0]) > 3
    rois, scored = run(MAPS, *inputs)
    np.testing.assert_allclose(scored.reshape(-1, 6), as_rows(images, 8), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(rois.reshape(-1, 5), scored.reshape(-1, 6)[:, :5])


def test_decode_bbox() -> None:
    moves = random(4, 8, seed=1)
    rois = np.array([(0, 10, 20, 30, 60), (1, 0, 0, 9, 9), (0,) * 5, (0, 5, 5, 6, 90)], np.float32)
    text = """type: "DecodeBBox" bbox_reg_param { bbox_mean: 0 bbox_mean: 0 bbox_mean: 0.5 bbox_mean: 0
      bbox_std: 0.1 bbox_std: 0.1 bbox_std: 0.2 bbox_std: 0.2 }"""
    wanted = np.zeros_like(rois)
    for place, (roi, move) in enumerate(zip(rois, moves, strict=True)):
        if roi.any():
            dx, dy, dw, dh = move[4:] * (0.1, 0.1, 0.2, 0.2) + (0, 0, 0.5, 0)
            w, h = roi[3] - roi[1] + 1, roi[4] - roi[2] + 1
            new_w, new_h = w * math.exp(dw), h * math.exp(dh)
            x = dx * w + (roi[1] + roi[3]) / 2 - (new_w - 1) / 2
            y = dy * h + (roi[2] + roi[4]) / 2 - (new_h - 1) / 2
            wanted[place] = (roi[0], x, y, x + new_w - 1, y + new_h - 1)
    [made] = run(text, moves, rois[:, :, None, None])
    assert made.shape == (4, 5, 1, 1)
    np.testing.assert_allclose(made[:, :, 0, 0], wanted, rtol=1e-5)


SIZED = np.array(
    [(0, 0, 0, 9, 9), (0, 10, 10, 109, 109), (0,) * 5, (0, 5, 5, 204, 104), (0, 0, 0, 399, 399), (0, 9, 9, 3, 3)],
    np.float32,
)


@pytest.mark.parametrize(
    ("scales", "chosen"),
    [
        ("low_scale: 50 high_scale: 150", [1, 3]),
        ("high_scale: 50", [0, 5]),
        ("low_scale: 400", [4]),
        ("low_scale: 150 high_scale: 200", [3]),
        ("", [0, 1, 3, 4, 5]),
    ],
    ids=["between", "below", "closed at the low end", "none: the nearest", "all"],
)
def test_scale_route(scales: str, chosen: list[int]) -> None:
    other = random(6, 2, 3, seed=2)
    rois, beside = run(f'type: "ScaleRoute" top: "a" top: "b" scale_route_param {{ {scales} }}', SIZED, other)
    np.testing.assert_array_equal(rois[: len(chosen)], SIZED[chosen])
    np.testing.assert_array_equal(beside[: len(chosen)], other[chosen])
    assert not rois[len(chosen) :].any()
    assert not beside[len(chosen) :].any()


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (GROUPS.format(thr=0, nms=""), [(2, 2, 4, 4), (2, 4, 4, 4)], "2 bottoms with 2 box_group_param"),
        (GROUPS.format(thr=0, nms='nms_type: "IOMU"'), [a.shape for a in group_inputs(1)], 'only "IOU" is'),
        (MAPS, [(1, 7, 4, 4)], "1 bottoms with 2 field_h"),
        ('type: "DecodeBBox"', [(4, 12), (4, 5)], "moves (R, 8) and rois (R, 5) are needed"),
        (
            'type: "ScaleRoute" scale_route_param { low_scale: 9 high_scale: 3 }',
            [(4, 5)],
            "must not be below the first",
        ),
    ],
    ids=["groups", "overlap", "maps", "moves", "scales"],
)
def test_refusals(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    assert said in refused(text, *shapes)
