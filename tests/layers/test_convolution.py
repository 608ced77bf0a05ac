"""Convolution's product against its loop, where pads differ from side to side."""

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from distcalib.layers.convolution import convolve, weight_shape
from tests.layers.harness import CONFIG, make_layer, random, refused


@pytest.mark.parametrize("pads", [(0, 1, 0, 1), (1, 0, 2, 1), (1, 1, 1, 1), (0, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("dilation", ["", "dilation_h: 2 dilation_w: 1"], ids=["plain", "dilated"])
def test_convolve_pads_each_side_by_itself(pads: tuple[int, int, int, int], dilation: str) -> None:
    top, bottom, left, right = pads
    fields = (
        f"num_output: 4 kernel_size: 3 stride: 2 pad_t: {top} pad_b: {bottom} pad_l: {left} pad_r: {right} {dilation}"
    )
    layer = make_layer(f'type: "Convolution" convolution_param {{ {fields} }}')
    x, weight = random(2, 3, 8, 9), random(*weight_shape(layer, 3), seed=1)
    given = ops.parameter(list(x.shape), np.float32)
    model = ov.Model([ops.result(convolve(layer, given.output(0), ops.constant(weight).output(0)))], [given], "one")
    y = np.array(ov.Core().compile_model(model, "CPU", CONFIG)([x])[0])
    down = 2 if dilation else 1
    framed = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n_h, n_w = (8 + top + bottom - 2 * down - 1) // 2 + 1, (9 + left + right - 3) // 2 + 1
    assert y.shape == (2, 4, n_h, n_w)
    for i, j in np.ndindex(n_h, n_w):
        window = framed[:, :, 2 * i : 2 * i + 2 * down + 1 : down, 2 * j : 2 * j + 3]
        np.testing.assert_allclose(y[:, :, i, j], np.einsum("nchw,mchw->nm", window, weight), rtol=1e-4, atol=1e-5)


def test_convolutions_refuse_pads_of_two_kinds() -> None:
    fields = "num_output: 4 kernel_size: 3 pad: 1 pad_l: 1"
    said = refused(f'type: "Deconvolution" convolution_param {{ {fields} }}', (1, 2, 6, 6))
    assert "pad and pad_l, pad_r, pad_t, pad_b are both given" in said
    said = refused('type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 pad_l: 1 }', (1, 2, 6, 6))
    assert "are not converted here" in said
