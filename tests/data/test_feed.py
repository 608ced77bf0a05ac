from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data.feed import FeedSource
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer
from tests.every import every

INPUT = layer('top: "x" top: "info" input_param { shape { dim: 2 dim: 3 } shape { dim: 1 dim: 4 } }', "Input")
X = np.arange(15, dtype=np.float64).reshape(5, 3)
INFO = np.ones((1, 4), np.float32)


@pytest.mark.parametrize(("iteration", "rows"), [(0, [0, 1]), (1, [2, 3]), (2, [4, 0]), (3, [1, 2]), (7, [4, 0])])
def test_feed_cuts_the_leading_axis_and_wraps_around(iteration: int, rows: list[int]) -> None:
    source = FeedSource(INPUT, PROTOTXT, {"x": X, "info": INFO, "of another layer": INFO})
    batch = source.batch(iteration)
    assert list(batch) == ["x", "info"]
    assert batch["x"].dtype == np.float32
    np.testing.assert_array_equal(batch["x"], X[rows])
    np.testing.assert_array_equal(batch["info"], INFO)


def test_feed_gives_rows_by_number() -> None:
    made = layer('top: "x" input_param { shape { dim: 2 dim: 3 } }', "Input")
    found = FeedSource(made, PROTOTXT, {"x": X}).pick([4, 0, 5, 7])["x"]
    np.testing.assert_array_equal(found, X[[4, 0, 0, 2]])
    assert found.dtype == np.float32


def test_feed_names_the_row_that_holds_nan() -> None:
    spoilt = X.copy()
    spoilt[4, 1] = np.nan
    source = FeedSource(INPUT, PROTOTXT, {"x": spoilt, "info": INFO})
    source.batch(1)
    with pytest.raises(DataError) as error:
        source.batch(2)
    assert str(error.value) == (
        "net.prototxt: layer 'data' (Input): row 4 of the array of top 'x' holds NaN; correct it or leave it out"
    )


def test_feed_has_shapes_without_data() -> None:
    source = FeedSource(INPUT, PROTOTXT)
    assert source.tops == ("x", "info")
    assert source.shapes == {"x": (2, 3), "info": (1, 4)}
    assert source.batch_size == 2
    assert source.index is None
    with pytest.raises(
        DataError, match=r"^net.prototxt: layer 'data' \(Input\) has no data; give arrays for 'x', 'info',"
    ):
        source.batch(0)


def test_feed_takes_one_shape_for_all_tops() -> None:
    source = FeedSource(layer('top: "a" top: "b" input_param { shape { dim: 7 } }', "Input"), PROTOTXT)
    assert source.shapes == {"a": (7,), "b": (7,)}


@pytest.mark.parametrize(
    ("arrays", "sentences"),
    [
        ({"y": X}, ["top 'x' has no array (there are: y); give one", "top 'info' has no array"]),
        ({"x": X.T, "info": INFO}, ["the array of top 'x' is (3, 5); give one of (n, 3,)"]),
        ({"x": X[:0], "info": INFO}, ["the array of top 'x' is (0, 3)"]),
        ({"x": X, "info": np.float32(1)}, ["the array of top 'info' is ()"]),
        ({"x": X.astype(str), "info": INFO}, ["the array of top 'x' holds <U32 values; give numbers"]),
    ],
    ids=["missing", "other shape", "empty", "scalar", "text"],
)
def test_feed_refuses_arrays_that_do_not_fit(arrays: dict[str, npt.NDArray[np.generic]], sentences: list[str]) -> None:
    with pytest.raises(DataError) as error:
        FeedSource(INPUT, PROTOTXT, arrays)
    assert every(sentence in str(error.value) for sentence in sentences)


@pytest.mark.parametrize("shapes", ["", "shape { dim: 0 }", "shape {}", "shape { dim: 1 } shape { dim: 1 }"])
def test_feed_refuses_shapes_that_are_none(shapes: str) -> None:
    with pytest.raises(DataError, match=r"for 3 tops; give each one without zeros|for 1 tops"):
        tops = 'top: "a" top: "b" top: "c" '
        FeedSource(layer(f"{tops} input_param {{ {shapes} }}", "Input"), PROTOTXT)
