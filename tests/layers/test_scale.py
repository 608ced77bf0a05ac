"""Scale and Bias: from which axis on, over how many axes, and from where the other operand comes."""

import numpy as np
import pytest

from tests.layers.harness import Array, random, refused, run

SHAPE = (2, 3, 4, 5)

EXTENTS = {
    "channels": ("", 1, 1),
    "batch_and_channels": ("axis: 0 num_axes: 2", 0, 2),
    "to_the_end": ("axis: 1 num_axes: -1", 1, 3),
    "last_axis": ("axis: -1", 3, 1),
    "negative_axis": ("axis: -2 num_axes: 2", 2, 2),
    "single_number": ("num_axes: 0", 1, 0),
}
"""name: (fields, first axis, number of axes)"""


def lay(values: Array, axis: int) -> Array:
    return values.reshape((1,) * axis + values.shape + (1,) * (len(SHAPE) - axis - values.ndim))


@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("extent", EXTENTS)
def test_scale_multiplies_by_its_blob(extent: str, with_bias: bool) -> None:
    fields, axis, n_axes = EXTENTS[extent]
    x = random(*SHAPE)
    blobs = [random(*SHAPE[axis : axis + n_axes], seed=i) for i in (1, 2)]
    text = f'type: "Scale" scale_param {{ {fields} bias_term: {str(with_bias).lower()} }}'
    [y] = run(text, x, blobs=blobs[: 1 + with_bias])
    expected = x * lay(np.asarray(blobs[0]), axis) + (lay(np.asarray(blobs[1]), axis) if with_bias else 0)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("extent", EXTENTS)
def test_bias_adds_its_blob(extent: str) -> None:
    fields, axis, n_axes = EXTENTS[extent]
    x, term = random(*SHAPE), np.asarray(random(*SHAPE[axis : axis + n_axes], seed=1))
    [y] = run(f'type: "Bias" bias_param {{ {fields} }}', x, blobs=[term])
    np.testing.assert_allclose(y, x + lay(term, axis), rtol=1e-6, atol=1e-6)


SECOND_BOTTOMS = {
    "one_a_record": ("axis: 0", (2,), 0),
    "squeeze_and_excitation": ("axis: 0", (2, 3), 0),
    "channels": ("", (3,), 1),
    "same_shape": ("axis: 0", SHAPE, 0),
    "negative_axis": ("axis: -2", (4, 5), 2),
    "num_axes_is_not_used": ("num_axes: 3", (3,), 1),
}


@pytest.mark.parametrize("case", SECOND_BOTTOMS)
def test_scale_multiplies_by_its_second_bottom(case: str) -> None:
    fields, shape, axis = SECOND_BOTTOMS[case]
    x, factor, bias = random(*SHAPE), random(*shape, seed=1), random(*shape, seed=2)
    [plain] = run(f'type: "Scale" scale_param {{ {fields} }}', x, factor)
    np.testing.assert_allclose(plain, x * lay(factor, axis), rtol=1e-6, atol=1e-6)
    [biased] = run(f'type: "Scale" scale_param {{ {fields} bias_term: true }}', x, factor, blobs=[bias])
    np.testing.assert_allclose(biased, x * lay(factor, axis) + lay(bias, axis), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", SECOND_BOTTOMS)
def test_bias_adds_its_second_bottom(case: str) -> None:
    fields, shape, axis = SECOND_BOTTOMS[case]
    x, term = random(*SHAPE), random(*shape, seed=1)
    [y] = run(f'type: "Bias" bias_param {{ {fields} }}', x, term)
    np.testing.assert_allclose(y, x + lay(term, axis), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shapes", "n_blobs", "says"),
    [
        pytest.param(
            'type: "Scale"', [SHAPE], 2, "the caffemodel has 2 blobs and the prototxt uses 1", id="unread_bias"
        ),
        pytest.param('type: "Scale" scale_param { axis: 4 }', [SHAPE], 1, "axis=4 of an input with 4 axes", id="axis"),
        pytest.param('type: "Scale" scale_param { num_axes: 4 }', [SHAPE], 1, "an input of 4 axes", id="num_axes"),
        pytest.param('type: "Scale" scale_param { num_axes: -2 }', [SHAPE], 1, "num_axes=-2", id="negative_num_axes"),
        pytest.param(
            'type: "Scale"', [SHAPE, (4,)], 0, "(2, 3, 4, 5) and (4,), which do not match from axis 1", id="bottom"
        ),
        pytest.param('type: "Scale"', [SHAPE, (3,), (3,)], 0, "3 bottoms are given; 1 to 2", id="three_bottoms"),
        pytest.param('type: "Bias"', [(2, 4)], 1, "blob 0 has shape (3) but the prototxt needs (4)", id="bias_shape"),
    ],
)
def test_scale_refuses(text: str, shapes: list[tuple[int, ...]], n_blobs: int, says: str) -> None:
    assert says in refused(text, *shapes, blobs=[np.ones(3, np.float32)] * n_blobs)
