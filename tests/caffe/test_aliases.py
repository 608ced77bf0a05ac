"""Memory that layers share, in damaged nets too; what is computed of it: tests/engine/test_shared_blobs.py."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph


@pytest.mark.parametrize("type_", ["Flatten", "Reshape", "Split", "Concat", "Eltwise", "Silence"])
def test_layers_without_bottoms_or_tops_are_followed(type_: str) -> None:
    """What a damaged prototxt may have; that such a layer cannot be run is told by whoever converts it."""
    for ends in ('top: "a"', 'bottom: "data"', ""):
        layers = f'layer {{ name: "i" type: "Input" top: "data" }} layer {{ name: "x" type: "{type_}" {ends} }}'
        net = text_format.Parse(layers, caffe_pb2.NetParameter())
        assert len(build_graph(net.layer, "net").nodes) >= 2
