"""Distances of a residual net do not depend, to the bit, on which candidates stand beside each other."""

from collections.abc import Mapping

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, build_graph
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch
from distcalib.engine.builder import build_model
from distcalib.engine.ranking import BaseParts, RankSpec, compile_ranking, planned
from distcalib.engine.ranking_split import Most, Pace, divided
from distcalib.engine.spec import NetSpec
from distcalib.layers import FileBlobs
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration
from tests.engine.test_architectures import SHAPE, Drawn, program, weights_of

FC = Blob("fc", 0)


def residual(n_blocks: int) -> caffe_pb2.NetParameter:
    """Blocks of two convolutions beside what they read, in the first behind a convolution of its own."""
    net = Drawn()
    top = net.conv("first", 32)
    for block in range(n_blocks):
        beside = top if block else net.conv("0/shortcut", 32, top, k=1, relu=False)
        net.conv(f"{block}/1", 32, top)
        branch = net.conv(f"{block}/2", 32, relu=False)
        net.add(f"{block}", "Eltwise", beside, branch)
        top = net.add(f"{block}/relu", "ReLU", in_place=True)
    net.conv("last", 16)
    return text_format.Parse(net.end(), caffe_pb2.NetParameter())


class Ranked:
    """The candidates of a net, one INT8 layer each, on drawn images and weights."""

    def __init__(self, net: caffe_pb2.NetParameter) -> None:
        self.net = net
        graph, weights = build_graph(net.layer, "net"), weights_of(net)
        self.blobs = FileBlobs(weights, "w")
        self.images: NDArray[np.float32] = np.abs(np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
        quantizer = Quantizer(graph, Options("multiple"))
        built = build_model(graph, self.blobs, {"data": SHAPE}, "net", taps=quantizer.observed)
        outputs, ranges = program(built).run({"data": self.images})
        assert ranges is not None
        seen = merge_ranges(quantizer.observed, [[observe_ends(*ends) for ends in ranges.tolist()]])
        self.calibration = Calibration(quantizer, seen, weights)
        self.reference = {0: (outputs[FC],)}
        space = quantizer.space
        specs = {name: self.spec(space.smallest(name)) for name in space.all_int8.movable}
        self.plan = planned(NetSpec(net.SerializeToString(), "net"), specs, [FC])

    def spec(self, candidate: Candidate) -> NetSpec:
        net, params = caffe_pb2.NetParameter(), self.calibration.params(candidate)
        net.CopyFrom(self.net)
        for layer in net.layer:
            if layer.name in params:
                layer.quantization_param.CopyFrom(params[layer.name])
        return NetSpec(net.SerializeToString(), "net")

    def distances(self, n_actors: int, arithmetic: Arithmetic) -> Mapping[str, float]:
        """From the pieces for so many actors."""
        batch = Batch({"data": self.images}, frozenset(), 0, SHAPE[0], frozenset(), ())
        found: dict[str, float] = {}
        for piece in divided(self.plan, (0,), n_actors, Most(100, 100), Pace(1.0, 0.1)):
            spec = RankSpec(piece.candidates, (FC,), self.reference, (1.0,), self.plan.base, self.plan.cuts)
            base = BaseParts(spec, lambda _: self.blobs, {"data": SHAPE}, 1, arithmetic)
            found.update(compile_ranking(spec, base).distances(0, batch))
        return found


@pytest.fixture(scope="module")
def ranked(small_parts: None) -> Ranked:
    return Ranked(residual(6))


@pytest.mark.parametrize("arithmetic", [NATIVE, Arithmetic(emulated=True)], ids=["native", "emulated"])
def test_ranking_of_a_residual_net_is_the_same_to_the_bit_in_any_pieces(ranked: Ranked, arithmetic: Arithmetic) -> None:
    assert len(ranked.plan.cuts) > 2
    alone = ranked.distances(1, arithmetic)
    assert len(alone) > 10
    assert ranked.distances(1000, arithmetic) == alone, "a candidate a piece"
