"""SmoothL1Loss and ContrastiveLoss against their definitions, one element at a time."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.needed import EVALUATED
from distcalib.errors import UnsupportedError
from distcalib.metrics import LOSS_TYPES, evaluate_layer

Array = npt.NDArray[Any]


def make(text: str) -> LayerParameter:
    layer = text_format.Parse(text, LayerParameter())
    layer.name = "score"
    return layer


def arrays(n: int, *shape: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("n_bottoms", [2, 3, 4])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_loss_is_fast_rcnns(sigma: float, n_bottoms: int) -> None:
    bottoms = arrays(n_bottoms, 4, 3, 2)
    x, y, *weights = (bottom.ravel().tolist() for bottom in bottoms)
    inside = weights[0] if weights else [1.0] * len(x)
    outside = weights[1] if len(weights) > 1 else [1.0] * len(x)
    total = 0.0
    for a, b, before, behind in zip(x, y, inside, outside, strict=True):
        d = abs(before * (a - b))
        total += behind * (0.5 * (sigma * d) ** 2 if d < 1 / sigma**2 else d - 0.5 / sigma**2)
    made = evaluate_layer(make(f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}'), bottoms)
    assert made.value == pytest.approx(total / 4, rel=1e-9)


@pytest.mark.parametrize("legacy", [False, True], ids=["squared", "legacy"])
def test_contrastive_loss_is_caffes(legacy: bool) -> None:
    a, b = arrays(2, 6, 3)
    similar = np.array([0, 1, 0, 1, 0, 2], np.float32)
    total = 0.0
    for i in range(6):
        square = sum((float(p) - float(q)) ** 2 for p, q in zip(a[i], b[i], strict=True))
        if similar[i]:
            total += square
        else:
            total += max(2.5 - square, 0.0) if legacy else max(2.5 - math.sqrt(square), 0.0) ** 2
    fields = f"margin: 2.5 legacy_version: {str(legacy).lower()}"
    layer = make(f'type: "ContrastiveLoss" contrastive_loss_param {{ {fields} }}')
    assert evaluate_layer(layer, [a, b, similar]).value == pytest.approx(total / 12, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "shapes", "says"),
    [
        ("SmoothL1Loss", [(2, 3), (2, 4)], "they must be one"),
        ("SmoothL1Loss", [(2, 3)], "1 bottoms are given; it takes 2 or 3 or 4"),
        ("ContrastiveLoss", [(2, 3), (2, 3)], "2 bottoms are given; it takes 3"),
        ("ContrastiveLoss", [(2, 3), (2, 3), (3,)], "(N, C) twice and (N) are needed"),
    ],
)
def test_pair_losses_refuse_shapes_that_do_not_fit(kind: str, shapes: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        evaluate_layer(make(f'type: "{kind}"'), [np.ones(shape, np.float32) for shape in shapes])
    assert says in str(caught.value)


def test_losses_that_a_test_keeps_are_those_with_a_value() -> None:
    assert EVALUATED == LOSS_TYPES
