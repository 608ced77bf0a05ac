"""The naive mAP that the maker of digit_scenes prints."""

import numpy as np
import pytest

from scripts.bench.naive_map import average_precision, decode, detections, mean_average_precision
from scripts.examples.digit_scenes import Array, Scene, encode

A = np.array([0.1, 0.1, 0.3, 0.3], np.float32)
B = np.array([0.5, 0.5, 0.9, 0.9], np.float32)


def test_decode_is_the_inverse_of_encode() -> None:
    assert decode(np.stack([A, B]), encode(np.stack([A, B]), np.stack([B, A]))) == pytest.approx(
        np.stack([B, A]), abs=1e-6
    )


def test_detections_keeps_the_best_of_those_that_overlap_in_a_class() -> None:
    priors = np.stack([A, A, B])
    scores = np.array([[0, 0.6, 0.4], [0, 0.9, 0.005], [0, 0.5, 0.0]], np.float32)
    found = detections(priors, np.zeros((3, 4), np.float32), scores)
    assert [(round(score, 3), label) for score, label, _ in found] == [(0.9, 1), (0.5, 1), (0.4, 2)]


@pytest.mark.parametrize(
    "found, expected",
    [
        pytest.param([(0.9, 0, A), (0.8, 1, B)], 1.0, id="all found"),
        pytest.param([(0.9, 0, A)], 6 / 11, id="half found: recall 0 to 0.5"),
        pytest.param([(0.9, 0, A), (0.8, 0, A), (0.7, 1, B)], (6 + 5 * 2 / 3) / 11, id="a box counts once"),
        pytest.param([(0.9, 1, A), (0.8, 0, B)], 0.0, id="in the wrong image"),
    ],
)
def test_average_precision_is_the_mean_at_eleven_recalls(
    found: list[tuple[float, int, Array]], expected: float
) -> None:
    assert average_precision(found, [A[None], B[None]]) == pytest.approx(expected)


def test_mean_average_precision_is_over_the_classes_that_occur() -> None:
    scene = Scene(np.zeros((1, 64, 64), np.uint8), np.stack([A, B]), np.array([1, 3]))
    assert mean_average_precision([[(0.9, 1, A), (0.8, 2, B)]], [scene]) == pytest.approx(0.5)
