"""Layers in place on memory that others share."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.caffe.in_place import in_place_faults

INPUT = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } } '


def layer(name: str, kind: str, bottoms: str, tops: str, params: str = "") -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {params} }} '


P = layer("p", "Power", "a", "p")
TOLD = {
    "a sum": (layer("e", "Eltwise", "p a", "p"), ["'e' (Eltwise): works in place on 'p', and Caffe clears that"]),
    "a largest": (
        layer("e", "Eltwise", "p a", "p", "eltwise_param { operation: MAX }"),
        ["'e' (Eltwise): works in place on 'p', and Caffe clears"],
    ),
    "behind Flatten": (
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f") + layer("r", "Power", "p", "r"),
        ["'n' (ReLU): works in place on memory that 'p' shares in Caffe, and 'r', which reads that later,"],
    ),
    "behind two of them": (
        layer("f", "Flatten", "p", "f") + layer("g", "Reshape", "f", "g") + layer("n", "ReLU", "g", "g")
        + layer("r", "Power", "p", "r"),
        ["'n' (ReLU): works in place on memory that 'p' shares"],
    ),
    "behind another fork's Squeeze": (
        layer("f", "Squeeze", "p", "f") + layer("n", "ReLU", "f", "f") + layer("r", "Power", "p", "r"),
        ["'n' (ReLU): works in place on memory that 'p' shares in Caffe, and 'r'"],
    ),
    "a Dropout that scales": (
        layer("f", "Flatten", "p", "f") + layer("n", "Dropout", "f", "f", "dropout_param { scale_train: false }")
        + layer("r", "Power", "p", "r"),
        ["'n' (Dropout): works in place on memory that 'p' shares in Caffe, and 'r'"],
    ),
    "behind Split": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s") + layer("r", "Power", "t", "r"),
        ["'n' (ReLU): works in place on memory that 't' shares in Caffe, and 'r'"],
    ),
    "an output": (
        layer("s", "Split", "p", "s t") + layer("n", "ReLU", "s", "s"),
        ["'n' (ReLU): works in place on memory that 't' shares in Caffe, and the net's output of that name"],
    ),
    "after another reader": (
        layer("q", "Power", "p", "q") + layer("n", "ReLU", "p", "p"),
        ["'n' (ReLU): works in place on 'p', which 'q' reads as well, and Caffe refuses that"],
    ),
    "a convolution": (layer("c", "Convolution", "p", "p"), ["'c' (Convolution): works in place on 'p', and"]),
    "what Caffe refuses": (layer("f", "Flatten", "p", "p"), ["'f' (Flatten): works in place on 'p', which"]),
}  # fmt: skip


def faults(net: str, fused: tuple[int, ...] = ()) -> list[str]:
    proto = caffe_pb2.NetParameter()
    text_format.Parse(INPUT + P + net, proto)
    return [said for _, said in in_place_faults(build_graph(proto.layer, "net"), fused)]


@pytest.mark.parametrize(("net", "said"), TOLD.values(), ids=list(TOLD))
def test_in_place_faults_tells(net: str, said: list[str]) -> None:
    found = faults(net)
    assert len(found) == len(said)
    for one, begin in zip(found, said, strict=True):
        assert one.startswith(f"layer {begin}")


@pytest.mark.parametrize(
    "net",
    [
        layer("n", "ReLU", "p", "p") + layer("r", "Power", "p", "r"),
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f"),
        layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f") + layer("g", "Reshape", "f", "g"),
        layer("f", "Flatten", "p", "f") + layer("r", "Power", "p", "r") + layer("n", "ReLU", "f", "f"),
        layer("f", "Flatten", "p", "f") + layer("n", "Dropout", "f", "f") + layer("r", "Power", "p", "r"),
        layer("e", "Eltwise", "p a", "p", "eltwise_param { operation: PROD }"),
        layer("c", "Concat", "p a", "c") + layer("n", "ReLU", "c", "c") + layer("r", "Power", "p", "r"),
    ],
    ids=["the usual", "the end", "all behind it", "read before", "nothing changed", "a product", "copied"],
)
def test_in_place_faults_leaves_alone_what_is_right(net: str) -> None:
    assert faults(net) == []


def test_in_place_faults_knows_of_sums_inside_a_convolution() -> None:
    assert faults(layer("e", "Eltwise", "p a", "p"), fused=(2,)) == []
