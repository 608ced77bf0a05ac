"""What can be negative."""

import numpy as np
import pytest

from distcalib.quantize.signs import nonnegative_blobs
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu, value

POSITIVE = layer("Sigmoid", "p", "x")


@pytest.mark.parametrize(
    ("layers", "blob", "nonnegative"),
    [
        pytest.param([], "x", False, id="input"),
        pytest.param([conv("c", "x")], "c", False, id="convolution"),
        pytest.param([conv("c", "x", "relu: true")], "c", True, id="own_relu"),
        pytest.param([conv("c", "x", "relu: true negative_slope: 0.1")], "c", False, id="own_leaky"),
        pytest.param([relu("r", "x")], "x#1", True, id="relu"),
        pytest.param([relu("r", "x")], "x", False, id="before_relu_in_place"),
        pytest.param([relu("r", "x", 0.1)], "x#1", False, id="leaky"),
        pytest.param([POSITIVE, relu("r", "p", 0.1)], "p#1", True, id="leaky_of_positive"),
        pytest.param([layer("Softmax", "s", "x")], "s", True, id="softmax"),
        pytest.param([layer("AbsVal", "s", "x")], "s", True, id="absolute"),
        pytest.param([layer("Exp", "s", "x")], "s", True, id="exponential"),
        pytest.param([layer("TanH", "s", "x")], "s", False, id="tanh"),
        pytest.param([POSITIVE, layer("Pooling", "s", "p")], "s", True, id="pooling_of_positive"),
        pytest.param([layer("Pooling", "s", "x")], "s", False, id="pooling_of_any"),
        pytest.param([POSITIVE, layer("LRN", "s", "p")], "s", True, id="lrn"),
        pytest.param([POSITIVE, layer("BatchNorm", "s", "p")], "s", False, id="batch_norm"),
        pytest.param([POSITIVE, layer("Scale", "s", "p")], "s", False, id="scale"),
        pytest.param([POSITIVE, layer("Split", "s", "p", "s1 s2")], "s2", True, id="split"),
        pytest.param([POSITIVE, layer("Concat", "s", "p p")], "s", True, id="concat_of_positive"),
        pytest.param([POSITIVE, layer("Concat", "s", "p x")], "s", False, id="concat_with_any"),
        pytest.param([POSITIVE, layer("Crop", "s", "p x")], "s", True, id="crop_to_the_shape_of_any"),
        pytest.param([POSITIVE, layer("Crop", "s", "x p")], "s", False, id="crop_of_any"),
        pytest.param([POSITIVE, eltwise("s", "p p")], "s", True, id="sum"),
        pytest.param([POSITIVE, eltwise("s", "p x")], "s", False, id="sum_with_any"),
        pytest.param([POSITIVE, eltwise("s", "p p", "coeff: 1 coeff: -1")], "s", False, id="difference"),
        pytest.param([POSITIVE, eltwise("s", "p x", "operation: MAX")], "s", True, id="maximum"),
        pytest.param([POSITIVE, eltwise("s", "p p", "operation: PROD")], "s", True, id="product"),
        pytest.param([POSITIVE, eltwise("s", "p x", "operation: PROD")], "s", False, id="product_with_any"),
    ],
)
def test_nonnegative_blobs_follow_what_can_reach_them(layers: list[str], blob: str, nonnegative: bool) -> None:
    assert (value(blob) in nonnegative_blobs(make_graph(*layers))) == nonnegative


@pytest.mark.parametrize(
    ("scale", "nonnegative"), [(None, False), ([20.0, 0.0], True), ([20.0, -0.1], False)], ids=["unknown", "all", "one"]
)
def test_nonnegative_blobs_follow_a_normalize_by_its_weights(scale: list[float] | None, nonnegative: bool) -> None:
    graph = make_graph(POSITIVE, layer("Normalize", "s", "p"), layer("Normalize", "t", "x"))
    weights = None if scale is None else {name: (np.array(scale, np.float32),) for name in ("s", "t")}
    assert (value("s") in nonnegative_blobs(graph, weights)) == nonnegative
    assert value("t") not in nonnegative_blobs(graph, weights)
