"""The scenes of digits and what an SSD learns from them, in NumPy, against the layers that decode it."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_net
from scripts.examples import digit_scenes
from scripts.examples.digit_scenes import SIDE, VARIANCES, Array, Labels, Priors, Scene
from scripts.examples.split import split_by_label
from tests.every import every
from tests.layers.harness import run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digit_scenes" / "digit_scenes.prototxt"
#: By the feature map that their boxes are read from.
EXAMPLE_PRIORS = {"conv4_pw": Priors(16, 11, 15), "conv6_pw": Priors(8, 18, 23), "conv7_pw": Priors(4, 26, 30)}


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    rng = np.random.default_rng(0)
    digits = np.zeros((20, 8, 8), np.uint8)
    digits[:, :, 2:6] = rng.integers(128, 256, (20, 8, 4))
    return digit_scenes.scenes(digits, np.arange(20) % 10, 40, seed=3)


def naive_overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_split_by_label_has_no_digit_in_both_and_equal_shares() -> None:
    labels = np.repeat(np.arange(10), 11).astype(np.int64)
    train, test = split_by_label(labels, 55, seed=1)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(110))
    assert set(np.bincount(labels[test]).tolist()) <= {5, 6}


def test_scenes_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    digits, labels = np.full((3, 8, 8), 255, np.uint8), np.arange(3)
    one, again, other = (digit_scenes.scenes(digits, labels, 3, seed) for seed in (1, 1, 2))
    assert [scene.image.tobytes() for scene in one] == [scene.image.tobytes() for scene in again]
    assert one[0].image.tobytes() != other[0].image.tobytes()


def test_compose_puts_digits_within_the_canvas_and_apart(some: list[Scene]) -> None:
    assert {2, 3, 4} <= {len(scene.labels) for scene in some} <= {2, 3, 4, 5}
    for scene in some:
        assert scene.image.shape == (1, SIDE, SIDE)
        assert scene.boxes.min() >= 0
        assert scene.boxes.max() <= 1
        boxes = scene.boxes.tolist()
        pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert every(naive_overlap(a, b) <= digit_scenes.MAX_OVERLAP + 1e-6 for a, b in pairs)


def test_compose_boxes_fit_the_ink(some: list[Scene]) -> None:
    for scene in some:
        inside = np.zeros((SIDE, SIDE), bool)
        for xmin, ymin, xmax, ymax in (scene.boxes * SIDE).round().astype(int).tolist():
            inside[ymin:ymax, xmin:xmax] = True
        assert scene.image[0][inside].mean() > scene.image[0][~inside].mean() + 40


def test_priors_boxes_are_those_of_prior_box() -> None:
    boxes = Priors(4, 26, 30).boxes() * SIDE
    assert boxes.shape == (4 * 4 * 3, 4)
    second_cell = boxes[3:6]  # of the first row: its centre is at (24, 8)
    assert (second_cell[:, :2] + second_cell[:, 2:]) / 2 == pytest.approx(np.tile([24, 8], (3, 1)))
    sizes = second_cell[:, 2:] - second_cell[:, :2]
    expected = [[26, 26], [780**0.5, 780**0.5], [26 * 0.6**0.5, 26 / 0.6**0.5]]
    assert sizes == pytest.approx(np.array(expected), rel=1e-5)


def test_priors_boxes_are_those_of_the_layers_of_the_example() -> None:
    """What the net learnt to correct is what DetectionOutput corrects, to the last bit but one."""
    net = read_net(EXAMPLE)
    param = {layer.name: text_format.MessageToString(layer.prior_box_param) for layer in net.layer}
    image = np.zeros((1, 1, SIDE, SIDE), np.float32)
    for head, layer in EXAMPLE_PRIORS.items():
        features = np.zeros((1, 1, layer.side, layer.side), np.float32)
        text = param[f"{head}_mbox_priorbox"]
        [found] = run(f'type: "PriorBox" prior_box_param {{ {text} }}', features, image)
        boxes, variances = found.reshape(2, -1, 4)
        np.testing.assert_allclose(layer.boxes(), boxes, rtol=0, atol=1e-7)
        assert np.unique(variances, axis=0).tolist() == [np.array(VARIANCES, np.float32).tolist()]


def test_overlaps_is_intersection_over_union() -> None:
    rng = np.random.default_rng(2)
    low, size = rng.uniform(0, 0.6, (2, 6, 2)), rng.uniform(0.1, 0.4, (2, 6, 2))
    a, b = np.concatenate([low, low + size], axis=2).astype(np.float32)
    expected = [[naive_overlap(x, y) for y in b.tolist()] for x in a.tolist()]
    assert digit_scenes.overlaps(a, b) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(
    "boxes, expected",
    [
        pytest.param([[0.0, 0.0, 0.4, 0.4]], [0, -1, -1], id="the same box"),
        pytest.param([[0.0, 0.0, 0.1, 0.1]], [0, -1, -1], id="a box without enough overlap still gets its best prior"),
        pytest.param([[0.6, 0.6, 1.0, 1.0], [0.5, 0.5, 0.9, 0.9]], [-1, 1, 0], id="no prior serves two boxes"),
        pytest.param([[0.55, 0.55, 0.95, 0.95]], [-1, 0, 0], id="every prior of overlap 0.5"),
    ],
)
def test_match_gives_each_box_its_best_prior_and_all_that_overlap(
    boxes: list[list[float]], expected: list[int]
) -> None:
    priors = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.6, 0.6, 1, 1]], np.float32)
    assert digit_scenes.match(priors, np.array(boxes, np.float32)).tolist() == expected


def stated_match(priors: Array, boxes: Array) -> list[int]:
    """MatchBBox of bbox_util.cpp with PER_PREDICTION and overlap 0.5, a pair at a time."""
    table = [[naive_overlap(prior, box) for box in boxes.tolist()] for prior in priors.tolist()]
    matched, left = [-1] * len(priors), set(range(len(boxes)))
    while left:
        free = [(table[i][j], -i, -j) for i in range(len(priors)) if matched[i] < 0 for j in sorted(left)]
        best, i, j = max(free)
        if best <= 1e-6:
            break
        matched[-i] = -j
        left.remove(-j)
    for i, row in enumerate(table):
        if matched[i] < 0 and max(row) >= 0.5:
            matched[i] = row.index(max(row))
    return matched


def test_match_is_that_of_caffe(some: list[Scene]) -> None:
    priors = digit_scenes.all_priors(tuple(EXAMPLE_PRIORS.values()))
    for scene in some[:10]:
        assert digit_scenes.match(priors, scene.boxes).tolist() == stated_match(priors, scene.boxes)


def decoded(priors: Array, code: Array) -> Array:
    """CENTER_SIZE, as Caffe's bbox_util.cpp has it, a box at a time."""
    out = []
    for prior, (x, y, w, h) in zip(priors.tolist(), (code * np.array(VARIANCES)).tolist(), strict=True):
        width, height = prior[2] - prior[0], prior[3] - prior[1]
        cx, cy = (prior[0] + prior[2]) / 2 + x * width, (prior[1] + prior[3]) / 2 + y * height
        w, h = np.exp(w) * width, np.exp(h) * height
        out.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    return np.array(out, np.float32)


def test_targets_decode_to_the_boxes_of_the_scene(some: list[Scene]) -> None:
    priors = digit_scenes.all_priors(tuple(EXAMPLE_PRIORS.values()))
    for scene in some:
        code, classes = digit_scenes.targets(priors, scene)
        found: Labels = np.flatnonzero(classes)
        boxes = decoded(priors[found], code[found])
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            near = np.abs(boxes - box).max(1) < 1e-5
            assert near.any()
            assert set(classes[found][near].tolist()) == {label}


def test_annotated_holds_image_boxes_and_labels(some: list[Scene]) -> None:
    scene = some[0]
    record = caffe_pb2.AnnotatedDatum.FromString(digit_scenes.annotated(scene).SerializeToString())
    assert record.datum.data == scene.image.tobytes()
    told = {
        (group.group_label, *(getattr(one.bbox, side) for side in ("xmin", "ymin", "xmax", "ymax")))
        for group in record.annotation_group
        for one in group.annotation
    }
    assert told == {(int(k), *map(float, box)) for k, box in zip(scene.labels, scene.boxes, strict=True)}
