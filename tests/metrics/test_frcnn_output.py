"""FrcnnOutput against its formulas, a roi at a time, and the mAP that is taken of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics import Detections, check_layer, make_layer, score_layer

Array = npt.NDArray[np.float32]
HEIGHT, WIDTH, N, K = 60, 90, 40, 4
MEAN, STD = (0.0, 0.05, 0.0, 0.0), (0.1, 0.1, 0.2, 0.2)


def layer(aware: bool, more: str = "", n_bottoms: int = 4) -> LayerParameter:
    bottoms = " ".join(f"bottom: '{i}'" for i in range(n_bottoms))
    reg = " ".join([f"bbox_mean: {m}" for m in MEAN] + [f"bbox_std: {s}" for s in STD])
    return text_format.Parse(
        f"""name: 'd' type: 'FrcnnOutput' {bottoms} top: 'd' bbox_reg_param {{ cls_aware: {str(aware).lower()} {reg} }}
        frcnn_output_param {{ conf_thr: 0.2 iou_thr: 0.4 {more} }}""",
        LayerParameter(),
    )


def bottoms(aware: bool, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    scores = rng.random((N, K)) ** 2
    moves = rng.standard_normal((N, 4 * K if aware else 8))
    corner, size = rng.uniform(0, 50, (N, 2)), rng.uniform(8, 40, (N, 2))
    rois = np.column_stack([np.zeros(N), corner, corner + size])
    rois[-5:] = 0  # no rois
    return [np.asarray(a, np.float32) for a in (scores, moves, rois, [[HEIGHT, WIDTH]])]


def overlap(a: list[float], b: list[float]) -> float:
    w, h = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    if w < 0 or h <= 0 or any(c[2] < c[0] or c[3] < c[1] for c in (a, b)):
        return 0.0
    shared = (w + 1) * (h + 1)
    return shared / (sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - shared)


def detected(values: list[Array], aware: bool, most: int) -> list[list[float]]:
    scores, moves, rois, _ = values
    rows: list[list[float]] = []
    for label in range(1, K):
        found = []
        for i in range(N - 5):
            if scores[i, label] < np.float32(0.2):
                continue
            at = 4 * label if aware else 4
            dx, dy, dw, dh = (float(moves[i, at + k]) * STD[k] + MEAN[k] for k in range(4))
            x1, y1, x2, y2 = map(float, rois[i, 1:])
            w, h = x2 - x1 + 1, y2 - y1 + 1
            new_w, new_h = w * math.exp(dw), h * math.exp(dh)
            x, y = dx * w + (x1 + x2) / 2 - (new_w - 1) / 2, dy * h + (y1 + y2) / 2 - (new_h - 1) / 2
            box = [max(x, 0), max(y, 0), min(x + new_w - 1, WIDTH), min(y + new_h - 1, HEIGHT)]
            found.append((float(scores[i, label]), box))
        kept: list[tuple[float, list[float]]] = []
        for score, box in sorted(found, key=lambda one: -one[0]):
            if all(overlap(better, box) <= 0.4 for _, better in kept):
                kept.append((score, box))
        rows += [[0, label, score, *box] for score, box in kept]
    if most and len(rows) > most:
        best = sorted(rows, key=lambda row: -row[2])[:most]
        rows = sorted(best, key=lambda row: row[1])
    return rows


@pytest.mark.parametrize("aware", [False, True], ids=["one box", "a box a class"])
@pytest.mark.parametrize("most", [0, 6])
def test_frcnn_output(aware: bool, most: int) -> None:
    values = bottoms(aware)
    made = make_layer(layer(aware, f"max_det_num: {most}"), values)
    wanted = detected(values, aware, most)
    assert len(wanted) == most or len(wanted) > 10
    np.testing.assert_allclose(made[0, 0], wanted, rtol=1e-4, atol=1e-4)


def test_frcnn_output_without_a_box() -> None:
    values = bottoms(True)
    values[0] *= 0
    np.testing.assert_array_equal(make_layer(layer(True), values), [[[(0, *[-1] * 6)]]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (layer(True, n_bottoms=3), "3 bottoms are given; it takes probabilities"),
        (layer(True, "nms_type: 'IOMU'"), 'nms_type="IOMU" is not converted'),
    ],
    ids=["bottoms", "overlap"],
)
def test_check_layer_refuses(wrong: LayerParameter, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        check_layer(wrong)


def test_frcnn_output_refuses_shapes() -> None:
    with pytest.raises(UnsupportedError, match=r"\(P, 8\), \(P, 5\) and \(1, 2\), of one image, are needed"):
        make_layer(layer(False), bottoms(True))


EVALUATE = """name: 'e' type: 'DetectionEvaluate' bottom: 'd' bottom: 'gt' bottom: 'size' top: 'e'
  detection_evaluate_param {{ num_classes: 3 overlap_threshold: 0.7 {} }}"""


def test_boxes_in_pixels_are_scaled_to_the_image(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.txt"
    sizes.write_text("a 20 300\n")  # height and width: the net reads 60 by 90
    it = text_format.Parse(EVALUATE.format(f"name_size_file: '{sizes}'"), LayerParameter())
    # 2 of 10 rows lie beside the object; in 20 rows a pixel is worth three, so the overlap falls below 0.7
    found = np.array([[[(0, 1, 0.9, 10, 10, 40, 20), (0, 2, 0.8, 10, 10, 40, 30)]]], np.float32)
    labels = np.array([[[(0, 1, 0, 10, 12, 40, 22, 0), (0, 2, 0, 10, 10, 40, 30, 0), (-1,) * 8]]], np.float32)
    scored = score_layer(it, [found, labels, np.array([[60, 90]], np.float32)], [0])
    assert isinstance(scored, Detections)
    shared, union = (20 - 12) / 3 + 1, (22 - 10) / 3 + 1 + ((20 - 10) - (22 - 12)) / 3
    assert (shared / union > 0.7) == bool(scored.hits[list(scored.labels).index(1)])
    assert scored.hits[list(scored.labels).index(2)]
    with pytest.raises(UnsupportedError, match="reads sizes of images and has no name_size_file"):
        check_layer(text_format.Parse(EVALUATE.format(""), LayerParameter()))
