"""Names of layers that a net has twice, or not at all."""

from distcalib.caffe import caffe_pb2
from distcalib.caffe.names import name_apart


def test_name_apart_keeps_the_first_and_renames_the_others() -> None:
    layers = [caffe_pb2.LayerParameter(name=name, type="ReLU") for name in ("a", "r", "r", "r_2", "r", "", "", "b")]
    said = name_apart(layers, {"r_4", "ReLU_2"})
    assert [layer.name for layer in layers] == ["a", "r", "r_3", "r_2", "r_5", "", "ReLU_3", "b"]
    assert said == [
        "layer 'r' (ReLU) has the name of one before it; it is called 'r_3' here",
        "layer 'r' (ReLU) has the name of one before it; it is called 'r_5' here",
        "layer '' (ReLU) has no name; it is called 'ReLU_3' here",
    ]


def test_name_apart_leaves_a_sound_net_alone() -> None:
    layers = [caffe_pb2.LayerParameter(name=name) for name in "abc"]
    assert name_apart(layers, ()) == []
    assert [layer.name for layer in layers] == ["a", "b", "c"]
