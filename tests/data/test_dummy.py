from __future__ import annotations

import numpy as np
import pytest

from distcalib.data.dummy import DummySource
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer
from tests.every import every


def source(tops: str, param: str, name: str = "data") -> DummySource:
    made = layer("".join(f'top: "{top}" ' for top in tops) + f"dummy_data_param {{ {param} }}", "DummyData")
    made.name = name
    return DummySource(made, PROTOTXT)


@pytest.mark.parametrize(
    ("tops", "param", "shapes"),
    [
        ("a", "shape { dim: 2 dim: 3 }", {"a": (2, 3)}),
        ("ab", "shape { dim: 2 dim: 3 }", {"a": (2, 3), "b": (2, 3)}),
        ("ab", "shape { dim: 2 dim: 3 } shape { dim: 2 }", {"a": (2, 3), "b": (2,)}),
        ("a", "num: 1 channels: 2 height: 3 width: 4", {"a": (1, 2, 3, 4)}),
        ("ab", "num: 1 channels: 2 height: 3 width: 4", {"a": (1, 2, 3, 4), "b": (1, 2, 3, 4)}),
        (
            "ab",
            "num: 1 num: 5 channels: 2 channels: 6 height: 3 height: 1 width: 4 width: 1",
            {"a": (1, 2, 3, 4), "b": (5, 6, 1, 1)},
        ),
    ],
    ids=["one", "one for both", "two", "legacy", "legacy for both", "legacy, two"],
)
def test_dummy_has_the_shapes_it_is_given(tops: str, param: str, shapes: dict[str, tuple[int, ...]]) -> None:
    made = source(tops, param)
    assert made.tops == tuple(tops)
    assert made.shapes == shapes
    assert made.batch_size == shapes["a"][0]
    assert made.index is None
    batch = made.batch(3)
    assert {top: values.shape for top, values in batch.items()} == shapes
    assert every(values.dtype == np.float32 and not values.any() for values in batch.values())


def test_dummy_fills_with_one_filler_or_one_a_top() -> None:
    assert source("ab", "shape { dim: 2 } data_filler { value: 3 }").batch(0)["b"].tolist() == [3, 3]
    made = source("ab", "shape { dim: 2 } data_filler { value: 3 } data_filler { value: -0.5 }")
    assert [made.batch(0)[top].tolist() for top in "ab"] == [[3, 3], [-0.5, -0.5]]


@pytest.mark.parametrize(
    ("filler", "mean", "deviation"),
    [
        ('type: "gaussian" mean: 2 std: 3', 2, 3),
        ('type: "uniform" min: -1 max: 3', 1, 4 / 12**0.5),
        ('type: "xavier"', 0, (1 / 400) ** 0.5),
        ('type: "xavier" variance_norm: FAN_OUT', 0, (1 / 2000) ** 0.5),
        ('type: "xavier" variance_norm: AVERAGE', 0, (1 / 1200) ** 0.5),
        ('type: "msra"', 0, (2 / 400) ** 0.5),
    ],
)
def test_dummy_random_fillers_have_their_moments(filler: str, mean: float, deviation: float) -> None:
    values = source("a", f"shape {{ dim: 100 dim: 20 dim: 5 dim: 4 }} data_filler {{ {filler} }}").batch(0)["a"]
    assert values.mean() == pytest.approx(mean, abs=0.02 * deviation)
    assert values.std() == pytest.approx(deviation, rel=0.02)


def test_dummy_values_follow_from_layer_top_and_iteration_alone() -> None:
    param = 'shape { dim: 9 } data_filler { type: "gaussian" }'
    first, again, other = source("ab", param), source("ab", param), source("ab", param, name="other")
    later = first.batch(5)
    for top in "ab":
        np.testing.assert_array_equal(later[top], again.batch(5)[top])
        assert (later[top] != first.batch(6)[top]).all()
        assert (later[top] != other.batch(5)[top]).all()
    assert (later["a"] != later["b"]).all()


def test_dummy_values_are_the_same_on_every_machine() -> None:
    values = source("a", 'shape { dim: 3 } data_filler { type: "gaussian" }').batch(0)["a"]
    np.testing.assert_allclose(values, [-0.22669585, 0.41295701, -0.55184597], rtol=1e-6)


@pytest.mark.parametrize(
    ("param", "sentence"),
    [
        ("", "gives 0 shapes for 2 tops; give one each, or one for all"),
        ("shape { dim: 1 } shape { dim: 1 } shape { dim: 1 }", "gives 3 shapes for 2 tops"),
        ("shape { dim: 1 dim: 0 }", "shape 1 x 0 is empty; give sizes of at least 1"),
        ("num: 1 channels: 1", "gives 0 shapes for 2 tops"),
        ("shape { dim: 1 } " + "data_filler {} " * 3, "gives 3 data_filler for 2 tops; give none, one or 2"),
        ('shape { dim: 1 } data_filler { type: "bilinear" }', "data_filler type 'bilinear' is not done; constant, gau"),
        ('shape { dim: 1 } data_filler { type: "gaussian" sparse: 3 }', "data_filler sparse is not done; take it out"),
    ],
)
def test_dummy_refuses(param: str, sentence: str) -> None:
    with pytest.raises(DataError, match=r"^net.prototxt: layer 'data' \(DummyData\): " + sentence):
        source("ab", param)
