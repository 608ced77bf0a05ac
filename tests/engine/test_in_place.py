"""A sum over its own input, stretch by stretch, against the same told in NumPy."""

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.engine.in_place import COLUMNS, can_follow, sum_in_place
from distcalib.layers import Layer, ZeroBlobs


def layer_of(param: str) -> Layer:
    text = f'name: "a" type: "Convolution" bottom: "r" top: "a" convolution_param {{ {param} }}'
    return Layer(text_format.Parse(text, LayerParameter()), ZeroBlobs())


@pytest.mark.parametrize(
    ("param", "pad", "dilation"),
    [
        pytest.param("num_output: 2 kernel_size: 3 pad: 1", 1, 1, id="plain"),
        pytest.param("num_output: 2 kernel_size: 3 pad: 2 dilation: 2", 2, 2, id="dilated"),
    ],
)
@pytest.mark.parametrize("slope", [None, 0.0, 0.25])
def test_sum_in_place_reads_what_it_has_written(param: str, pad: int, dilation: int, slope: float | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 5, 7)).astype(np.float32)
    weight, bias = rng.normal(size=(2, 2, 3, 3)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    parameter = ops.parameter(list(x.shape), np.float32)
    made = sum_in_place(layer_of(param), parameter.output(0), weight, bias, slope)
    found = ov.compile_model(ov.Model([ops.result(made)], [parameter]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        [x]
    )[0]
    memory = x.astype(np.float64)
    for h in range(5):
        for begin in range(0, 7, COLUMNS):
            padded = np.pad(memory, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
            for w in range(begin, min(begin + COLUMNS, 7)):
                patch = padded[:, :, h : h + 2 * dilation + 1 : dilation, w : w + 2 * dilation + 1 : dilation]
                y = np.einsum("ocij,ncij->no", weight, patch) + bias + memory[:, :, h, w]
                padded_y = y if slope is None else np.where(y > 0, y, slope * y)
                memory[:, :, h, w] = padded_y
    assert np.allclose(found, memory, atol=1e-3 * np.abs(memory).max())


@pytest.mark.parametrize(
    ("param", "shape", "follows"),
    [
        pytest.param("num_output: 8 kernel_size: 3 pad: 1", (1, 8, 8, 8), True, id="one_block"),
        pytest.param("num_output: 16 kernel_size: 3 pad: 1", (1, 16, 8, 8), False, id="two_blocks"),
        pytest.param("num_output: 8 kernel_size: 1", (1, 8, 8, 8), False, id="no_neighbours"),
        pytest.param("num_output: 8 kernel_size: 3 pad: 1", (1, 8, 56, 56), False, id="large"),
    ],
)
def test_can_follow_small_sums_of_one_block(param: str, shape: tuple[int, ...], follows: bool) -> None:
    assert can_follow(layer_of(param), ops.parameter(list(shape), np.float32).output(0)) == follows
