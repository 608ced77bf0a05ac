"""Layers in place on memory that others share."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, build_graph
from distcalib.caffe.in_place import in_place_faults, in_place_notes

INPUT = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } } '


def layer(name: str, kind: str, bottoms: str, tops: str, params: str = "") -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {params} }} '


P = layer("p", "Power", "a", "p")
R = layer("r", "Power", "p", "r")
COMPUTED = {
    "a sum": (layer("e", "Eltwise", "p a", "p"), ["'e' (Eltwise): works in place on 'p': as in Caffe, which clears"]),
    "a largest": (
        layer("e", "Eltwise", "p a", "p", "eltwise_param { operation: MAX }"),
        ["'e' (Eltwise): works in place on 'p': as in Caffe, which clears"],
    ),
    "behind Flatten": (
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f") + R,
        ["'n' (ReLU): works in place on memory that 'p' shares, and 'r', which reads that later,"],
    ),
    "behind two of them": (
        layer("f", "Flatten", "p", "f") + layer("g", "Reshape", "f", "g") + layer("n", "ReLU", "g", "g") + R,
        ["'n' (ReLU): works in place on memory that 'p' shares"],
    ),
    "behind another fork's Squeeze": (
        layer("f", "Squeeze", "p", "f") + layer("n", "ReLU", "f", "f") + R,
        ["'n' (ReLU): works in place on memory that 'p' shares, and 'r'"],
    ),
    "a Dropout that scales": (
        layer("f", "Flatten", "p", "f") + layer("n", "Dropout", "f", "f", "dropout_param { scale_train: false }") + R,
        ["'n' (Dropout): works in place on memory that 'p' shares, and 'r'"],
    ),
    "behind Split": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s") + layer("r", "Power", "t", "r"),
        ["'n' (ReLU): works in place on memory that 't' shares, and 'r'"],
    ),
    "an output": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s"),
        ["'n' (ReLU): works in place on memory that 't' shares, and the net's output of that name"],
    ),
}
REFUSED = {
    "after another reader": (
        layer("q", "Power", "p", "q") + layer("n", "ReLU", "p", "p"),
        "'n' (ReLU): works in place on 'p', which 'q' reads as well, and Caffe refuses that",
    ),
    "twice": (layer("e", "Eltwise", "p p", "p"), "'e' (Eltwise): works in place on 'p', which 'e' reads as well, and"),
    "a convolution": (layer("c", "Convolution", "p", "p"), "'c' (Convolution): works in place on 'p', and"),
    "what Caffe refuses": (layer("f", "Flatten", "p", "p"), "'f' (Flatten): works in place on 'p', which"),
    "what Caffe refuses, on memory that was written over": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s") + layer("w", "AbsVal", "t", "t"),
        "'w' (AbsVal): works in place on 't', which Caffe refuses",
    ),
    "pooling on memory that was written over": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s") + layer("w", "Pooling", "t", "t"),
        "'w' (Pooling): works in place on 't', and",
    ),
}


def graph_of(net: str) -> Graph:
    proto = caffe_pb2.NetParameter()
    text_format.Parse(INPUT + P + net, proto)
    return build_graph(proto.layer, "net")


@pytest.mark.parametrize(("net", "said"), COMPUTED.values(), ids=list(COMPUTED))
def test_in_place_notes_tells_what_is_computed(net: str, said: list[str]) -> None:
    graph = graph_of(net)
    found = [one for _, one in in_place_notes(graph)]
    assert len(found) == len(said)
    for one, begin in zip(found, said, strict=True):
        assert one.startswith(f"layer {begin}")
    assert in_place_faults(graph) == []


@pytest.mark.parametrize(("net", "said"), REFUSED.values(), ids=list(REFUSED))
def test_in_place_faults_tells_what_is_not(net: str, said: str) -> None:
    [(_, found)] = in_place_faults(graph_of(net))
    assert found.startswith(f"layer {said}")


@pytest.mark.parametrize(
    "net",
    [
        layer("n", "ReLU", "p", "p") + R,
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f"),
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f") + layer("g", "Reshape", "f", "g"),
        layer("f", "Flatten", "p", "f") + R + layer("n", "ReLU", "f", "f"),
        layer("f", "Flatten", "p", "f") + layer("n", "Dropout", "f", "f") + R,
        layer("e", "Eltwise", "p a", "p", "eltwise_param { operation: PROD }"),
        layer("c", "Concat", "p a", "c") + layer("n", "ReLU", "c", "c") + R,
    ],
    ids=["the usual", "the end", "all behind it", "read before", "nothing changed", "a product", "copied"],
)
def test_nothing_is_told_of_what_is_right(net: str) -> None:
    graph = graph_of(net)
    assert in_place_faults(graph) == in_place_notes(graph) == []
    assert not graph.views
    assert not graph.shared


def test_a_reader_of_the_same_memory_by_another_name_is_no_reader_of_the_name() -> None:
    """Caffe goes by names when it inserts Splits: 's' has one reader, whatever 'q' finds in 't'."""
    net = layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s") + layer("q", "Sigmoid", "t", "q")
    assert in_place_faults(graph_of(net + layer("w", "Power", "s", "s"))) == []


def test_in_place_notes_knows_of_sums_inside_a_convolution() -> None:
    [(_, found)] = in_place_notes(graph_of(layer("e", "Eltwise", "p a", "p")), fused=(2,))
    assert "it is added to, as in Intel Caffe, which fuses the sum" in found
