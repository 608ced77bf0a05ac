"""How many axes values have, by the prototxt."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.quantize.axes import known_axes
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer


def graph_of(source: str, first: str, between: str = "") -> Graph:
    text = f"""
    {source}
    layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: 2 {first} }} }}
    layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}
    {between}
    layer {{ name: "d" type: "Convolution" bottom: "c" top: "d" convolution_param {{ num_output: 2 kernel_size: 1 }} }}
    """
    return build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")


def fed(n_axes: int) -> str:
    return f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {"dim: 2 " * n_axes} }} }} }}'


HDF5 = 'layer { name: "x" type: "HDF5Data" top: "x" hdf5_data_param { source: "l" } }'
IMAGES = 'layer { name: "x" type: "Data" top: "x" top: "l" data_param { source: "l" } }'


@pytest.mark.parametrize(
    ("source", "first", "axes"),
    [
        (fed(3), "kernel_size: 1", 3),
        (fed(4), "kernel_size: 1", 4),
        (fed(5), "kernel_size: 1", 5),
        (HDF5, "kernel_size: [1, 1, 1]", 5),
        (IMAGES, "kernel_size: 1", 4),
        (HDF5, "kernel_size: 1", None),
    ],
)
def test_known_axes(source: str, first: str, axes: int | None) -> None:
    graph = graph_of(source, first)
    assert known_axes(graph).get(Blob("d", 0)) == axes
    refused = Quantizer(graph, Options(enable_1st_conv=True)).refused
    assert set(refused) == ({"c", "d"} if axes in (3, 5) else set())
    assert set(refused.values()) <= {f"its input has {axes} axes, and INT8 is for images, of 4"}


def test_a_layer_that_may_change_the_shape_ends_what_is_known() -> None:
    graph = graph_of(fed(5), "kernel_size: 1", 'layer { name: "p" type: "Permute" bottom: "c" top: "p" }')
    assert Blob("p", 0) not in known_axes(graph)
