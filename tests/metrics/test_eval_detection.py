"""EvalDetection against a statement of Intel Caffe's loops, one box at a time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics import Detections, check_layer, check_shapes, merged, score_layer
from distcalib.metrics.eval_detection import decoded, eval_detection

Array = npt.NDArray[Any]
f = np.float32
BIASES = [1.32, 1.73, 3.19, 4.01, 5.06, 8.1, 9.47, 4.84, 11.24, 10.01]
N_ITEMS = 4


def layer(side: int = 4, n_classes: int = 3, text: str = "nms: 0.45") -> LayerParameter:
    proto = LayerParameter(name="eval", type="EvalDetection", bottom=["map", "label", "data"], top=["found"])
    fields = f"side: {side} num_class: {n_classes} num_object: 5 " + " ".join(f"biases: {b}" for b in BIASES)
    return text_format.Parse(f"eval_detection_param {{ {fields} {text} }}", proto)


def inputs(side: int, n_classes: int, seed: int) -> tuple[Array, Array]:
    """A map of few distinct values, so that scores are often equal, and objects, most of them where a box is.

    Item 1 has no objects, item 2 two classes of them; a row of -1 stands in between.
    """
    rng = np.random.default_rng(seed)
    maps = np.round(4 * rng.standard_normal((N_ITEMS, 5, 5 + n_classes, side, side))) / 2
    maps[:, :, 2:4] = np.clip(maps[:, :, 2:4], -3, 0)
    maps = maps.reshape(N_ITEMS, -1, side, side).astype(f)
    boxes, classes, scores = decoded(layer(side, n_classes).eval_detection_param, maps)
    rows = []
    for item in (0, 2, 3):
        likely = np.argsort(-scores[item])[: 3 * side : 2].tolist()
        for k in [*likely, int(rng.integers(len(scores[item])))]:
            x, y, w, h = (boxes[item, k] + 0.02 * rng.standard_normal(4)).tolist()
            label = classes[item, k] if item != 2 else min(classes[item, k], 2)
            rows.append([item, label, 0, x - w / 2, y - h / 2, x + w / 2, y + h / 2, rng.random() < 0.3])
    rows.insert(3, [-1] * 8)
    return maps, np.array(rows, f)[None, None]


def stated_iou(a: list[Any], b: list[Any]) -> Any:
    """Calc_iou of region_loss_layer.cpp."""
    sides = []
    for k in (0, 1):
        low = max(a[k] - a[k + 2] / f(2), b[k] - b[k + 2] / f(2))
        high = min(a[k] + a[k + 2] / f(2), b[k] + b[k + 2] / f(2))
        sides.append(high - low)
    if sides[0] < 0 or sides[1] < 0:
        return f(0)
    inside = sides[0] * sides[1]
    return inside / (a[2] * a[3] + b[2] * b[3] - inside)


def sigmoid(x: Any) -> Any:
    return f(1.0 / (1.0 + math.exp(-float(x))))


def stated_boxes(proto: LayerParameter, image: Array) -> list[tuple[int, Any, list[Any]]]:
    """Class from 0, score and box of each anchor of each cell (GetPredBox)."""
    p = proto.eval_detection_param
    side, n_classes = p.side, p.num_class
    made = []
    for j in range(side):
        for i in range(side):
            for n in range(5):
                values = image[n * (5 + n_classes) : (n + 1) * (5 + n_classes), j, i]
                box = [(f(i) + sigmoid(values[0])) / f(side), (f(j) + sigmoid(values[1])) / f(side)]
                box += [f(math.exp(values[2 + k])) * f(p.biases[2 * n + k]) / f(side) for k in (0, 1)]
                large, total, powers = max(values[5:]), f(0), []
                for value in values[5:]:
                    powers.append(f(math.exp(value - large)))
                    total = total + powers[-1]
                best, label = powers[0] / total, 0
                for c in range(n_classes):
                    if powers[c] / total > best:
                        best, label = powers[c] / total, c
                objectness = sigmoid(values[4])
                made.append((label, [objectness, best, objectness * best][p.score_type], box))
    return made


def stated(proto: LayerParameter, maps: Array, labels: Array) -> tuple[list[list[Any]], dict[int, int]]:
    """Rows (item, class, score, tp, fp) and the number of objects of each class, as Forward_cpu fills them."""
    p = proto.eval_detection_param
    rows, n_objects = [], dict.fromkeys(range(p.num_class), 0)
    for item, image in enumerate(maps):
        objects: dict[int, list[list[Any]]] = {}
        for row in labels.reshape(-1, 8):
            if int(row[0]) == item:
                box = [(row[3] + row[5]) / f(2), (row[4] + row[6]) / f(2), row[5] - row[3], row[6] - row[4]]
                objects.setdefault(int(row[1]) - 1, []).append(box)
                n_objects[int(row[1]) - 1] += 1
        ranked = sorted(stated_boxes(proto, image), key=lambda made: -made[1])
        gone: set[int] = set()
        for a in range(len(ranked)):
            if a not in gone:
                gone |= {b for b in range(a + 1, len(ranked)) if stated_iou(ranked[a][2], ranked[b][2]) >= f(p.nms)}
        left = [made for b, made in enumerate(ranked) if b not in gone and float(made[1]) >= 0.005]
        taken: set[tuple[int, int]] = set()
        for label, score, box in left:
            if label not in objects:
                rows.append([item, label, score, 0, 1])
                continue
            largest, nearest = f(-1), -1
            for k, other in enumerate(objects[label]):
                if stated_iou(box, other) > largest:
                    largest, nearest = stated_iou(box, other), k
            if largest >= f(p.threshold):
                is_new = (label, nearest) not in taken
                taken.add((label, nearest))
                rows.append([item, label, score, int(is_new), int(not is_new)])
            else:
                rows.append([item, label, score, 0, 0])
    return rows, n_objects


def stated_map(rows: list[list[Any]], n_objects: dict[int, int]) -> float:
    """tools/test_detection.cpp: rows sorted by score, 11 points, the sum over num_class."""
    total = 0.0
    for label, n in n_objects.items():
        own = sorted((row for row in rows if row[1] == label), key=lambda row: -row[2])
        if not n or not own:
            continue
        tp, fp, tops = 0, 0, [0.0] * 11
        for row in own:
            tp, fp = tp + row[3], fp + row[4]
            if tp + fp:  # else it is 0 / 0, which is never the most precise
                for j in range(11):
                    if float(f(tp) / f(n)) >= j / 10.0:
                        tops[j] = max(tops[j], float(f(tp) / f(tp + fp)))
        total += sum(tops) / 11
    return total / len(n_objects)


TEXTS = [
    "nms: 0.45",
    "nms: 0.45 score_type: OBJ",
    "nms: 0.3 score_type: PROB",
    "nms: 0.7 threshold: 0.3",
    "nms: 0.5 threshold: 0.8",
    "nms: 0",
    "nms: 1",
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("text", TEXTS)
def test_eval_detection_is_what_intel_caffe_states(text: str, seed: int) -> None:
    proto = layer(text=text)
    maps, labels = inputs(4, 3, seed)
    made = eval_detection(proto, maps, labels)
    rows, n_objects = stated(proto, maps, labels)
    counted = [row for row in rows if row[3] or row[4]]
    assert made.labels.tolist() == [row[1] + 1 for row in counted]
    assert made.scores.tolist() == [row[2] for row in counted]
    assert made.hits.tolist() == [bool(row[3]) for row in counted]
    assert dict(made.positives) == {label + 1: n for label, n in n_objects.items()}
    assert (sorted(made.positives), made.labels.dtype.name, made.scores.dtype.name) == ([1, 2, 3], "int32", "float32")
    assert made.value == pytest.approx(stated_map(rows, n_objects), abs=1e-6)
    if text != "nms: 0":
        assert len(counted) < len(rows), "some count as nothing"
        assert len({row[2] for row in counted}) < len(counted), "some are equal"
        assert 0 < made.hits.sum() < len(made.hits)


@pytest.mark.parametrize("seed", range(3))
def test_eval_detection_of_iterations_merges_to_what_test_detection_prints(seed: int) -> None:
    proto = layer()
    batches = [inputs(4, 3, 100 * seed + i) for i in range(5)]
    rows: list[list[Any]] = []
    n_objects = dict.fromkeys(range(3), 0)
    for maps, labels in batches:
        more, counts = stated(proto, maps, labels)
        rows += more
        n_objects = {label: n + counts[label] for label, n in n_objects.items()}
    parts = [score_layer(proto, [maps, labels, maps], ()) for maps, labels in batches]
    assert merged(parts) == pytest.approx(stated_map(rows, n_objects), abs=1e-6)
    assert merged(parts) > 0


@pytest.mark.parametrize("seed", range(3))
def test_eval_detection_of_images_is_that_of_the_batch(seed: int) -> None:
    maps, labels = inputs(4, 3, seed)
    whole = eval_detection(layer(), maps, labels)
    alone = []
    for item in range(N_ITEMS):
        own = labels[0, 0][labels[0, 0, :, 0] == item].copy()
        own[:, 0] = 0
        alone.append(eval_detection(layer(), maps[item : item + 1], own if len(own) else np.full((1, 8), -1, f)))
    assert np.concatenate([part.scores for part in alone]).tolist() == whole.scores.tolist()
    assert merged(alone) == whole.value


def one_cell(*anchors: Sequence[float]) -> Array:
    """A map (1, 5·7, 1, 1) of one cell and two classes; anchors that are not given have no objectness."""
    values = np.full((5, 7), -50.0, f)
    values[: len(anchors)] = np.reshape(anchors, (-1, 7))
    return values.reshape(1, 35, 1, 1)


def in_cell(*anchors: Sequence[float], labels: Sequence[Sequence[float]], text: str = "nms: 0.45") -> Detections:
    proto = layer(1, 2, text)
    proto.eval_detection_param.biases[:] = [0.5] * 10
    return eval_detection(proto, one_cell(*anchors), np.array(labels, f).reshape(1, 1, -1, 8))


MIDDLE = [0.25, 0.25, 0.75, 0.75]
FIRST, SECOND = [0, 0, 0, 0, 3, 2, 0], [0, 0, 0, 0, 2, 0, 2]
FAR = [5, 5, -2, -2, 1, 0, 2]


@pytest.mark.parametrize(
    ("anchors", "labels", "found"),
    [
        ([FIRST], [[0, 1, 0, *MIDDLE, 0]], [(1, True)]),
        ([FIRST], [[0, 1, 0, *MIDDLE, 1]], [(1, True)]),  # a difficult object is one like others
        ([FIRST], [[-1] * 8], [(1, False)]),
        ([FIRST], [[-1] * 8, [0, 1, 0, *MIDDLE, 0]], [(1, True)]),  # a row of -1 is no end
        ([FIRST], [[0, 2, 0, *MIDDLE, 0]], [(1, False)]),
        ([FIRST], [[0, 1, 0, 0, 0, 0.1, 0.1, 0]], []),  # near none of its class, which is there: nothing
        ([FIRST, SECOND], [[0, 2, 0, *MIDDLE, 0]], [(1, False)]),  # suppressed by another class
        ([FIRST, FAR], [[0, 1, 0, *MIDDLE, 0]], [(1, True), (2, False)]),
        ([[0, 0, 0, 0, np.nan, 2, 0]], [[0, 1, 0, *MIDDLE, 0]], []),
        ([[0, 0, 0, 0, 3, np.nan, 0]], [[0, 1, 0, *MIDDLE, 0]], []),
        ([[0, 0, 999, 999, 3, 2, 0]], [[-1] * 8], [(1, False)]),  # without end
        ([[0, 0, 0, 0, 3, 1, 1]], [[0, 1, 0, *MIDDLE, 0]], [(1, True)]),  # the first of equals
        ([], [[0, 1, 0, *MIDDLE, 0]], []),
    ],
    ids=[
        *("hit", "difficult", "no_object", "no_end", "class", "near", "nms"),
        *("two", "nan", "nan_class", "endless", "equal", "nothing"),
    ],
)
def test_eval_detection_of_one_cell(
    anchors: list[list[float]], labels: list[list[float]], found: list[tuple[int, bool]]
) -> None:
    made = in_cell(*anchors, labels=labels)
    assert list(zip(made.labels.tolist(), made.hits.tolist(), strict=True)) == found
    assert made.denominator == 1


def test_eval_detection_drops_what_overlaps_by_just_nms() -> None:
    # Equal boxes overlap by 1, and by half where one is twice as high; both are exact.
    twice = [0, 0, 0, math.log(2), 1, 0, 2]
    for nms, n_left in ((1.0, 2), (0.51, 2), (0.5, 1), (0.4, 1)):
        made = in_cell(FIRST, twice, labels=[[-1] * 8], text=f"nms: {nms}")
        assert len(made.labels) == n_left
    assert len(in_cell(FIRST, SECOND, labels=[[-1] * 8], text="nms: 1").labels) == 1


def test_eval_detection_drops_scores_below_five_thousandths_in_float64() -> None:
    logit = math.log(0.005 / 0.995)
    for change, n_left in ((1e-5, 1), (-1e-5, 0)):
        box = [0, 0, 0, 0, logit + change, 0, -90]
        assert len(in_cell(box, labels=[[-1] * 8], text="nms: 0.45 score_type: OBJ").labels) == n_left


def test_the_mean_is_over_all_classes_and_the_second_of_two_hits_is_false() -> None:
    twin = [0, 0, math.log(1.4), 0, 2, 2, 0]
    made = in_cell(FIRST, twin, labels=[[0, 1, 0, *MIDDLE, 0]], text="nms: 0.9")
    assert made.hits.tolist() == [True, False]
    assert made.value == 0.5  # an AP of 1, and of the other class, which has no object, 0


@pytest.mark.parametrize("label", [0.0, 3.0, -2.0, np.nan])
def test_eval_detection_refuses_labels_that_are_no_class(label: float) -> None:
    with pytest.raises(DataError, match=r"layer 'eval' \(EvalDetection\): 1 of 2 objects have a label outside 1 to 2"):
        in_cell(labels=[[0, 1, 0, *MIDDLE, 0], [0, label, 0, *MIDDLE, 0]])


def test_eval_detection_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(UnsupportedError, match=r"its labels have the shape \(1, 1, 1, 1\); rows of 8"):
        eval_detection(layer(), np.zeros((1, 40, 4, 4), f), np.zeros((1, 1, 1, 1), f))
    said = r"its map has 40×4×5 values an image; num_object=5, num_class=3 and side=4 need 40×4×4"
    with pytest.raises(UnsupportedError, match=said):
        eval_detection(layer(), np.zeros((1, 40, 4, 5), f), np.zeros((1, 1, 1, 8), f))
    with pytest.raises(UnsupportedError, match=said):
        check_shapes(layer(), [(1, 40, 4, 5)])
    check_shapes(layer(), [(7, 40, 4, 4)])
    check_shapes(LayerParameter(type="Accuracy"), [(7,)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("side: 0", "side=0 and num_class=3; both must be at least 1"),
        ("num_class: 0", "side=4 and num_class=0; both must be at least 1"),
        ("num_object: 3", "num_object=3; Intel Caffe looks at 5 boxes a cell, whatever it is"),
        ("biases: 1", "has 11 biases; 10 are needed, width and height of each box of a cell"),
        ("nms: -1", "nms=-1, with which Intel Caffe detects nothing; give it, such as 0.45"),
        ("nms: nan", "nms=nan, with which Intel Caffe detects nothing; give it, such as 0.45"),
        ("threshold: 0", "threshold=0; it must be above 0"),
        ("threshold: nan", "threshold=nan; it must be above 0"),
    ],
)
def test_check_layer_refuses_an_eval_detection(change: str, said: str) -> None:
    proto = layer()
    text_format.Merge(f"eval_detection_param {{ {change} }}", proto)
    with pytest.raises(UnsupportedError) as caught:
        check_layer(proto)
    assert str(caught.value) == f"layer 'eval' (EvalDetection): {said}"


@pytest.mark.parametrize("part", ["top", "bottom"])
def test_check_layer_refuses_an_eval_detection_without(part: str) -> None:
    proto = layer()
    proto.ClearField(part)
    with pytest.raises(UnsupportedError, match="it takes a map, labels and, unread, the data, and makes one top"):
        check_layer(proto)


def test_an_eval_detection_without_nms_is_refused_as_it_detects_nothing() -> None:
    with pytest.raises(UnsupportedError, match="nms=-1"):
        check_layer(layer(text=""))
