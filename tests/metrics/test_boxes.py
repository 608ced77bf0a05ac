import numpy as np
import pytest

from distcalib.metrics.boxes import areas, clipped, overlaps, scaled
from tests.metrics.boxes import box_size, jaccard, random_boxes

APART = [[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7], [0.2, 0.0, 0.4, 0.2], [0.6, 0.6, 0.5, 0.9], [0.1, 0.1, 0.1, 0.3]]


@pytest.mark.parametrize("pixels", [False, True], ids=["normalized", "pixels"])
def test_overlaps_and_sizes_are_those_of_single_boxes(pixels: bool) -> None:
    boxes = np.vstack([random_boxes(40), np.array(APART, np.float32)])
    if pixels:
        boxes = scaled(boxes, 50, 80)
    found = overlaps(boxes, boxes[::-1], pixels)
    assert found.dtype == np.float32
    assert areas(boxes.T, pixels).tolist() == [box_size(b, pixels) for b in boxes]
    touching = [(i, j) for i in range(len(boxes)) for j in range(len(boxes)) if jaccard(boxes[i], boxes[j]) > 0]
    assert len(touching) > 500
    for i, j in touching:
        assert found[i, -1 - j] == jaccard(boxes[i], boxes[j], pixels)


def test_overlaps_of_boxes_apart_crossed_or_no_numbers_are_zero() -> None:
    strange = np.array([*APART, [np.nan, 0, 1, 1], [0, 0, np.nan, 1], [-np.inf, 0, np.inf, 1]], np.float32)
    found = overlaps(strange, strange)
    assert found[0, 1] == found[0, 2] == found[3, 1] == found[4, 0] == 0.0
    assert not found[5:, :].any()
    assert not found[:, 5:].any()


def test_clipped_boxes_end_at_the_border() -> None:
    assert clipped(np.array([[-0.5, 0.25, 1.5, 2.0]], np.float32)).tolist() == [[0.0, 0.25, 1.0, 1.0]]
