"""Axes and constants."""

import numpy as np
import pytest

from distcalib.errors import UnsupportedError
from distcalib.layers.shapes import along, canonical_axis, constant, shape_of, why_not
from tests.layers.harness import make_layer


@pytest.mark.parametrize(("axis", "expected"), [(0, 0), (3, 3), (-1, 3), (-4, 0)])
def test_canonical_axis_counts_from_either_end(axis: int, expected: int) -> None:
    assert canonical_axis(make_layer('type: "ReLU"'), axis, 4) == expected


@pytest.mark.parametrize("axis", [4, -5])
def test_canonical_axis_refuses_axes_outside(axis: int) -> None:
    with pytest.raises(UnsupportedError, match=f"axis={axis} of an input with 4 axes; -4 to 3 exist"):
        canonical_axis(make_layer('type: "ReLU"'), axis, 4)


def test_along_lays_values_from_an_axis_on() -> None:
    assert shape_of(along(np.ones((3, 4), np.float32), 1, 4)) == (1, 3, 4, 1)
    assert shape_of(along(np.ones((), np.float32), 1, 3)) == (1, 1, 1)


def test_why_not_takes_an_index_outside_for_too_few_axes() -> None:
    scalar = constant(1.0)
    said = why_not(IndexError("tuple index out of range"), [scalar])
    assert said == "reads blobs of shape (), which have too few axes for it; correct its parameters or what it reads"
    assert "(ValueError: x)" in why_not(ValueError("x"), [scalar])
