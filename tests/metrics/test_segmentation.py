"""SegAccuracy: counts against a loop over pixels, what they sum to, and what they can come to at the best."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics import Confusion, Decider, choose_score, is_mean, merged, score_layer

Array = npt.NDArray[Any]


def make(fields: str = "") -> LayerParameter:
    return text_format.Parse(
        f"name: 'seg' type: 'SegAccuracy' bottom: 's' bottom: 'l' seg_accuracy_param {{ {fields} }}", LayerParameter()
    )


def batch(seed: int, n_classes: int = 4) -> tuple[Array, Array]:
    """Scores of few distinct values, so that ties abound, and labels of which class 3 is never one."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (2, n_classes, 5, 6)).astype(np.float32)
    return scores, rng.integers(0, 3, (2, 1, 5, 6)).astype(np.float32)


def confusion_matrix(scores: Array, labels: Array, ignored: tuple[int, ...] = ()) -> Array:
    matrix = np.zeros((scores.shape[1],) * 2, np.int64)
    for n, i, j in np.ndindex(scores.shape[0], *scores.shape[2:]):
        label = int(labels[n, 0, i, j])
        if label not in ignored:
            matrix[label, max((scores[n, c, i, j], c) for c in range(scores.shape[1]))[1]] += 1
    return matrix


def part(seed: int) -> Confusion:
    scores, labels = batch(seed)
    found = score_layer(make(), [scores, labels], [0, 1])
    assert isinstance(found, Confusion)
    return found


@pytest.mark.parametrize("ignored", [(), (1,), (0, 2)], ids=str)
def test_seg_accuracy_counts_pixels_by_class(ignored: tuple[int, ...]) -> None:
    scores, labels = batch(0)
    found = score_layer(make(" ".join(f"ignore_label: {label}" for label in ignored)), [scores, labels], [0, 1])
    matrix = confusion_matrix(scores, labels, ignored)
    assert found == Confusion(tuple(matrix.sum(1)), tuple(matrix.sum(0)), tuple(matrix.diagonal()))


def test_confusions_sum_to_the_scores_of_all_pixels() -> None:
    matrix = sum(confusion_matrix(*batch(seed)) for seed in range(3))
    assert isinstance(matrix, np.ndarray)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    whole = Confusion.summed(part(seed) for seed in range(3))
    assert whole.mean_iou == pytest.approx(np.mean(np.where(union, matrix.diagonal() / np.maximum(union, 1), 1.0)))
    assert whole.pixel_accuracy == matrix.trace() / matrix.sum()
    labelled = matrix.sum(1) > 0
    assert whole.mean_recall == pytest.approx(np.mean(matrix.diagonal()[labelled] / matrix.sum(1)[labelled]))
    assert merged([part(2), part(0), part(1)]) == whole.mean_iou


def test_a_class_that_is_nowhere_counts_as_found() -> None:
    assert Confusion((4, 0), (4, 0), (4, 0)).mean_iou == 1.0
    assert Confusion((0, 0), (0, 0), (0, 0)).pixel_accuracy == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_no_net_does_better_than_at_best(seed: int) -> None:
    measured, left = part(seed), [part(seed + 10), part(seed + 20)]
    best = measured.at_best(left).mean_iou
    right = [Confusion(one.labelled, one.labelled, one.labelled) for one in left]
    assert merged([measured, *right]) == best
    assert merged([measured, *left]) <= best
    assert measured.at_best([]) == measured


def test_a_decider_ends_where_the_best_is_not_enough() -> None:
    perfect = [Confusion((10, 10), (10, 10), (10, 10))] * 4
    broken = Confusion((10, 10), (0, 20), (0, 10))
    decider = Decider(perfect, tolerance=0.05)
    assert decider.fp32 == 1.0
    assert decider.decide({0: broken}) is False
    assert Decider(perfect, tolerance=0.5).decide({0: broken}) is None
    assert decider.decide(dict(enumerate(perfect))) is True
    assert decider.drop([broken] * 4) == pytest.approx(1.0 - 0.25)
    assert decider.likely_drop({1: broken}) == pytest.approx(0.75)


def test_a_net_that_overflows_scores_nothing() -> None:
    scores, labels = batch(0)
    found = score_layer(make(), [np.full_like(scores, np.nan), labels], [0, 1])
    assert isinstance(found, Confusion)
    assert found.pixel_accuracy == 0.0


def test_seg_accuracy_refuses_labels_and_shapes_that_do_not_fit() -> None:
    scores, labels = batch(0)
    labels[0, 0, 0, :2] = 255
    with pytest.raises(DataError, match=r"2 of 60 labels lie outside the classes 0 to 3 \(such as 255\)"):
        score_layer(make(), [scores, labels], [0, 1])
    with pytest.raises(UnsupportedError, match=r"\(N, C, H, W\) and \(N, 1, H, W\) are needed"):
        score_layer(make(), [scores, labels[:1]], [0, 1])


def test_a_seg_accuracy_is_the_score_of_a_net_without_an_accuracy() -> None:
    text = "layer { name: 'a' type: 'SegAccuracy' bottom: 's' bottom: 'l' top: 'seg' }"
    net = text_format.Parse(text, NetParameter())
    assert choose_score(net) == "seg"
    assert not is_mean(net, "seg")
    both = text_format.Parse(
        text + "layer { name: 'b' type: 'Accuracy' bottom: 's' bottom: 'l' top: 'acc' }", NetParameter()
    )
    assert choose_score(both) == "acc"
    assert choose_score(both, "seg") == "seg"
