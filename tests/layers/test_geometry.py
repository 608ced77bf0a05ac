"""Kernel, stride, pad and dilation in all of Caffe's spellings."""

import pytest

from distcalib.errors import UnsupportedError
from distcalib.layers import Geometry, kernel_geometry
from tests.layers.harness import make_layer


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param("kernel_size: 3", Geometry((3, 3), (1, 1), (0, 0), (1, 1)), id="defaults"),
        pytest.param(
            "kernel_size: 3 stride: 2 pad: 1 dilation: 4", Geometry((3, 3), (2, 2), (1, 1), (4, 4)), id="one_for_both"
        ),
        pytest.param(
            "kernel_size: 3 kernel_size: 5 stride: 2 stride: 1 pad: 1 pad: 0 dilation: 1 dilation: 2",
            Geometry((3, 5), (2, 1), (1, 0), (1, 2)),
            id="one_an_axis",
        ),
        pytest.param(
            "kernel_h: 1 kernel_w: 7 stride_h: 2 stride_w: 3 pad_h: 0 pad_w: 3",
            Geometry((1, 7), (2, 3), (0, 3), (1, 1)),
            id="h_and_w",
        ),
        pytest.param(
            "kernel_h: 1 kernel_w: 7 pad_w: 3", Geometry((1, 7), (1, 1), (0, 3), (1, 1)), id="half_a_pad_is_zero"
        ),
        pytest.param("kernel_h: 1 kernel_w: 7 pad: 2", Geometry((1, 7), (1, 1), (2, 2), (1, 1)), id="mixed"),
    ],
)
def test_kernel_geometry_reads(fields: str, expected: Geometry) -> None:
    assert kernel_geometry(make_layer(f'type: "Convolution" convolution_param {{ {fields} }}')) == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param("", "kernel_size is given 0 times", id="none"),
        pytest.param(
            "kernel_size: 3 kernel_h: 3 kernel_w: 3", "kernel_size and kernel_h/kernel_w are both given", id="both"
        ),
        pytest.param("kernel_size: 1 kernel_size: 1 kernel_size: 1", "kernel_size is given 3 times", id="three"),
        pytest.param("kernel_h: 3", "kernel is (3, 0); it must be above zero", id="half_a_kernel"),
        pytest.param("kernel_size: 3 stride: 0", "stride is (0, 0)", id="stride_of_zero"),
        pytest.param("kernel_size: 3 pad: 1 pad_h: 1", "pad and pad_h/pad_w are both given", id="two_pads"),
    ],
)
def test_kernel_geometry_refuses(fields: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=r"^net\.prototxt: layer 'it' ") as caught:
        kernel_geometry(make_layer(f'type: "Convolution" convolution_param {{ {fields} }}'))
    assert says in str(caught.value)


def test_geometry_tells_the_size_that_a_deconvolution_gives() -> None:
    assert Geometry((4, 3), (2, 1), (1, 1), (1, 2)).deconv_size((4, 7)) == (8, 9)
