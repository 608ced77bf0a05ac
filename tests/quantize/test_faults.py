"""Graphs that Intel Caffe computes otherwise are told by layer."""

import pytest

from distcalib.quantize.faults import intel_faults
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import Grid
from tests.quantize.nets import conv, eltwise, make_graph, relu, value


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        pytest.param([conv("a", "x"), conv("b", "x"), eltwise("s", "a b"), relu("r", "s")], [], id="projection"),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), conv("c", "b"), eltwise("s", "a c")], [], id="identity"
        ),
        pytest.param(
            [conv("a", "x"), conv("b", "a"), relu("rb", "b"), eltwise("s", "a b")],
            ["layer 's' (Eltwise): follows convolution 'b' and its ReLU"],
            id="conv_relu_eltwise",
        ),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), eltwise("s", "a b")],
            ["layer 's' (Eltwise): adds 'b' to that convolution's own input"],
            id="own_input",
        ),
        pytest.param(
            [conv("a", "x"), conv("b", "a"), relu("rb", "b"), eltwise("s", "a b", "operation: MAX")], [], id="max"
        ),
        pytest.param([conv("a", "x"), relu("ra", "a"), eltwise("s", "x a"), conv("c", "a")], [], id="relu_read_twice"),
    ],
)
def test_intel_faults(layers: list[str], said: list[str]) -> None:
    graph = make_graph(*layers)
    found = intel_faults(graph, find_fused(graph), {})
    assert len(found) == len(said)
    assert all(full.startswith(begin) for full, begin in zip(found, said, strict=True))


def test_intel_faults_tell_of_integers_that_meet_in_an_eltwise() -> None:
    graph = make_graph(conv("a", "x"), conv("b", "x"), eltwise("m", "a b", "operation: MAX"))
    groups = find_fused(graph)
    u8, s8 = Grid(1.0, signed=False), Grid(2.0, signed=True)
    [said] = intel_faults(graph, groups, {value("a"): u8, value("b"): u8})
    assert said.startswith("layer 'm' (Eltwise): has two INT8 inputs of one type")
    assert intel_faults(graph, groups, {value("a"): u8, value("b"): s8}) == []
    assert intel_faults(graph, groups, {value("a"): u8}) == []
