"""Where candidates are said to be the FP32 net, they are; and the net is cut where few values live."""

import random
from collections.abc import Iterator, Mapping

import numpy as np
import openvino as ov
import pytest

from distcalib.caffe import caffe_pb2
from distcalib.caffe.aliases import SHARED
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.data import DATA_TYPES
from distcalib.engine.builder import build_model, layer_shapes, needed_for
from distcalib.engine.ranking import planned
from distcalib.engine.ranking_parts import NetParts, cuts_of, live_values
from distcalib.engine.spec import NetSpec
from distcalib.layers import RandomBlobs, ZeroBlobs
from distcalib.quantize.fusion import find_fused, in_run_order
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.quantize.nets import (
    conv,
    eltwise,
    layer,
    make_graph,
    mended_graph,
    random_joined_net,
    random_net,
    relu,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("small_parts")

SHAPES = {"x": (1, 2, 8, 8)}


def spec_of(graph: Graph, changed: Mapping[str, tuple[np.ndarray, ...]] | None = None) -> NetSpec:
    net = caffe_pb2.NetParameter(layer=[node.layer for node in graph if node.type != SHARED])
    return NetSpec(net.SerializeToString(), "net", changed=changed or {})


class Made:
    """A random net and its candidates of one INT8 layer each, with what that needs."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        draw = random_joined_net if seed % 3 == 0 else random_net
        layers = [caffe_pb2.LayerParameter.FromString(n.layer.SerializeToString()) for n in make_graph(*draw(rng))]
        for one in layers:
            if one.type == "Pooling":
                one.pooling_param.kernel_size = 1
        self.graph = mended_graph(build_graph(layers, "net"))
        quantizer = Quantizer(self.graph, Options(enable_1st_conv=rng.random() < 0.5))
        ranges = {blob: Range(-rng.uniform(0.1, 9), rng.uniform(0.1, 9)) for blob in quantizer.observed}
        calibration, space = Calibration(quantizer, ranges, weights_of(self.graph)), quantizer.space
        self.specs = {
            name: spec_of(mended_graph(self.graph, calibration.params(space.smallest(name))))
            for name in space.all_int8.movable
        }
        self.outputs = [blob for blob in self.graph.outputs if self.graph.producer[blob].type not in DATA_TYPES]
        self.sizes, problems = layer_shapes(self.graph, ZeroBlobs(), SHAPES, "net")
        self.runs = not problems

    def model(self, net: NetParts, begin: int, end: int) -> ov.Model:
        """What the parts make, of what lives where they begin."""
        given = {blob: self.sizes[blob] for blob in net.begin(begin)}
        return build_model(net.graph, RandomBlobs(0), SHAPES, "net", keep=net.made(begin, end), given=given).model


def described(model: ov.Model) -> list[object]:
    """All that a model computes."""
    place = {op: i for i, op in enumerate(model.get_ordered_ops())}
    told: list[object] = []
    for op in place:
        reads = [
            (place[source.get_node()], source.get_index()) for source in (i.get_source_output() for i in op.inputs())
        ]
        data = op.get_data().tobytes() if op.get_type_name() == "Constant" else b""
        attributes = sorted((name, str(value)) for name, value in op.get_attributes().items())
        told.append((op.get_type_name(), reads, attributes, [str(o.get_partial_shape()) for o in op.outputs()], data))
    return told


@pytest.fixture(scope="module")
def nets() -> list[Made]:
    return [net for net in map(Made, range(60)) if net.runs]


def unlike(net: Made) -> Iterator[tuple[NetParts, NetParts, int, int]]:
    """FP32 net, candidate, and from where to before where they differ."""
    cuts = cuts_of(net.graph, net.outputs)
    base = NetParts(spec_of(net.graph), cuts, net.outputs)
    for spec in net.specs.values():
        other = NetParts(spec, cuts, net.outputs)
        yield base, other, *other.differs(base)


def test_parts_that_do_not_differ_are_built_alike(nets: list[Made]) -> None:
    n_alike = n_unlike = 0
    for net in nets:
        for base, other, begin, end in unlike(net):
            assert 0 <= begin < end <= len(base)
            for part in (*range(begin), *range(end, len(base))):
                if base.made(part, part + 1):
                    same = described(net.model(other, part, part + 1))
                    assert same == described(net.model(base, part, part + 1))
                    n_alike += 1
            n_unlike += described(net.model(other, begin, end)) != described(net.model(base, begin, end))
    assert n_alike > 100
    assert n_unlike > 100, "what is compared tells a candidate from the FP32 net"


def test_parts_together_make_the_outputs(nets: list[Made]) -> None:
    """A candidate's own parts take what the FP32 net has there, and make what that goes on with."""
    for net in nets:
        for base, _, begin, end in unlike(net):
            there = set(base.begin(begin)).union(base.made(begin, end), [Blob("x", 0)])
            assert there.issuperset(base.begin(end))
            assert base.begin(len(base)) == tuple(net.outputs)


def test_other_weights_make_a_part_another() -> None:
    graph = make_graph(*(conv(f"c{i}", f"c{i - 1}" if i else "x") for i in range(8)))
    cuts = cuts_of(graph, graph.outputs)
    weights = weights_of(graph)
    base = NetParts(spec_of(graph, {"c0": weights["c0"]}), cuts, graph.outputs)

    def differs(changed: Mapping[str, tuple[np.ndarray, ...]]) -> tuple[int, int]:
        return NetParts(spec_of(graph, changed), cuts, graph.outputs).differs(base)

    assert len(base) > 1
    assert differs({"c0": (weights["c0"][0].copy(),)}) == (len(base) - 1, len(base)), "the same numbers"
    assert differs({"c0": (weights["c0"][0] * 2,)}) == (0, 1)
    assert differs({}) == (0, 1), "those of the file"
    assert differs({"c0": weights["c0"], "c7": weights["c7"]}) == (len(base) - 1, len(base))


def test_what_a_candidate_fuses_away_it_is_not_cut_at() -> None:
    """Intel Caffe fuses the ReLU into the convolution unless its engine is Caffe's own."""
    parts = [*(conv(f"c{i}", f"c{i - 1}" if i else "x") for i in range(4)), relu("r", "c3")]
    fused = make_graph(*parts)
    layers = [caffe_pb2.LayerParameter.FromString(node.layer.SerializeToString()) for node in fused]
    layers[-2].engine = layers[-1].engine = "CAFFE"
    net = caffe_pb2.NetParameter(layer=layers)
    apart_spec = NetSpec(net.SerializeToString(), "net")
    outputs = apart_spec.graph.outputs
    cuts = ((Blob("c1", 0),), (Blob("c3", 0),))
    base, other = NetParts(apart_spec, cuts, outputs), NetParts(spec_of(fused), cuts, outputs)
    assert other.differs(base) == (1, 3)


def test_cuts_stand_at_the_ends_of_residual_blocks() -> None:
    text, top = [conv("first", "x")], "first"
    for i in range(8):
        text += [conv(f"b{i}/1", top), relu(f"b{i}/r", f"b{i}/1"), conv(f"b{i}/2", f"b{i}/1")]
        text += [eltwise(f"b{i}", f"{top} b{i}/2"), relu(f"b{i}/relu", f"b{i}")]
        top = f"b{i}"
    graph = make_graph(*text)
    cuts = cuts_of(graph, graph.outputs)
    assert [len(live) for live in cuts] == [1] * len(cuts)
    assert [live[0].name for live in cuts] == ["b0", "b2", "b4", "b6"]


@pytest.mark.parametrize("n", range(9))
def test_a_chain_is_cut_behind_every_third_product(n: int) -> None:
    graph = make_graph(*(conv(f"c{i}", f"c{i - 1}" if i else "x") for i in range(n)))
    outputs = graph.outputs if n else []
    cuts = cuts_of(graph, outputs)
    assert [live[0].name for live in cuts] == [f"c{i}" for i in range(2, n - 1, 3)]


def test_live_values_are_what_the_rest_reads(nets: list[Made]) -> None:
    for net in nets:
        groups = find_fused(net.graph)
        order = list(in_run_order(net.graph, groups))
        live = live_values(order, net.outputs, needed_for(net.graph, groups, net.outputs))
        for place in range(len(order)):
            before = {top for node, _ in order[:place] for top in node.tops}
            missing = needed_for(net.graph, groups, net.outputs, live[place])
            inputs = {top for node, _ in order if node.type in DATA_TYPES for top in node.tops}
            assert not missing & before - inputs, "all that is read is there"
            assert set(live[place]) <= before - inputs


def test_a_view_of_shared_memory_is_no_layer_that_differs() -> None:
    """What a layer in place does behind a Flatten is found under the other name, by a node that no layer is."""
    text = [conv("c0", "x"), layer("Flatten", "f", "c0"), relu("r", "f"), conv("c1", "c0"), conv("c2", "c1")]
    graph = make_graph(*text)
    assert len(graph.nodes) > len(text) + 1
    base, changed = spec_of(graph), make_graph(*text[:-1], conv("c2", "c1", "num_output: 2 kernel_size: 1 stride: 2"))
    plan = planned(base, {"same": base, "other": spec_of(changed)}, [Blob("c2", 0)])
    assert plan.begins["same"] == 1.0
    assert 0.5 < plan.begins["other"] < 1.0
