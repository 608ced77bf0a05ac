"""What an accuracy says of each image, against its definition."""

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.metrics import by_image, classes_of, evaluate_layer


def accuracy(top_k: int) -> LayerParameter:
    text = f'name: "a" type: "Accuracy" bottom: "x" bottom: "y" top: "a" accuracy_param {{ top_k: {top_k} }}'
    return text_format.Parse(text, LayerParameter())


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_by_image_counts_what_the_layer_counts_and_orders_it(top_k: int) -> None:
    random = np.random.default_rng(top_k)
    scores = random.integers(-3, 4, (200, 5)).astype(np.float32)  # with many ties
    labels = random.integers(0, 5, 200).astype(np.float32)
    found = by_image(accuracy(top_k), [scores, labels], range(200))
    assert int(found.hits.sum()) == evaluate_layer(accuracy(top_k), [scores, labels]).numerator
    for row, label in enumerate(labels.astype(int)):
        others = sorted((x for i, x in enumerate(scores[row]) if i != label), reverse=True)
        assert found.margins[row] == scores[row, label] - others[top_k - 1]
    assert found.margins[found.hits].min() >= 0.0
    assert found.margins[~found.hits].max() <= 0.0
    assert found.rows.tolist() == list(range(200))


def test_by_image_of_all_classes_is_always_right() -> None:
    found = by_image(accuracy(3), [np.zeros((2, 3), np.float32), np.array([0.0, 2.0], np.float32)], [4, 6])
    assert found.hits.tolist() == [True, True]
    assert found.margins.tolist() == [np.inf, np.inf]
    assert found.rows.tolist() == [4, 6]


def test_by_image_takes_what_is_no_number_for_the_worst() -> None:
    scores = np.array([[np.nan, 1.0, 0.0], [np.inf, np.inf, 0.0]], np.float32)
    found = by_image(accuracy(1), [scores, np.array([0.0, 0.0], np.float32)], range(2))
    assert found.margins.tolist() == [-np.inf, -np.inf]
    assert not found.hits[0]


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_class_of_the_highest_score_is_the_one_that_accuracy_takes(top_k: int) -> None:
    random = np.random.default_rng(7)
    scores = random.integers(-3, 4, (200, 5)).astype(np.float32)  # with many ties
    labels = random.integers(0, 5, 200).astype(np.float32)
    said, classes = classes_of(accuracy(top_k), [scores, labels])
    assert said == labels.astype(int).tolist()
    hits = by_image(accuracy(1), [scores, labels], range(200)).hits
    assert [label == one for label, one in zip(said, classes, strict=True)] == hits.tolist()
    assert [scores[row, one] for row, one in enumerate(classes)] == scores.max(axis=1).tolist()
