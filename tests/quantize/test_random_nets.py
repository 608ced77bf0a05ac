"""What calibration assumes of storage is what `storage` says of the parameters that it wrote, on random nets.

The two walk the net in different ways: scales.py asks what will be read as integers, storage.py follows what a file
says. Where they differ, a value is rounded twice, or a sum falls back to FP32 in Intel Caffe unmeasured.
"""

import random
from collections.abc import Iterator

import pytest

from distcalib.caffe.caffe_pb2 import QuantizationParameter
from distcalib.caffe.graph import Blob
from distcalib.caffe.steps import CAFFE, UNFUSED
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.fusion import Fused, find_fused
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from distcalib.quantize.storage import Storage, input_grid, runs_int8, storage
from tests.quantize.nets import make_graph, mended_graph, random_net, weights_of

KEEP_INTEGERS = ("ReLU", "Split", "Pooling", "Concat")


class Made:
    """A random net, a random candidate of it, its parameters, and how they store the net."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = random.Random(seed)
        base = mended_graph(make_graph(*random_net(rng)))
        self.quantizer = Quantizer(base, Options(enable_1st_conv=rng.random() < 0.5))
        self.ranges = {blob: Range(-rng.uniform(0.1, 9), rng.uniform(0.1, 9)) for blob in self.quantizer.observed}
        calibration = Calibration(self.quantizer, self.ranges, weights_of(base))
        order = self.quantizer.space.order
        self.candidate: Candidate = self.quantizer.space.candidate(n for n in order if rng.random() < 0.8)
        self.params: dict[str, QuantizationParameter] = calibration.params(self.candidate)
        self.graph = mended_graph(base, self.params)
        self.groups = find_fused(self.graph)
        self.stored: Storage = storage(self.graph, self.groups, self.params)

    def read_as_integers(self, blob: Blob) -> bool:
        """Whether an INT8 layer reads `blob`, or what layers that keep integers make of it."""
        if any(blob in (self.groups[name].input, self.groups[name].residual) for name in self.params):
            return True
        readers = [node for node in self.graph.consumers.get(blob, ()) if node.type in KEEP_INTEGERS]
        return any(self.read_as_integers(top) for node in readers for top in node.tops if top in self.stored)


@pytest.fixture(scope="module")
def nets() -> list[Made]:
    return [Made(seed) for seed in range(300)]


def groups(nets: list[Made]) -> Iterator[tuple[Made, Fused, QuantizationParameter, str]]:
    """Each INT8 layer of each net: net, group, parameter, and where that is."""
    for net in nets:
        for name, param in net.params.items():
            yield net, net.groups[name], param, f"seed {net.seed}: {name}"


def test_params_are_of_layers_that_run_int8(nets: list[Made]) -> None:
    for net in nets:
        running = {name for name, group in net.groups.items() if runs_int8(group, net.params, net.stored)}
        assert running == set(net.params) == net.candidate.int8, net.seed


def test_no_int8_layer_rounds_its_input_again(nets: list[Made]) -> None:
    for net, group, param, where in groups(nets):
        reading = net.stored.run.reads[group.node.index][0]
        assert reading.grid in (None, input_grid(param)), where


def test_every_scale_out_is_of_the_range_and_the_stored_type(nets: list[Made]) -> None:
    for net, group, param, where in groups(nets):
        grid = net.stored.get(group.output)
        if grid is None:
            assert (param.bw_layer_out, param.scale_out[0]) == (32, 1.0), where
        else:
            largest = (127 if grid.signed else 255) / grid.scale
            assert param.bw_layer_out == 8, where
            # Where a layer in front has an engine, a ReLU may be fused here that is not in the FP32 net.
            seen = [found.max_abs for blob, found in net.ranges.items() if blob.name == group.output.name]
            assert any(largest == pytest.approx(size, rel=1e-6) for size in seen), where


def test_u8_stores_no_value_that_can_be_negative(nets: list[Made]) -> None:
    for net, group, _, where in groups(nets):
        grid = net.stored.get(group.output)
        assert grid is None or grid.signed or group.nonnegative, where


def test_integers_are_stored_where_they_are_read(nets: list[Made]) -> None:
    for net, group, _, where in groups(nets):
        if group.output not in net.stored:
            fp32 = group.name in net.quantizer.fp32_outputs or group.residual is not None
            assert fp32 or not net.read_as_integers(group.output), where
        elif group.residual is None:
            assert net.read_as_integers(group.output), where


def test_stored_types_are_those_foreseen(nets: list[Made]) -> None:
    for net in nets:
        for blob, grid in net.stored.items():
            # None: FP32 that an INT8 layer has rounded, and what is made of that
            assert net.quantizer.stored_signed(blob) in (None, grid.signed), f"seed {net.seed}: {blob}"
        for group in net.groups.values():
            if group.output in net.stored and group.output in net.quantizer.observed:
                foreseen = net.quantizer.stored_signed(group.output)
                assert foreseen == net.stored[group.output].signed, f"seed {net.seed}: {group.name}"


def test_integers_of_one_type_do_not_meet_in_an_eltwise_that_is_not_fused(nets: list[Made]) -> None:
    for net in nets:
        fused = {group.eltwise for group in net.groups.values()}
        for node in net.graph:
            if node.type == "Eltwise" and node not in fused and node.layer.engine != "CAFFE":
                signs = [net.stored[blob].signed for blob in node.bottoms if blob in net.stored]
                assert len(signs) < len(node.bottoms) or len(set(signs)) > 1, f"seed {net.seed}: {node.name}"


def test_random_nets_show_all_that_they_should(nets: list[Made]) -> None:
    """The properties above are not empty: what they speak of occurs often."""
    sums = [net.stored[group.output].signed for net, group, _, _ in groups(nets) if group.residual is not None]
    concats = [node for net in nets for node in net.graph if node.type == "Concat" and node.tops[0] in net.stored]
    assert min(sums.count(True), sums.count(False), len(concats)) > 10
    assert sum(bool(net.quantizer.fp32_outputs) for net in nets) > 20
    engines = [node.layer.engine for net in nets for node in net.graph]
    assert min(engines.count(UNFUSED), engines.count(CAFFE)) > 100
    assert sum(len(net.candidate.int8) < len(net.quantizer.space.order) for net in nets) > 100
