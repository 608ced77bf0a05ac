from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import AnnotatedDatum, TransformationParameter
from distcalib.data.annotations import WHOLE, crop_window, label_rows
from distcalib.data.datum import BadRecord

f = np.float32
Array = npt.NDArray[Any]
BOXES = [
    (0.1, 0.2, 0.5, 0.7),
    (-0.1, 0.0, 0.3, 1.2),
    (0.9, 0.9, 1.0, 1.0),
    (0.45, 0.45, 0.55, 0.55),
    (0.0, 0.0, 1.0, 1.0),
    (0.3, 0.3, 0.3, 0.4),
    (0.0, 0.0, 0.12, 0.12),
]


def annotated(height: int, width: int, boxes: Sequence[tuple[float, ...]] = BOXES) -> AnnotatedDatum:
    """A record with an object of class i + 1 for each of `boxes`, every second one difficult."""
    record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
    record.datum.height, record.datum.width = height, width
    for i, (xmin, ymin, xmax, ymax) in enumerate(boxes):
        one = record.annotation_group.add(group_label=i + 1).annotation.add(instance_id=i + 20)
        b = one.bbox
        b.xmin, b.ymin, b.xmax, b.ymax, b.difficult = xmin, ymin, xmax, ymax, bool(i % 2)
    return record


def stated(record: AnnotatedDatum, text: str, window: Array) -> list[list[float]]:
    """The rows, a box at a time in float64: TransformAnnotation and what it calls."""
    p = text_format.Parse(text, TransformationParameter())
    width, height = record.datum.width, record.datum.height
    rows = []
    for group in record.annotation_group:
        for one in group.annotation:
            b = one.bbox
            x1, y1, x2, y2 = b.xmin, b.ymin, b.xmax, b.ymax
            new_w, new_h = float(p.resize_param.width), float(p.resize_param.height)
            if p.HasField("resize_param"):
                x1, x2, y1, y2 = x1 * width, x2 * width, y1 * height, y2 * height
                aspect, pad_x, pad_y = width / height, 0.0, 0.0
                mode = p.resize_param.resize_mode
                if mode == 3:
                    if aspect > new_w / new_h:
                        pad_y = (new_h - new_w / aspect) / 2
                    else:
                        pad_x = (new_w - aspect * new_h) / 2
                elif mode == 2 and aspect < new_w / new_h:
                    new_h = new_w / aspect
                elif mode == 2:
                    new_w = aspect * new_h
                x1 = (pad_x + max(0, x1 * (new_w - 2 * pad_x) / width)) / new_w
                x2 = (pad_x + min(new_w, x2 * (new_w - 2 * pad_x) / width)) / new_w
                y1 = (pad_y + max(0, y1 * (new_h - 2 * pad_y) / height)) / new_h
                y2 = (pad_y + min(new_h, y2 * (new_h - 2 * pad_y) / height)) / new_h
            left, top, right, bottom = map(float, window)
            if p.HasField("emit_constraint"):
                if p.emit_constraint.emit_type == 0:
                    ok = left <= (x1 + x2) / 2 <= right and top <= (y1 + y2) / 2 <= bottom
                else:
                    w, h = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
                    area = (x2 - x1) * (y2 - y1)
                    ok = w > 0 and h > 0 and area > 0 and w * h / area > p.emit_constraint.emit_overlap
                if not ok:
                    continue
            if x1 >= right or x2 <= left or y1 >= bottom or y2 <= top:
                continue
            box = [(x1 - left) / (right - left), (y1 - top) / (bottom - top)]
            box += [(x2 - left) / (right - left), (y2 - top) / (bottom - top)]
            box = [min(max(value, 0.0), 1.0) for value in box]
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            if p.resize_param.height_scale and p.resize_param.resize_mode == 2:
                wide = new_w * (right - left) / p.resize_param.width_scale
                high = new_h * (bottom - top) / p.resize_param.height_scale
                box = [box[0] * wide, box[1] * high, box[2] * wide, box[3] * high]
            rows.append([5, group.group_label, one.instance_id, *box, b.difficult])
    return rows


@pytest.mark.parametrize("window", [WHOLE, np.array([0.25, 0.1, 0.75, 0.6], f)], ids=["whole", "cropped"])
@pytest.mark.parametrize("size", [(40, 30), (30, 40), (30, 30)], ids=["high", "wide", "square"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "resize_param { height: 20 width: 20 }",
        "resize_param { height: 20 width: 50 resize_mode: FIT_LARGE_SIZE_AND_PAD }",
        "resize_param { height: 50 width: 20 resize_mode: FIT_LARGE_SIZE_AND_PAD }",
        "resize_param { height: 20 width: 50 resize_mode: FIT_SMALL_SIZE }",
        "resize_param { height: 20 width: 20 resize_mode: FIT_SMALL_SIZE height_scale: 9 width_scale: 8 }",
        "emit_constraint { emit_type: CENTER }",
        "emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.3 } resize_param { height: 20 width: 20 }",
    ],
    ids=["plain", "warp", "pad_y", "pad_x", "small", "scaled", "center", "overlap"],
)
def test_label_rows_are_what_caffe_states(text: str, size: tuple[int, int], window: Array) -> None:
    record = annotated(*size)
    found = label_rows(record, 5, text_format.Parse(text, TransformationParameter()), window)
    assert found.dtype == f
    np.testing.assert_allclose(found, stated(record, text, window), rtol=1e-5, atol=1e-6)


def test_label_rows_of_no_objects() -> None:
    param = text_format.Parse("resize_param { height: 2 width: 2 } emit_constraint {}", TransformationParameter())
    assert label_rows(annotated(0, 0, []), 0, param, WHOLE).shape == (0, 8)


def test_label_rows_refuse_an_image_without_a_size_and_a_scale_beyond_the_image() -> None:
    param = text_format.Parse("resize_param { height: 2 width: 2 }", TransformationParameter())
    with pytest.raises(BadRecord, match="has boxes and no height and width"):
        label_rows(annotated(0, 9), 0, param, WHOLE)
    text = "resize_param { height: 9 width: 9 resize_mode: FIT_SMALL_SIZE height_scale: 10 width_scale: 1 }"
    with pytest.raises(BadRecord, match="shows 9 x 9, less than height_scale x width_scale"):
        label_rows(annotated(5, 5), 0, text_format.Parse(text, TransformationParameter()), WHOLE)


@pytest.mark.parametrize(
    ("size", "crop", "window"),
    [
        ((40, 30), (0, 0), [0, 0, 1, 1]),
        ((40, 30), (20, 10), [1 / 3, 0.25, 2 / 3, 0.75]),
        ((5, 5), (2, 2), [0.2, 0.2, 0.6, 0.6]),  # of two middles the upper left
    ],
)
def test_crop_window_is_the_central_crop(size: tuple[int, int], crop: tuple[int, int], window: list[float]) -> None:
    np.testing.assert_allclose(crop_window(size, crop), window, rtol=1e-6)


@pytest.mark.parametrize("corner", ["xmin", "ymax"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_label_rows_refuse_a_box_that_is_none(corner: str, value: float) -> None:
    record = annotated(4, 4)
    setattr(record.annotation_group[0].annotation[0].bbox, corner, value)
    with pytest.raises(BadRecord, match="a box with a corner that is NaN or infinite"):
        label_rows(record, 0, TransformationParameter(), WHOLE)
