"""Bottoms that do not fit each other, seen by their shapes alone: what evaluate_layer would refuse after hours."""

from collections.abc import Mapping

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter
from distcalib.caffe.graph import build_graph
from distcalib.engine.checking import checked_shapes
from distcalib.errors import UnsupportedError
from distcalib.metrics import check_shapes, evaluate_layer, score_layer

Shape = tuple[int, ...]
UNLIKE: Mapping[str, tuple[tuple[Shape, ...], str]] = {
    "SmoothL1Loss": (((2, 3), (2, 9)), "its bottoms have shapes (2, 3) and (2, 9); they must be one"),
    "EuclideanLoss": (((2, 3), (3, 2)), "its bottoms have shapes (2, 3) and (3, 2); they must be one"),
    "SigmoidCrossEntropyLoss": (
        ((2, 3), (2, 9)),
        "its bottoms have shapes (2, 3) and (2, 9); they must have as many elements",
    ),
    "HingeLoss": (((2, 3), (2, 9)), "18 labels for predictions of shape (2, 3); one a record is needed"),
    "MultinomialLogisticLoss": (((), ()), "1 labels for predictions of shape (); one a record is needed"),
    "ContrastiveLoss": (
        ((2, 3), (2, 9), (2,)),
        "its bottoms have shapes (2, 3), (2, 9) and (2,); (N, C) twice and (N) are needed",
    ),
    "InfogainLoss": (((2, 3), (2,), (4, 4)), "its matrix has 16 values for 3 classes; 9 are needed"),
    "SegAccuracy": (
        ((2, 3, 4, 4), (2, 1, 4, 5)),
        "its bottoms have shapes (2, 3, 4, 4) and (2, 1, 4, 5); (N, C, H, W) and (N, 1, H, W) are needed",
    ),
    "SoftmaxWithLoss": (((2, 3), (3,)), "3 labels for predictions of shape (2, 3) along axis 1; 2 are needed"),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_check_shapes_says_what_the_evaluation_would(kind: str) -> None:
    shapes, says = UNLIKE[kind]
    layer = LayerParameter(name="score", type=kind, bottom=[f"b{i}" for i in range(len(shapes))])
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    told = []
    for refused in (
        lambda: check_shapes(layer, shapes),
        lambda: score_layer(layer, arrays, [0, 1]) if kind == "SegAccuracy" else evaluate_layer(layer, arrays),
    ):
        with pytest.raises(UnsupportedError) as caught:
            refused()
        told.append(str(caught.value))
    assert told == [f"layer 'score' ({kind}): {says}"] * 2


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("SmoothL1Loss", [(2, 3), (2, 3, 1), (2, 3), (2, 1, 3)]),
        ("EuclideanLoss", [(2, 6), (2, 3, 2)]),
        ("SigmoidCrossEntropyLoss", [(2, 6), (2, 3, 2)]),
        ("HingeLoss", [(2, 6, 1), (2, 1, 1, 1)]),
        ("ContrastiveLoss", [(2, 6, 1), (2, 6, 1), (2, 1)]),
        ("InfogainLoss", [(2, 3), (2,), (1, 1, 3, 3)]),
        ("InfogainLoss", [(2, 3), (2,)]),
        ("SmoothL1Loss", [(2, 3), None]),
    ],
)
def test_check_shapes_takes_what_fits_or_is_not_known(kind: str, shapes: list[Shape | None]) -> None:
    check_shapes(LayerParameter(name="score", type=kind), shapes)


def test_checked_shapes_name_the_file_of_a_loss_whose_bottoms_do_not_fit() -> None:
    net = text_format.Parse(
        'layer { name: "in" type: "Input" top: "a" top: "c" } '
        'layer { name: "f" type: "SmoothL1Loss" bottom: "a" bottom: "c" top: "f" }',
        NetParameter(),
    )
    with pytest.raises(UnsupportedError, match=r"^n\.prototxt: layer 'f' \(SmoothL1Loss\): its bottoms have shapes"):
        checked_shapes(build_graph(net.layer, "n.prototxt"), {"a": (2, 3), "c": (2, 9)}, "n.prototxt")
