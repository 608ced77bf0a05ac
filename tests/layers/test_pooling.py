"""Pooling against Intel Caffe's rules, told window by window."""

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import PoolingParameter
from tests.layers.harness import Array, random, refused, run


def caffe_size(n: int, kernel: int, stride: int, pad: int, clips: bool) -> int:
    n_out = math.ceil((n + 2 * pad - kernel) / stride) + 1
    return n_out - 1 if clips and (n_out - 1) * stride >= n + pad else n_out


def caffe_pool(
    x: Array,
    method: str,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    include_pad: bool = True,
    bvlc: bool = False,
) -> Array:
    """`bvlc`: by Caffe's own loops; else by MKL-DNN's."""
    clips = any(pad) or 1 in kernel
    includes = any(pad) if bvlc else include_pad and clips
    height, width = x.shape[2:]
    n_h, n_w = (caffe_size(x.shape[2 + i], kernel[i], stride[i], pad[i], clips) for i in (0, 1))
    y = np.zeros((*x.shape[:2], n_h, n_w))
    for i in range(n_h):
        for j in range(n_w):
            top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], height + pad[0]), min(left + kernel[1], width + pad[1])
            area = (bottom - top) * (right - left) if bvlc else kernel[0] * kernel[1]
            window = x[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
            if method == "MAX":
                y[:, :, i, j] = window.max(axis=(2, 3))
            else:
                real = window.shape[2] * window.shape[3]
                y[:, :, i, j] = window.sum(axis=(2, 3), dtype=np.float64) / (area if includes else real)
    return y.astype(np.float32)


GEOMETRIES: dict[str, tuple[str, tuple[int, int], dict[str, Any]]] = {
    "even": ("kernel_size: 2 stride: 2", (6, 8), {"kernel": (2, 2), "stride": (2, 2)}),
    "alexnet": ("kernel_size: 3 stride: 2", (13, 13), {"kernel": (3, 3), "stride": (2, 2)}),
    "rounded_up": ("kernel_size: 3 stride: 2", (8, 7), {"kernel": (3, 3), "stride": (2, 2)}),
    "padded": ("kernel_size: 3 stride: 1 pad: 1", (5, 6), {"kernel": (3, 3), "pad": (1, 1)}),
    "padded_and_rounded_up": (
        "kernel_size: 3 stride: 2 pad: 1",
        (8, 6),
        {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)},
    ),
    "padded_rounded_up_one_way": (
        "kernel_size: 3 stride: 2 pad: 1",
        (7, 6),
        {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)},
    ),
    "overhang_by_two": (
        "kernel_size: 5 stride: 3 pad: 2",
        (7, 6),
        {"kernel": (5, 5), "stride": (3, 3), "pad": (2, 2)},
    ),
    "last_window_would_start_in_the_padding": (
        "kernel_size: 2 stride: 2 pad: 1",
        (5, 7),
        {"kernel": (2, 2), "stride": (2, 2), "pad": (1, 1)},
    ),
    "stride_above_kernel": (
        "kernel_size: 2 stride: 3",
        (8, 5),
        {"kernel": (2, 2), "stride": (3, 3)},
    ),
    "stride_above_kernel_padded": (
        "kernel_size: 2 stride: 5 pad: 1",
        (9, 10),
        {"kernel": (2, 2), "stride": (5, 5), "pad": (1, 1)},
    ),
    "kernel_of_one_drops_a_last_window_outside": (
        "kernel_size: 1 stride: 2",
        (6, 7),
        {"kernel": (1, 1), "stride": (2, 2)},
    ),
    "by_axis": (
        "kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0",
        (6, 5),
        {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 0)},
    ),
    "by_axis_with_a_pad_for_both": (
        "kernel_h: 2 kernel_w: 5 pad: 1 stride: 3",
        (7, 9),
        {"kernel": (2, 5), "pad": (1, 1), "stride": (3, 3)},
    ),
    "a_kernel_of_one_along_an_axis_rounded_up": (
        "kernel_h: 1 kernel_w: 3 stride: 2",
        (6, 8),
        {"kernel": (1, 3), "stride": (2, 2)},
    ),
    "whole_input": ("kernel_size: 7", (7, 7), {"kernel": (7, 7)}),
}
"""name: (fields, (H, W), arguments of caffe_pool)"""


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_pooling_follows_caffes_windows(case: str, method: str) -> None:
    fields, size, arguments = GEOMETRIES[case]
    x = random(2, 3, *size)
    [y] = run(f'type: "Pooling" pooling_param {{ pool: {method} {fields} }}', x)
    np.testing.assert_allclose(y, caffe_pool(x, method, **arguments), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("engine", ['engine: "CAFFE" pooling_param {', "pooling_param { engine: CAFFE"])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_pooling_divides_as_bvlc_does_where_that_runs(case: str, engine: str) -> None:
    fields, size, arguments = GEOMETRIES[case]
    x = random(2, 3, *size)
    [y] = run(f'type: "Pooling" {engine} pool: AVE avg_include_pad: false {fields} }}', x)
    np.testing.assert_allclose(y, caffe_pool(x, "AVE", bvlc=True, **arguments), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", GEOMETRIES)
def test_pooling_leaves_padding_out_of_the_divisor_if_told(case: str) -> None:
    fields, size, arguments = GEOMETRIES[case]
    x = random(2, 3, *size)
    [y] = run(f'type: "Pooling" pooling_param {{ pool: AVE avg_include_pad: false {fields} }}', x)
    np.testing.assert_allclose(y, caffe_pool(x, "AVE", include_pad=False, **arguments), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling_pools_all_of_a_channel(method: str) -> None:
    x = random(2, 3, 5, 4)
    [y] = run(f'type: "Pooling" pooling_param {{ pool: {method} global_pooling: true }}', x)
    np.testing.assert_allclose(y, caffe_pool(x, method, (5, 4)), rtol=1e-6, atol=1e-6)
    assert y.shape == (2, 3, 1, 1)


def test_pooling_takes_the_maximum_of_negative_values_beside_padding() -> None:
    x = -np.abs(random(1, 2, 4, 4)) - 1
    [y] = run('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 pad: 1 }', x)
    np.testing.assert_array_equal(y, caffe_pool(x, "MAX", (3, 3), (2, 2), (1, 1)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param(
            "pool: STOCHASTIC kernel_size: 2", "pool=STOCHASTIC is not converted; MAX and AVE are", id="stochastic"
        ),
        pytest.param("", "no kernel is given", id="no_kernel"),
        pytest.param("kernel_size: 2 kernel_h: 2 kernel_w: 2", "both given", id="two_kernels"),
        pytest.param("kernel_h: 2", "only one of kernel_h and kernel_w", id="half_a_kernel"),
        pytest.param("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1", "pad and pad_h/pad_w are both given", id="two_pads"),
        pytest.param("kernel_size: 2 stride_h: 2", "only one of stride_h and stride_w", id="half_a_stride"),
        pytest.param("kernel_size: 0", "kernel is (0, 0)", id="kernel_of_zero"),
        pytest.param("kernel_size: 2 stride: 0", "stride is (0, 0)", id="stride_of_zero"),
        pytest.param("kernel_size: 2 pad: 2", "pad (2, 2) is not below the kernel", id="pad_above_kernel"),
        pytest.param(
            "kernel_size: 9", "kernel of 9 with stride 1 leaves nothing of the input of 6", id="kernel_above_input"
        ),
        pytest.param("kernel_size: 2 stride: 3", "a last window outside the input", id="window_outside"),
        pytest.param("global_pooling: true kernel_size: 2", "global_pooling and a kernel", id="global_with_kernel"),
        pytest.param(
            "global_pooling: true pad: 1", "global_pooling with stride (1, 1) and pad (1, 1)", id="global_with_pad"
        ),
        pytest.param("kernel_size: 2 kernel_size_3d: 2", "3-D pooling", id="three_dimensions"),
        pytest.param("kernel_size: 2 axis: 2", "axis=2", id="other_axis"),
    ],
)
def test_pooling_refuses(fields: str, says: str) -> None:
    message = refused(f'type: "Pooling" pooling_param {{ {fields} }}', (1, 2, 6, 6))
    assert message.startswith("net.prototxt: layer 'it' (Pooling): ")
    assert says in message


def test_pooling_refuses_a_mask_of_an_average() -> None:
    message = refused('type: "Pooling" top: "y" top: "m" pooling_param { pool: AVE kernel_size: 2 }', (1, 2, 6, 6))
    assert message == "net.prototxt: layer 'it' (Pooling): has two tops; only MAX has a mask"


@pytest.mark.parametrize(
    ("size", "fields", "expected"),
    [
        pytest.param(9, "kernel_size: 2 stride: 2", 5, id="up"),
        pytest.param(9, "kernel_size: 2 stride: 2 ceil_mode: true", 5, id="ceil_mode"),
        pytest.param(9, "kernel_size: 2 stride: 2 ceil_mode: false", 4, id="no_ceil_mode"),
        pytest.param(9, "kernel_size: 2 stride: 2 round_mode: FLOOR", 4, id="round_mode_floor"),
        pytest.param(9, "kernel_size: 2 stride: 2 round_mode: CEIL", 5, id="round_mode_ceil"),
        pytest.param(8, "kernel_size: 3 stride: 2 pad: 1 ceil_mode: false", 4, id="padded"),
        pytest.param(1, "kernel_size: 2 stride: 2", 1, id="kernel_over_the_input"),
        pytest.param(2, "kernel_size: 3 stride: 2", 1, id="kernel_over_the_input_of_2"),
    ],
)
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_pooling_rounds_its_size_as_told(pool: str, size: int, fields: str, expected: int) -> None:
    p = text_format.Parse(fields, PoolingParameter())
    x = random(2, 3, size, size)
    [y] = run(f'type: "Pooling" pooling_param {{ pool: {pool} {fields} }}', x)
    assert y.shape == (2, 3, expected, expected)
    for i, j in np.ndindex(expected, expected):
        rows = slice(max(i * p.stride - p.pad, 0), i * p.stride - p.pad + p.kernel_size)
        columns = slice(max(j * p.stride - p.pad, 0), j * p.stride - p.pad + p.kernel_size)
        window = x[:, :, rows, columns]
        area = p.kernel_size**2 if p.pad else window[0, 0].size
        value = window.max(axis=(2, 3)) if pool == "MAX" else window.sum(axis=(2, 3)) / area
        np.testing.assert_allclose(y[:, :, i, j], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fields", ["kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2 pad: 1"])
def test_pooling_masks_the_first_of_the_largest(fields: str) -> None:
    p = text_format.Parse(fields, PoolingParameter())
    x = np.random.default_rng(0).integers(0, 4, (2, 3, 7, 6)).astype(np.float32)
    y, mask = run(f'type: "Pooling" top: "y" top: "m" pooling_param {{ {fields} }}', x)
    assert y.shape == mask.shape
    for n, c, i, j in np.ndindex(*y.shape):
        best, place = -np.inf, -1
        for row in range(max(i * p.stride - p.pad, 0), min(i * p.stride - p.pad + p.kernel_size, 7)):
            for column in range(max(j * p.stride - p.pad, 0), min(j * p.stride - p.pad + p.kernel_size, 6)):
                if x[n, c, row, column] > best:
                    best, place = x[n, c, row, column], row * 6 + column
        assert (y[n, c, i, j], mask[n, c, i, j]) == (best, place)


def test_pooling_refuses_a_matrix() -> None:
    assert "its input has 2 axes" in refused('type: "Pooling" pooling_param { kernel_size: 2 }', (3, 4))


@pytest.mark.parametrize("pool", ["MAX", "AVE", "AVE_EXC_PAD"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "ceil"),
    [
        (3, 2, (0, 1, 0, 1), "false"),
        (3, 2, (1, 0, 1, 1), "false"),
        (3, 2, (0, 1, 0, 1), "true"),
        (3, 2, (1, 2, 2, 1), "true"),
        (2, 1, (1, 1, 1, 1), "true"),
    ],
)
def test_pooling_pads_each_side_by_itself(
    pool: str, kernel: int, stride: int, pads: tuple[int, int, int, int], ceil: str
) -> None:
    """Synopsys Caffe's loops: windows are clipped at size + pad behind, and AVE divides by what is left of them."""
    top, bottom, left, right = pads
    fields = f"pad_t: {top} pad_b: {bottom} pad_l: {left} pad_r: {right} ceil_mode: {ceil}"
    x = random(2, 3, 7, 8)
    [y] = run(f'type: "Pooling" pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} {fields} }}', x)
    sizes = []
    for n, before, behind in ((7, top, bottom), (8, left, right)):
        room = (n + before + behind - kernel) / stride
        n_out = (math.ceil(room) if ceil == "true" else math.floor(room)) + 1
        sizes.append(n_out - 1 if (n_out - 1) * stride >= n + before else n_out)
    assert y.shape[2:] == tuple(sizes)
    for i, j in np.ndindex(*sizes):
        first, begin = i * stride - top, j * stride - left
        last, end = min(first + kernel, 7 + bottom), min(begin + kernel, 8 + right)
        window = x[:, :, max(first, 0) : min(last, 7), max(begin, 0) : min(end, 8)]
        area = (last - first) * (end - begin) if pool == "AVE" else window[0, 0].size
        value = window.max(axis=(2, 3)) if pool == "MAX" else window.sum(axis=(2, 3)) / area
        np.testing.assert_allclose(y[:, :, i, j], value, rtol=1e-5, atol=1e-6)


def test_pooling_refuses_pads_of_two_kinds() -> None:
    assert "keep one kind" in refused('type: "Pooling" pooling_param { kernel_size: 3 pad: 1 pad_l: 1 }', (1, 2, 6, 6))
    assert "pad_type=1 is not" in refused('type: "Pooling" pooling_param { kernel_size: 3 pad_type: 1 }', (1, 2, 6, 6))
