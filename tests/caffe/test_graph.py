"""Names of storage become values."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import test_net
from distcalib.caffe.caffe_pb2 import NetParameter
from distcalib.caffe.graph import Blob, Graph, build_graph, overwritten, shared_in_place
from distcalib.errors import FormatError


def make_graph(text: str) -> Graph:
    return build_graph(test_net(text_format.Parse(text, NetParameter())).layer, "net.prototxt")


INPUT = 'layer { name: "x" type: "Input" top: "x" }\n'
IN_PLACE = """
layer { name: "x" type: "Input" top: "x" }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" }
layer { name: "early" type: "Pooling" bottom: "c" top: "early" }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "late" type: "Pooling" bottom: "c" top: "late" }
"""


def test_graph_tells_what_was_read_before_and_after_an_in_place_layer() -> None:
    graph = make_graph(IN_PLACE)
    reads = {node.name: [str(b) for b in node.bottoms] for node in graph}
    assert reads == {"x": [], "c": ["x"], "early": ["c"], "relu": ["c"], "late": ["c#1"]}
    assert [node.name for node in graph.consumers[Blob("c", 0)]] == ["early", "relu"]
    assert graph.producer[Blob("c", 1)].name == "relu"
    assert graph.outputs == (Blob("early", 0), Blob("late", 0))


def test_graph_keeps_the_residual_of_an_in_place_sum_apart() -> None:
    graph = make_graph(
        """
        layer { name: "x" type: "Input" top: "x" }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" }
        layer { name: "s" type: "Eltwise" bottom: "x" bottom: "c" top: "x" }
        """
    )
    assert graph.nodes[2].bottoms == (Blob("x", 0), Blob("c", 0))
    assert graph.nodes[2].tops == (Blob("x", 1),)
    assert graph.outputs == (Blob("x", 1),)


@pytest.mark.parametrize(
    ("blob", "reader"),
    [
        pytest.param(Blob("c", 0), None, id="two_readers"),
        pytest.param(Blob("c", 1), "late", id="one_reader"),
        pytest.param(Blob("late", 0), None, id="no_reader"),
    ],
)
def test_only_consumer_is_a_layer_that_reads_alone(blob: Blob, reader: str | None) -> None:
    found = make_graph(IN_PLACE).only_consumer(blob)
    assert (found and found.name) == reader


def test_only_consumer_counts_a_layer_that_reads_twice_once() -> None:
    graph = make_graph(INPUT + 'layer { name: "s" type: "Eltwise" bottom: "x" bottom: "x" top: "s" }')
    assert graph.only_consumer(Blob("x", 0)) is graph.nodes[1]


def test_graph_takes_layers_of_one_name_in_different_phases() -> None:
    graph = make_graph(
        """
        layer { name: "x" type: "Input" top: "x" }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" include { phase: TRAIN } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" include { phase: TEST } }
        """
    )
    assert [node.name for node in graph] == ["x", "c"]


def test_graph_takes_two_data_layers_of_one_name() -> None:
    graph = make_graph(
        'layer { name: "data" type: "DummyData" top: "x" } layer { name: "data" type: "DummyData" top: "y" }'
    )
    assert graph.outputs == (Blob("x", 0), Blob("y", 0))


def test_graph_sorts_outputs_by_name_as_caffe_prints_them() -> None:
    graph = make_graph('layer { name: "x" type: "Input" top: "b" top: "a" }')
    assert [str(blob) for blob in graph.outputs] == ["a", "b"]


def test_graph_names_everything_that_is_wrong_at_once() -> None:
    with pytest.raises(FormatError) as caught:
        make_graph(
            """
            layer { name: "x" type: "Input" top: "x" }
            layer { name: "c" type: "Convolution" bottom: "nowhere" top: "c" }
            layer { name: "c" type: "ReLU" bottom: "c" top: "c" }
            layer { name: "d" type: "Convolution" bottom: "c" top: "x" }
            """
        )
    message = str(caught.value)
    assert message.startswith("net.prototxt: ")
    for part in (
        "layer 'c' (Convolution) reads blob 'nowhere', which no layer before it makes",
        "layer name 'c' is used twice; give each layer its own",
        "layer 'd' (Convolution) makes blob 'x', which is there already",
    ):
        assert part in message


def test_graph_refuses_as_caffe_does_a_top_that_is_not_the_bottom_of_the_same_place() -> None:
    with pytest.raises(FormatError, match="makes blob 'x', which is there already"):
        make_graph(
            """
            layer { name: "x" type: "Input" top: "x" top: "y" }
            layer { name: "s" type: "Eltwise" bottom: "y" bottom: "x" top: "x" }
            """
        )


OTHER = 'layer { name: "q" type: "Power" bottom: "x" top: "q" }'
AGAIN = 'layer { name: "n" type: "ReLU" bottom: "x" top: "x" }'


@pytest.mark.parametrize(("text", "says"), [(OTHER + AGAIN, 1), (AGAIN + OTHER, 0)], ids=["before", "after"])
def test_overwritten_names_what_another_reads_as_it_was(text: str, says: int) -> None:
    assert len(overwritten(make_graph(INPUT + text))) == says


ELTWISE = 'layer { name: "b" type: "Power" bottom: "x" top: "b" } layer { name: "e" type: "Eltwise" '
SHARED = (
    'layer { name: "p" type: "Power" bottom: "x" top: "p" } layer { name: "f" type: "Flatten" bottom: "p" top: "f" }'
    ' layer { name: "n" type: "ReLU" bottom: "f" top: "f" }'
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ELTWISE + 'bottom: "b" bottom: "x" top: "b" }', ["layer 'e' (Eltwise): works in place on 'b'"]),
        (ELTWISE + 'bottom: "x" bottom: "b" top: "y" }', []),
        (ELTWISE + 'bottom: "b" bottom: "x" top: "b" eltwise_param { operation: PROD } }', []),
        (
            SHARED + 'layer { name: "r" type: "Power" bottom: "p" top: "r" }',
            ["layer 'r' (Power): reads 'p', which Caffe lets layer 'n' (ReLU) change, for 'f' (Flatten) shares"],
        ),
        (SHARED, []),
    ],
    ids=["eltwise", "own top", "product", "shared", "not read again"],
)
def test_shared_in_place_names_what_caffe_reads_changed(text: str, says: list[str]) -> None:
    found = shared_in_place(make_graph(INPUT + text))
    assert [said[: len(wanted)] for said, wanted in zip(found, says, strict=True)] == says
