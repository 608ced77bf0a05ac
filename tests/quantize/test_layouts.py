"""How a first convolution reads the channels of an image."""

import pytest

from distcalib.caffe import caffe_pb2
from distcalib.data import DATA_TYPES
from distcalib.quantize.layouts import IMAGES, PLAIN, data_channels, source_layout


@pytest.mark.parametrize("type_", sorted(name for name in DATA_TYPES if "Image" in name or name == "AnnotatedData"))
def test_data_layers_of_images_have_three_channels(type_: str) -> None:
    assert type_ in IMAGES
    n_channels = data_channels(caffe_pb2.LayerParameter(type=type_))
    convolution = caffe_pb2.LayerParameter(type="Convolution")
    convolution.convolution_param.num_output = 64
    assert (n_channels, source_layout(convolution, n_channels, 8)) == (3, PLAIN)
