"""ArgMax against Caffe's sort of (value, index) pairs, ties included."""

import numpy as np
import pytest

from tests.layers.harness import Array, random, refused, run


def caffe_top(values: Array, k: int) -> list[tuple[float, int]]:
    """The k first of (value, index) pairs in descending order, as std::partial_sort with std::greater leaves them."""
    return sorted(((float(v), i) for i, v in enumerate(values)), reverse=True)[:k]


def argmax(x: Array, k: int, axis: int | None, out_max_val: bool) -> Array:
    if axis is None:
        rows = x.reshape(len(x), -1)
        y = np.zeros((len(x), 1 + out_max_val, k), np.float32)
        for n, row in enumerate(rows):
            top = caffe_top(row, k)
            y[n, 0] = [i for _, i in top]
            if out_max_val:
                y[n, 1] = [v for v, _ in top]
        return y.reshape(y.shape + (1,) * (x.ndim - 3))
    part = 0 if out_max_val else 1
    return np.apply_along_axis(lambda row: np.array([pair[part] for pair in caffe_top(row, k)], np.float32), axis, x)


CASES: dict[str, tuple[str, int, int | None, bool]] = {
    "default": ("", 1, None, False),
    "top_three": ("top_k: 3", 3, None, False),
    "with_values": ("top_k: 2 out_max_val: true", 2, None, True),
    "along_channels": ("axis: 1", 1, 1, False),
    "along_channels_top_two": ("axis: 1 top_k: 2", 2, 1, False),
    "along_the_last_axis": ("axis: -1 top_k: 2", 2, -1, False),
    "values_along_an_axis": ("axis: 1 top_k: 3 out_max_val: true", 3, 1, True),
    "along_the_batch": ("axis: 0", 1, 0, False),
}


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 5), (3, 5, 4, 3)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_argmax_sorts_as_caffe(case: str, shape: tuple[int, ...]) -> None:
    fields, k, axis, out_max_val = CASES[case]
    x = random(*shape)
    [y] = run(f'type: "ArgMax" argmax_param {{ {fields} }}', x)
    np.testing.assert_array_equal(y, argmax(x, k, axis, out_max_val))


@pytest.mark.parametrize("shape", [(3, 8), (3, 40), (3, 6, 4)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_argmax_puts_the_larger_index_first_among_equals(case: str, shape: tuple[int, ...]) -> None:
    fields, k, axis, out_max_val = CASES[case]
    x = np.round(random(*shape))
    [y] = run(f'type: "ArgMax" argmax_param {{ {fields} }}', x)
    np.testing.assert_array_equal(y, argmax(x, k, axis, out_max_val))


def test_argmax_refuses_more_than_there_are() -> None:
    assert "top_k=7 of 6 values; 1 to 6 can be asked for" in refused(
        'type: "ArgMax" argmax_param { top_k: 7 }', (2, 3, 2)
    )
    assert "top_k=0" in refused('type: "ArgMax" argmax_param { top_k: 0 }', (2, 3, 2))


def test_argmax_refuses_a_scalar() -> None:
    assert "its input is a scalar" in refused('type: "ArgMax"', ())
