"""InfogainLoss against Caffe's loops."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics import Partial, evaluate_layer, score_layer

Array = npt.NDArray[Any]
N, C, H = 3, 4, 5
LABELS = np.random.default_rng(1).integers(0, C, (N, H)).astype(np.float32)
MATRIX = np.random.default_rng(2).random((C, C)).astype(np.float32)
SCORES = np.random.default_rng(0).standard_normal((N, C, H)).astype(np.float32) * 20


def make(fields: str = "", blobs: Array | None = None) -> LayerParameter:
    layer = text_format.Parse(f'name: "i" type: "InfogainLoss" {fields}', LayerParameter())
    if blobs is not None:
        layer.blobs.add().data.extend(blobs.ravel())
    return layer


def loss_sum(ignore: int | None = None) -> tuple[float, int]:
    total, count = 0.0, 0
    for n in range(N):
        for j in range(H):
            label = int(LABELS[n, j])
            if label == ignore:
                continue
            count += 1
            values = [float(v) for v in SCORES[n, :, j]]
            powers = [math.exp(v - max(values)) for v in values]
            for c in range(C):
                total -= float(MATRIX[label, c]) * math.log(max(powers[c] / sum(powers), 1e-20))
    return total, count


@pytest.mark.parametrize(
    ("fields", "divisor"),
    [
        pytest.param("", lambda count: count, id="valid"),
        pytest.param("loss_param { ignore_label: 1 }", lambda count: count, id="ignoring"),
        pytest.param("loss_param { ignore_label: 1 normalization: FULL }", lambda _: N * H, id="full"),
        pytest.param("loss_param { normalization: BATCH_SIZE }", lambda _: N, id="batch"),
        pytest.param("loss_param { normalization: NONE }", lambda _: 1, id="none"),
    ],
)
@pytest.mark.parametrize("bottom", [True, False], ids=["third_bottom", "file"])
def test_infogain_loss_is_caffes(fields: str, divisor: Callable[[int], int], bottom: bool) -> None:
    total, count = loss_sum(1 if "ignore" in fields else None)
    layer = make(fields, None if bottom else MATRIX)
    bottoms = [SCORES, LABELS, MATRIX[None, None]][: 3 if bottom else 2]
    assert evaluate_layer(layer, bottoms).value == pytest.approx(total / divisor(count), rel=1e-6)


def test_infogain_loss_of_the_unit_matrix_is_softmax_loss() -> None:
    scores = SCORES / 20
    found = evaluate_layer(make(blobs=np.eye(C)), [scores, LABELS])
    softmax = text_format.Parse('name: "s" type: "SoftmaxWithLoss"', LayerParameter())
    assert found.value == pytest.approx(evaluate_layer(softmax, [scores, LABELS]).value, rel=1e-12)


def test_infogain_loss_takes_classes_along_an_axis() -> None:
    layer = make("infogain_loss_param { axis: -1 }", MATRIX)
    moved = np.moveaxis(SCORES, 1, -1)
    assert evaluate_layer(layer, [moved, LABELS]) == evaluate_layer(make(blobs=MATRIX), [SCORES, LABELS])


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        pytest.param(make(blobs=np.ones(9)), "its matrix has 9 values for 4 classes; 16 are needed", id="size"),
        pytest.param(make("loss_param { normalize: true }", MATRIX), "write normalization in its place", id="old"),
        pytest.param(make("loss_param { normalization: PRE_FIXED }", MATRIX), "PRE_FIXED is not for", id="fixed"),
    ],
)
def test_infogain_loss_refuses(layer: LayerParameter, says: str) -> None:
    with pytest.raises(UnsupportedError, match=r"^layer 'i'") as caught:
        evaluate_layer(layer, [SCORES, LABELS])
    assert says in str(caught.value)


@pytest.mark.parametrize(("normalization", "factor"), [("NONE", 4 / 3), ("VALID", 1.0)])
def test_only_a_sum_is_scaled_where_a_record_is_left_out(normalization: str, factor: float) -> None:
    layer = make(f"loss_param {{ normalization: {normalization} }}", MATRIX)
    whole, part = evaluate_layer(layer, [SCORES, LABELS]), score_layer(layer, [SCORES, LABELS], [0, 1, 3], 4)
    assert isinstance(part, Partial)
    assert part.value == pytest.approx(whole.value * factor)


def test_infogain_loss_without_a_matrix_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="has no matrix; give a third bottom"):
        evaluate_layer(make(), [SCORES, LABELS])
