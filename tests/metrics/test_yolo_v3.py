"""Yolov3DetectionOutput against the loops of its fork: every class of every box, then one list to suppress in."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics import check_layer, make_layer

Array = npt.NDArray[Any]
PARAM = """confidence_threshold: 0.3 nms_threshold: 0.45 num_classes: 3 num_box: 2 mask_group_num: 2
  biases: 10 biases: 13 biases: 16 biases: 30 biases: 33 biases: 23 biases: 30 biases: 61
  mask: 2 mask: 3 mask: 0 mask: 1 anchors_scale: 32 anchors_scale: 16"""


def make(param: str = PARAM) -> LayerParameter:
    text = "name: 'd' type: 'Yolov3DetectionOutput' bottom: 'a' bottom: 'b' top: 'd'"
    return text_format.Parse(f"{text} yolov3_detection_output_param {{ {param} }}", LayerParameter())


def maps(n: int, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, 16, h, w)).astype(np.float32) for h, w in ((2, 3), (4, 6))]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def iou(a: list[float], b: list[float]) -> float:
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    shared = 0.0 if min(sides) < 0 else sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def detected(bottoms: list[Array], layer: LayerParameter) -> list[list[float]]:
    p = layer.yolov3_detection_output_param
    rows = []
    for item in range(len(bottoms[0])):
        found: list[tuple[float, int, list[float]]] = []
        for t, bottom in enumerate(bottoms):
            h, w = bottom.shape[2:]
            for i, j, a in np.ndindex(h, w, 2):
                v = [float(x) for x in bottom[item, a * 8 : a * 8 + 8, i, j]]
                mask = p.mask[t * 2 + a]
                scale = p.anchors_scale[t]
                box = [
                    (j + sigmoid(v[0])) / w,
                    (i + sigmoid(v[1])) / h,
                    math.exp(v[2]) * p.biases[2 * mask] / (w * scale),
                    math.exp(v[3]) * p.biases[2 * mask + 1] / (h * scale),
                ]
                for c in range(3):
                    score = sigmoid(v[4]) * sigmoid(v[5 + c])
                    if score > p.confidence_threshold:
                        found.append((score, c, box))
        found.sort(key=lambda one: -one[0])
        left: list[tuple[float, int, list[float]]] = []
        for one in found:
            if all(iou(better[2], one[2]) < p.nms_threshold for better in left):
                left.append(one)
        for score, c, (x, y, wide, high) in left:
            rows.append([item, c + 1, score, x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
    return rows


@pytest.mark.parametrize("n", [1, 2])
def test_yolo_v3_output_is_its_forks(n: int) -> None:
    bottoms = maps(n)
    made = make_layer(make(), bottoms)
    expected = detected(bottoms, make())
    assert made.shape == (1, 1, len(expected), 7)
    assert 3 < len(expected) < 48 * n
    np.testing.assert_allclose(made[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_yolo_v3_output_without_a_box_has_a_row_an_image() -> None:
    made = make_layer(make(PARAM.replace("threshold: 0.3", "threshold: 1")), maps(2))
    np.testing.assert_array_equal(made[0, 0], [[i, -1, -1, -1, -1, -1, -1] for i in range(2)])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("num_box: 2", "num_box: 3", "give a scale and num_box of mask for each map"),
        ("anchors_scale: 16", "", "give a scale and num_box of mask for each map"),
        ("mask: 3", "mask: 4", "give a pair for each mask"),
        ("num_classes: 3", "num_classes: 0", "num_classes is 0"),
        ("num_classes: 3", "num_classes: 3 gaussian_box: true", "gaussian_box is not converted"),
    ],
)
def test_yolo_v3_output_refuses(old: str, new: str, says: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        check_layer(make(PARAM.replace(old, new)))
    assert says in str(caught.value)


def test_yolo_v3_output_refuses_maps_of_other_channels() -> None:
    with pytest.raises(UnsupportedError, match="16 channels, 5 and one a class for each of 2 boxes, are needed"):
        make_layer(make(), [maps(1)[0], maps(1)[1][:, :8]])


V2 = """confidence_threshold: 0.2 nms_threshold: 0.3 num_classes: 3 num_box: 2
  biases: 1.1 biases: 1.3 biases: 2.5 biases: 3.5"""


def make_v2(param: str = V2, n_maps: int = 2) -> LayerParameter:
    maps_read = " ".join(f"bottom: 'm{i}'" for i in range(n_maps))
    text = f"name: 'd' type: 'YoloDetectionOutput' {maps_read} top: 'd'"
    return text_format.Parse(f"{text} yolo_detection_output_param {{ {param} }}", LayerParameter())


def test_yolo_v2_output() -> None:
    rng = np.random.default_rng(7)
    bottoms = [rng.standard_normal((2, 16, side, side)).astype(np.float32) for side in (3, 5)]
    wanted = []
    for item in range(2):
        found: list[tuple[float, int, list[float]]] = []
        for bottom in bottoms:
            side = bottom.shape[2]
            for i, j, a in np.ndindex(side, side, 2):
                v = [float(x) for x in bottom[item, a * 8 : a * 8 + 8, i, j]]
                size = [
                    math.exp(v[2 + k]) * make_v2().yolo_detection_output_param.biases[2 * a + k] / side for k in (0, 1)
                ]
                box = [(j + sigmoid(v[0])) / side, (i + sigmoid(v[1])) / side, *size]
                powers = [math.exp(x) for x in v[5:]]
                best = max(range(3), key=lambda c: powers[c])
                score = sigmoid(v[4]) * powers[best] / sum(powers)
                if score >= 0.2:
                    found.append((score, best, box))
        kept: list[tuple[float, int, list[float]]] = []
        for one in sorted(found, key=lambda one: -one[0]):
            if all(iou(better[2], one[2]) < np.float32(0.3) for better in kept):
                kept.append(one)
        for score, label, (x, y, w, h) in kept:
            wanted.append([item, label + 1, score, x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    made = make_layer(make_v2(), bottoms)
    assert len(wanted) > 6
    np.testing.assert_allclose(made[0, 0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (make_v2(V2 + " coords: 5"), "coords=5"),
        (make_v2(V2.replace("biases: 3.5", "")), "3 biases for 2 boxes"),
        (make_v2(n_maps=3), "3 maps are given"),
    ],
    ids=["coords", "biases", "maps"],
)
def test_check_layer_refuses_yolo_v2(wrong: LayerParameter, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        check_layer(wrong)


def test_yolo_v2_output_refuses_maps_that_are_not_square() -> None:
    with pytest.raises(UnsupportedError, match="it must be square"):
        make_layer(make_v2(n_maps=1), [np.zeros((1, 16, 3, 4), np.float32)])
