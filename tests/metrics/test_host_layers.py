"""Accuracy and losses against Caffe's loops, one label at a time."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics import HOST_TYPES, LOSS_TYPES, Partial, check_layer, evaluate_layer, score_layer

Array = npt.NDArray[Any]


def make(text: str) -> LayerParameter:
    layer = text_format.Parse(text, LayerParameter())
    layer.name = "score"
    return layer


def rows_of(scores: Array, labels: Array, axis: int) -> list[tuple[list[float], int]]:
    """Each position's class scores and label, in Caffe's order: outer axes, then inner ones."""
    axis %= scores.ndim
    outer, inner = math.prod(scores.shape[:axis]), math.prod(scores.shape[axis + 1 :])
    flat = scores.reshape(outer, scores.shape[axis], inner)
    return [
        ([float(v) for v in flat[i, :, j]], int(labels.ravel()[i * inner + j]))
        for i in range(outer)
        for j in range(inner)
    ]


def accuracy(scores: Array, labels: Array, top_k: int = 1, axis: int = 1, ignore: int | None = None) -> float:
    hits, count = 0, 0
    for values, label in rows_of(scores, labels, axis):
        if label != ignore:
            pairs = sorted(((v, i) for i, v in enumerate(values)), reverse=True)
            hits += label in [i for _, i in pairs[:top_k]]
            count += 1
    return hits / count


def loss_sum(scores: Array, labels: Array, axis: int = 1, ignore: int | None = None) -> float:
    total = 0.0
    for values, label in rows_of(scores, labels, axis):
        if label != ignore:
            weights = [math.exp(v - max(values)) for v in values]
            total -= math.log(max(weights[label] / sum(weights), 1.1754943508222875e-38))
    return total


def batch(*shape: int, n_classes: int = 5, seed: int = 0) -> tuple[Array, Array]:
    """Scores of few distinct values, so that ties abound, and labels: f32 as the engine gives them."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal((shape[0], n_classes, *shape[1:])) * 2).astype(np.float32)
    return scores, rng.integers(0, n_classes, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(40,), (6, 3), (4, 3, 5)], ids=str)
@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("ignore", [None, 3, 255])
def test_accuracy_counts_as_caffe(shape: tuple[int, ...], top_k: int, ignore: int | None) -> None:
    scores, labels = batch(*shape)
    if ignore == 255:
        labels[0] = 255
    fields = f"top_k: {top_k}" + ("" if ignore is None else f" ignore_label: {ignore}")
    partial = evaluate_layer(make(f'type: "Accuracy" accuracy_param {{ {fields} }}'), [scores, labels])
    assert isinstance(partial.numerator, int)
    assert partial.value == accuracy(scores, labels, top_k, ignore=ignore)


@pytest.mark.parametrize("axis", [-1, 2, 0])
def test_accuracy_takes_classes_along_an_axis(axis: int) -> None:
    scores = batch(4, 3, 5)[0]
    labels = (
        np.random.default_rng(1).integers(0, scores.shape[axis], scores.size // scores.shape[axis]).astype(np.float32)
    )
    partial = evaluate_layer(make(f'type: "Accuracy" accuracy_param {{ axis: {axis} }}'), [scores, labels])
    assert partial.value == accuracy(scores, labels, axis=axis)


@pytest.mark.parametrize(
    ("label", "top_k", "hit"), [(1, 1, False), (3, 1, True), (1, 2, False), (2, 2, True), (1, 3, True), (0, 3, False)]
)
def test_accuracy_gives_a_tie_to_the_larger_class(label: int, top_k: int, hit: bool) -> None:
    scores = np.array([[0.5, 1.0, 1.0, 1.0, -1.0]], np.float32)
    layer = make(f'type: "Accuracy" accuracy_param {{ top_k: {top_k} }}')
    assert evaluate_layer(layer, [scores, np.array([label], np.float32)]).value == hit


def test_accuracy_gives_nothing_to_a_net_that_overflowed() -> None:
    scores = np.full((4, 3), np.nan, np.float32)
    assert evaluate_layer(make('type: "Accuracy"'), [scores, np.zeros(4, np.float32)]).value == 0
    scores[:, 0] = 1.0
    assert evaluate_layer(make('type: "Accuracy"'), [scores, np.zeros(4, np.float32)]).value == 0


def test_accuracy_of_no_labels_is_zero() -> None:
    layer = make('type: "Accuracy" accuracy_param { ignore_label: 7 }')
    partial = evaluate_layer(layer, [np.ones((2, 3), np.float32), np.full(2, 7.0, np.float32)])
    assert (partial.numerator, partial.denominator, partial.value) == (0, 0, 0.0)


def test_accuracy_takes_labels_with_trailing_axes() -> None:
    scores, labels = batch(8)
    layer = make('type: "Accuracy"')
    assert evaluate_layer(layer, [scores, labels.reshape(8, 1, 1, 1)]) == evaluate_layer(layer, [scores, labels])


NORMALIZERS = {
    "default_is_valid": ("", 24, 18),
    "valid": ("normalization: VALID", 24, 18),
    "full": ("normalization: FULL", 24, 24),
    "batch_size": ("normalization: BATCH_SIZE", 4, 4),
    "none": ("normalization: NONE", 1, 1),
    "pre_fixed": ("normalization: PRE_FIXED pre_fixed_normalizer: 2.5", 2.5, 2.5),
    "pre_fixed_below_one": ("normalization: PRE_FIXED pre_fixed_normalizer: 0.5", 1, 1),
    "legacy_true": ("normalize: true", 24, 18),
    "legacy_false": ("normalize: false", 4, 4),
    "legacy_gives_way": ("normalize: false normalization: FULL", 24, 24),
}
"""name: (fields, normalizer of 4 x 6 labels, normalizer if 6 of them are ignored)"""


@pytest.mark.parametrize("ignoring", [False, True], ids=["all", "ignoring"])
@pytest.mark.parametrize("case", NORMALIZERS)
def test_softmax_loss_divides_by_its_normalizer(case: str, ignoring: bool) -> None:
    fields, *normalizers = NORMALIZERS[case]
    scores, labels = batch(4, 6)
    if ignoring:
        labels[2] = 255
        fields += " ignore_label: 255"
    partial = evaluate_layer(make(f'type: "SoftmaxWithLoss" loss_param {{ {fields} }}'), [scores, labels])
    expected = loss_sum(scores, labels, ignore=255) / normalizers[ignoring]
    assert partial.value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("top_k", [1, 2])
def test_accuracy_with_a_second_top_counts_each_class(top_k: int) -> None:
    scores, labels = batch(4, 6)
    labels[2, :3] = 255
    layer = make(f'type: "Accuracy" top: "a" top: "each" accuracy_param {{ top_k: {top_k} ignore_label: 255 }}')
    counts = [[0, 0] for _ in range(5)]
    for values, label in rows_of(scores, labels, 1):
        if label != 255:
            first = sorted(((v, i) for i, v in enumerate(values)), reverse=True)[:top_k]
            counts[label][0] += 1
            counts[label][1] += label in [i for _, i in first]
    found = evaluate_layer(layer, [scores, labels])
    assert found.by_class == tuple(map(tuple, counts))
    assert sum(n for n, _ in found.by_class) == found.denominator
    assert evaluate_layer(make('type: "Accuracy" top: "a"'), list(batch(4))).by_class == ()


def test_softmax_loss_weighs_classes_as_segnet_does() -> None:
    scores, labels = batch(4, 6)
    labels[2, :3] = 255
    weights = [0.5, 2.0, 1.0, 0.25, 3.0]
    fields = " ".join(f"class_weighting: {weight}" for weight in weights) + " ignore_label: 255"
    total = 0.0
    for values, label in rows_of(scores, labels, 1):
        if label != 255:
            exponentials = [math.exp(v - max(values)) for v in values]
            total -= weights[label] * math.log(exponentials[label] / sum(exponentials))
    layer = make(f'type: "SoftmaxWithLoss" loss_param {{ weight_by_label_freqs: true {fields} }}')
    assert evaluate_layer(layer, [scores, labels]).value == pytest.approx(total / 21, rel=1e-9)
    plain = make(f'type: "SoftmaxWithLoss" loss_param {{ {fields} }}')
    assert evaluate_layer(plain, [scores, labels]).value == pytest.approx(loss_sum(scores, labels, ignore=255) / 21)
    few = make(
        'type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true class_weighting: 1 ignore_label: 255 }'
    )
    with pytest.raises(UnsupportedError, match="with 1 class_weighting; 5 are needed, one a class"):
        evaluate_layer(few, [scores, labels])


def test_softmax_loss_takes_classes_along_an_axis() -> None:
    scores, labels = batch(4, 6)
    layer = make('type: "SoftmaxWithLoss" softmax_param { axis: -1 }')
    moved = np.moveaxis(scores, 1, -1)
    assert evaluate_layer(layer, [moved, labels]).value == pytest.approx(loss_sum(scores, labels) / 24, rel=1e-12)


def test_softmax_loss_has_a_least_probability() -> None:
    scores = np.array([[0.0, 1000.0]], np.float32)
    value = evaluate_layer(make('type: "SoftmaxWithLoss"'), [scores, np.zeros(1, np.float32)]).value
    assert value == pytest.approx(87.33654475, rel=1e-9)


def test_softmax_loss_of_no_labels_is_zero() -> None:
    layer = make('type: "SoftmaxWithLoss" loss_param { ignore_label: 1 }')
    assert evaluate_layer(layer, [np.ones((2, 3), np.float32), np.ones(2, np.float32)]).value == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_loss_shows_a_net_that_overflowed(bad: float) -> None:
    scores = np.array([[bad, 1.0]], np.float32)
    assert math.isnan(evaluate_layer(make('type: "SoftmaxWithLoss"'), [scores, np.zeros(1, np.float32)]).value)


def test_euclidean_loss_halves_the_mean_square() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4, 3, 2)).astype(np.float32)
    partial = evaluate_layer(make('type: "EuclideanLoss"'), [x, y.reshape(4, 6)])
    assert partial.value == pytest.approx(
        sum((float(a) - float(b)) ** 2 for a, b in zip(x.flat, y.flat, strict=True)) / 8
    )


def test_loss_weight_is_not_applied() -> None:
    scores, labels = batch(4)
    plain, weighted = make('type: "SoftmaxWithLoss"'), make('type: "SoftmaxWithLoss" loss_weight: 0.3')
    assert evaluate_layer(plain, [scores, labels]) == evaluate_layer(weighted, [scores, labels])


@pytest.mark.parametrize("kind", ["Accuracy", "SoftmaxWithLoss"])
@pytest.mark.parametrize("label", [-1.0, 5.0, 1000.0, math.nan])
def test_labels_outside_the_classes_are_an_error_of_the_data(kind: str, label: float) -> None:
    scores, labels = batch(4)
    labels[1] = label
    with pytest.raises(DataError, match=rf"^layer 'score' \({kind}\): 1 of 4 labels lie outside the classes 0 to 4"):
        evaluate_layer(make(f'type: "{kind}"'), [scores, labels])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            'type: "Accuracy" top: "a" top: "each" top: "c"', "its third top is not evaluated; remove 'c'", id="tops"
        ),
        pytest.param('type: "HingeLoss" top: "l" top: "p"', "its second top is not evaluated; remove 'p'", id="hinge"),
        pytest.param('type: "Accuracy" accuracy_param { top_k: 0 }', "top_k=0; it must be at least 1", id="top_0"),
        pytest.param('type: "Accuracy" accuracy_param { top_k: 6 }', "top_k=6 of 5 classes", id="top_k"),
        pytest.param('type: "Accuracy" accuracy_param { axis: 2 }', "axis=2 of predictions with 2 axes", id="axis"),
        pytest.param(
            'type: "Accuracy" accuracy_param { axis: 0 }', "4 labels for predictions of shape (4, 5)", id="labels"
        ),
        pytest.param('type: "EuclideanLoss"', "its bottoms have shapes (4, 5) and (4,)", id="euclidean"),
        pytest.param(
            'type: "SoftmaxWithLoss" loss_param { label_smoothing: 0.1 }', "label_smoothing=0.1 is not", id="smoothing"
        ),
        pytest.param(
            'type: "CenterLoss"',
            "is not a layer with a score; Accuracy, ContrastiveLoss, DetectionEvaluate",
            id="type",
        ),
    ],
)
def test_evaluate_layer_refuses(text: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=r"^layer 'score' \(") as caught:
        evaluate_layer(make(text), list(batch(4)))
    assert says in str(caught.value)


def test_evaluate_layer_takes_two_bottoms() -> None:
    with pytest.raises(UnsupportedError, match="1 bottoms are given; it takes predictions and labels"):
        evaluate_layer(make('type: "Accuracy"'), [np.ones((2, 3), np.float32)])


def test_check_layer_accepts_every_host_type() -> None:
    assert LOSS_TYPES < HOST_TYPES
    needs = {
        "DetectionOutput": 'bottom: ["a", "b", "c"] detection_output_param { num_classes: 2 }',
        "DetectionEvaluate": 'bottom: ["a", "b"] detection_evaluate_param { num_classes: 2 }',
        "EvalDetection": 'bottom: ["a", "b", "c"] eval_detection_param { num_object: 5 nms: 0.5 biases: '
        + f"{[1.0] * 10} }}",
        "YoloDetectionOutput": f'bottom: "a" yolo_detection_output_param {{ biases: {[1.0] * 10} }}',
        "Yolov3DetectionOutput": 'bottom: "a" yolov3_detection_output_param '
        "{ num_box: 1 mask_group_num: 1 mask: 0 anchors_scale: 32 biases: [10, 13] }",
    }
    for kind in HOST_TYPES:
        check_layer(make(f'type: "{kind}" top: "y" {needs.get(kind, "")}'))


@pytest.mark.parametrize(("norm", "power"), [("", 1), ("norm: L1", 1), ("norm: L2", 2)])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2)], ids=str)
def test_hinge_loss_is_caffes(norm: str, power: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(shape).astype(np.float32)
    labels = rng.integers(0, math.prod(shape[1:]), shape[0]).astype(np.float32)
    total = 0.0
    for row, label in zip(scores.reshape(shape[0], -1), labels, strict=True):
        for j, value in enumerate(row):
            total += max(0.0, 1.0 + float(-value if j == label else value)) ** power
    partial = evaluate_layer(make(f'type: "HingeLoss" hinge_loss_param {{ {norm} }}'), [scores, labels])
    assert partial.denominator == shape[0]
    assert partial.value == pytest.approx(total / shape[0], rel=1e-12)


def test_multinomial_logistic_loss_is_caffes() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((6, 5, 1, 1)).astype(np.float32)
    labels = rng.integers(0, 5, 6).astype(np.float32)
    probabilities[2, int(labels[2])] = 0.0
    total = sum(
        -math.log(max(float(row[int(label), 0, 0]), 1e-20)) for row, label in zip(probabilities, labels, strict=True)
    )
    partial = evaluate_layer(make('type: "MultinomialLogisticLoss"'), [probabilities, labels])
    assert partial.value == pytest.approx(total / 6, rel=1e-9)


@pytest.mark.parametrize(
    ("fields", "divisor"),
    [
        pytest.param("", 6, id="default_batch_size"),
        pytest.param("normalization: FULL", 30, id="full"),
        pytest.param("normalization: VALID", 30, id="valid"),
        pytest.param("normalization: VALID ignore_label: 1", None, id="valid_ignored"),
        pytest.param("ignore_label: 1", 6, id="ignored"),
        pytest.param("normalization: BATCH_SIZE", 6, id="batch_size"),
        pytest.param("normalization: NONE", 1, id="none"),
        pytest.param("normalize: true", 30, id="normalize"),
        pytest.param("normalize: false", 6, id="not_normalize"),
    ],
)
def test_sigmoid_cross_entropy_loss_is_caffes(fields: str, divisor: int | None) -> None:
    rng = np.random.default_rng(0)
    x = (5 * rng.standard_normal((6, 5))).astype(np.float32)
    targets = rng.choice([0.0, 0.25, 1.0], (6, 5)).astype(np.float32)
    total, n_valid = 0.0, 0
    for value, target in zip(x.ravel().tolist(), targets.ravel().tolist(), strict=True):
        if "ignore_label: 1" in fields and int(target) == 1:
            continue
        sigmoid = 1.0 / (1.0 + math.exp(-value))
        total -= target * math.log(sigmoid) + (1.0 - target) * math.log(1.0 - sigmoid)
        n_valid += 1
    layer = make(f'type: "SigmoidCrossEntropyLoss" loss_param {{ {fields} }}')
    assert evaluate_layer(layer, [x, targets]).value == pytest.approx(total / (divisor or n_valid), rel=1e-9)


def test_sigmoid_cross_entropy_loss_stays_finite_for_large_scores() -> None:
    x, targets = np.array([[1000.0, -1000.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    assert evaluate_layer(make('type: "SigmoidCrossEntropyLoss"'), [x, targets]).value == 2000.0


@pytest.mark.parametrize("kind", ["HingeLoss", "MultinomialLogisticLoss"])
def test_losses_of_classes_refuse_labels_that_are_none(kind: str) -> None:
    scores = np.ones((3, 2), np.float32)
    with pytest.raises(DataError, match=r"1 of 3 labels lie outside the classes 0 to 1 \(such as 2\)"):
        evaluate_layer(make(f'type: "{kind}"'), [scores, np.array([0, 1, 2], np.float32)])
    with pytest.raises(UnsupportedError, match="2 labels for predictions"):
        evaluate_layer(make(f'type: "{kind}"'), [scores, np.zeros(2, np.float32)])


def test_sigmoid_cross_entropy_loss_refuses_targets_of_another_number() -> None:
    with pytest.raises(UnsupportedError, match=r"shapes \(3, 2\) and \(3,\); they must have as many elements"):
        evaluate_layer(make('type: "SigmoidCrossEntropyLoss"'), [np.ones((3, 2)), np.ones(3)])


@pytest.mark.parametrize("normalization", ["", "FULL", "VALID", "BATCH_SIZE", "NONE", "PRE_FIXED"])
@pytest.mark.parametrize(
    "kind", sorted((LOSS_TYPES | {"Accuracy"}) - {"ContrastiveLoss", "InfogainLoss", "SmoothL1Loss"})
)
def test_only_a_sum_is_scaled_to_the_batch_that_records_are_missing_in(kind: str, normalization: str) -> None:
    """With 3 records of 4: SoftmaxWithLoss and SigmoidCrossEntropyLoss alone can be sums."""
    scores, labels = batch(3)
    if kind in ("EuclideanLoss", "SigmoidCrossEntropyLoss"):
        labels = (np.abs(scores) < 1).astype(np.float32)
    said = f"loss_param {{ normalization: {normalization} }}" if normalization else ""
    layer = make(f'type: "{kind}" {said}')
    whole, part = evaluate_layer(layer, [scores, labels]), score_layer(layer, [scores, labels], [0, 1, 3], 4)
    is_sum = normalization in ("NONE", "PRE_FIXED") and kind in ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss")
    assert isinstance(part, Partial)
    assert part.value == pytest.approx(whole.value * (4 / 3 if is_sum else 1))
    assert type(part.numerator) is type(whole.numerator)  # hits are counted
