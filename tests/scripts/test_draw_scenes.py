"""The picture of detections: what is a hit, and that it is drawn where it is."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from distcalib.engine.net import open_net
from scripts.examples import draw_scenes
from scripts.examples.digit_scenes import SIDE
from scripts.examples.draw_scenes import HIT, MISSED, PICTURE, WEIGHTS, WRONG, ZOOM, Judged, judged

A, B = [0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]
TRUTH = np.array([[1, *A], [2, *B]], np.float32)
NONE = np.zeros((0, 5), np.float32)


@pytest.mark.parametrize(
    "found, hits, wrong, missed",
    [
        pytest.param([[1, 0.9, *A], [2, 0.6, *B]], [1, 2], [], [], id="all"),
        pytest.param([[1, 0.9, *A], [2, 0.4, *B]], [1], [], [2], id="one below the score that is drawn"),
        pytest.param([[1, 0.6, *A], [1, 0.9, *A]], [1], [1], [2], id="a digit is hit once"),
        pytest.param([[3, 0.9, *A]], [], [3], [1, 2], id="another digit"),
        pytest.param([[1, 0.9, 0.2, 0.1, 0.4, 0.3]], [], [1], [1, 2], id="beside the digit"),
        pytest.param(np.zeros((0, 6)), [], [], [1, 2], id="nothing found"),
    ],
)
def test_judged_tells_hits_from_others(
    found: list[list[float]], hits: list[int], wrong: list[int], missed: list[int]
) -> None:
    told = judged(np.array(found, np.float32), TRUTH)
    assert [boxes[:, 0].tolist() for boxes in (told.hits, told.wrong, told.missed)] == [hits, wrong, missed]


@pytest.mark.parametrize("kind, color", [("hits", HIT), ("wrong", WRONG), ("missed", MISSED)])
def test_draw_scene_draws_a_box_in_its_color(kind: str, color: tuple[int, int, int]) -> None:
    box = np.array([[2, 0.25, 0.5, 0.75, 1.0]], np.float32)
    boxes = {name: box if name == kind else NONE for name in ("hits", "wrong", "missed")}
    picture = draw_scenes.draw_scene(np.full((SIDE, SIDE), 99.6, np.float32), Judged(**boxes), {2: "1"})
    assert picture.shape == (SIDE * ZOOM, SIDE * ZOOM, 3)
    rows, columns = np.nonzero((picture == color).all(axis=2))
    assert (columns.min(), columns.max() + 1, rows.max() + 1) == (SIDE * ZOOM // 4, SIDE * ZOOM * 3 // 4, SIDE * ZOOM)
    assert picture[0, 0].tolist() == [100, 100, 100]


def test_detect_finds_nearly_all_digits_of_the_example() -> None:
    score, pixels, found = draw_scenes.detect(open_net(WEIGHTS.with_suffix(".prototxt")), WEIGHTS)
    assert score > 0.75
    assert pixels.shape == (20, SIDE, SIDE)
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)  # the transform is undone
    n_hits, n_others = sum(len(one.hits) for one in found), sum(len(one.wrong) + len(one.missed) for one in found)
    assert n_hits > 4 * n_others


def test_the_committed_picture_is_small_and_of_three_nets() -> None:
    assert PICTURE.stat().st_size < 150_000
    picture = cv2.imread(str(PICTURE))
    assert picture is not None
    assert picture.shape[0] == 3 * (draw_scenes.TITLE + SIDE * ZOOM + draw_scenes.GAP)


def test_main_writes_a_row_a_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "picture.png"
    prototxt = WEIGHTS.with_suffix(".prototxt")
    monkeypatch.setattr("sys.argv", ["draw_scenes", f"FP32={prototxt}", "--scenes", "2", "--out", str(out)])
    draw_scenes.main()
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[:2] == (
        draw_scenes.TITLE + SIDE * ZOOM + draw_scenes.GAP,
        2 * SIDE * ZOOM + 3 * draw_scenes.GAP,
    )
