"""Deconvolution against the sum that each input pixel adds to the output."""

from typing import Any

import numpy as np
import pytest

from tests.layers.harness import Array, random, refused, run


def deconvolve(
    x: Array,
    weight: Array,
    bias: Array | None,
    group: int = 1,
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    n, n_in, *size = x.shape
    per_group, *kernel = weight.shape[1:]
    full = [stride[i] * (size[i] - 1) + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    y = np.zeros((n, per_group * group, *full))
    for c in range(n_in):
        g = c // (n_in // group)
        outs = slice(g * per_group, (g + 1) * per_group)
        for i, j, u, v in np.ndindex(*size, *kernel):
            row, column = i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1]
            y[:, outs, row, column] += np.outer(x[:, c, i, j], weight[c, :, u, v])
    y = y[:, :, pad[0] : full[0] - pad[0], pad[1] : full[1] - pad[1]]
    return (y if bias is None else y + bias[:, None, None]).astype(np.float32)


GEOMETRIES: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "plain": ("kernel_size: 3", (3, 3), {}),
    "upsampling": ("kernel_size: 4 stride: 2 pad: 1", (4, 4), {"stride": (2, 2), "pad": (1, 1)}),
    "by_axis": (
        "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0",
        (3, 2),
        {"stride": (2, 3), "pad": (1, 0)},
    ),
    "repeated": (
        "kernel_size: 3 kernel_size: 2 stride: 2 stride: 3 pad: 1 pad: 0 dilation: 1 dilation: 2",
        (3, 2),
        {"stride": (2, 3), "pad": (1, 0), "dilation": (1, 2)},
    ),
    "dilated": ("kernel_size: 3 dilation: 2 pad: 1", (3, 3), {"dilation": (2, 2), "pad": (1, 1)}),
}


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_deconvolution_adds_a_kernel_a_pixel(case: str, group: int) -> None:
    fields, kernel, arguments = GEOMETRIES[case]
    x, weight, bias = random(2, 4, 3, 4), random(4, 8 // group, *kernel, seed=1), random(8, seed=2)
    text = f'type: "Deconvolution" convolution_param {{ num_output: 8 group: {group} {fields} }}'
    [y] = run(text, x, blobs=[weight, bias])
    np.testing.assert_allclose(y, deconvolve(x, weight, bias, group, **arguments), rtol=1e-5, atol=1e-5)


def test_deconvolution_goes_without_bias() -> None:
    x, weight = random(1, 2, 3, 3), random(2, 3, 2, 2, seed=1)
    [y] = run(
        'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 2 bias_term: false }', x, blobs=[weight]
    )
    np.testing.assert_allclose(y, deconvolve(x, weight, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param("kernel_size: 2", "num_output is missing", id="num_output"),
        pytest.param("num_output: 4 group: 3 kernel_size: 2", "group=3 does not divide its 4 input", id="group_in"),
        pytest.param("num_output: 3 group: 2 kernel_size: 2", "group=2 does not divide num_output=3", id="group_out"),
        pytest.param("num_output: 4 kernel_size: 2 pad: 9", "lower pad", id="pad"),
        pytest.param("num_output: 4 kernel_size: 2 axis: 2", "only axis=1", id="axis"),
        pytest.param("num_output: 4 kernel_size: 2 relu: true", "relu inside a Deconvolution", id="relu"),
        pytest.param(
            "num_output: 4 kernel_size: 3", "blob 0 has shape (4, 4, 2, 2) but the prototxt needs", id="shape"
        ),
        pytest.param("num_output: 4 kernel_size: 2 bias_term: false", "has 2 blobs and the prototxt uses 1", id="bias"),
    ],
)
def test_deconvolution_refuses(fields: str, says: str) -> None:
    blobs = [np.ones((4, 4, 2, 2), np.float32), np.ones(4, np.float32)]
    assert says in refused(f'type: "Deconvolution" convolution_param {{ {fields} }}', (1, 4, 3, 3), blobs=blobs)
