"""Every file that the calibrator writes keeps to Intel Caffe's rules, as `rules` tells them a second time."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from distcalib.caffe import Weights, read_net, read_weights, test_net
from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import build_graph
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
from tests.quantize.rules import File, Flags, violations

# -fu makes its file from that of -1st: test_force_u8.py.
OTHERS = ("first_conv_force_u8", "clx")
SWITCHES = [field.name for field in fields(Options) if isinstance(field.default, bool) and field.name not in OTHERS]
ROOT = Path(__file__).resolve().parents[2]


class Written:
    """A net's file for one candidate and one choice of flags, made of random ranges."""

    def __init__(
        self,
        layers: Sequence[LayerParameter],
        options: Options,
        rng: random.Random,
        keep: float,
        weights: Weights | None = None,
    ) -> None:
        self.flags = Flags(**{field.name: getattr(options, field.name) for field in fields(Flags)})
        graph = mended_graph(build_graph(layers, "net"))
        quantizer = Quantizer(graph, options)
        ranges = {blob: Range(-rng.uniform(0.1, 9), rng.uniform(0.1, 9)) for blob in quantizer.observed}
        self.largest = {(blob.name, blob.version): found.max_abs for blob, found in ranges.items()}
        calibration = Calibration(quantizer, ranges, weights_of(graph) if weights is None else weights)
        candidate = quantizer.space.candidate(name for name in quantizer.space.order if rng.random() < keep)
        self.layers = [node.layer for node in mended_graph(graph, calibration.params(candidate))]

    @property
    def violations(self) -> list[str]:
        return violations(self.layers, self.flags, self.largest)


def random_options(rng: random.Random) -> Options:
    """Mostly none of the switches, else any of them."""
    on = {name: rng.random() < 0.3 for name in SWITCHES} if rng.random() < 0.6 else {}
    channels = rng.choice(["single", "multiple"])
    return Options(**{"enable_1st_conv": rng.random() < 0.5, "weights_channel": channels, **on})  # type: ignore[arg-type]


def random_files(seeds: range) -> Iterator[tuple[str, Written]]:
    """Of each random net all INT8 and two candidates, under different flags."""
    for seed in seeds:
        rng = random.Random(seed)
        make = random_joined_net if seed % 2 else random_net
        layers = [node.layer for node in make_graph(*make(rng))]
        for keep in (1.0, 0.8, 0.5):
            options = random_options(rng)
            yield f"seed {seed}, {asdict(options)}", Written(layers, options, rng, keep)


@pytest.fixture(scope="module")
def some_files() -> list[tuple[str, Written]]:
    return list(random_files(range(200)))


def broken(files: Iterable[tuple[str, Written]]) -> dict[str, list[str]]:
    said = {where: made.violations for where, made in files}
    return {where: found for where, found in said.items() if found}


def test_files_of_random_nets_keep_to_the_rules(some_files: list[tuple[str, Written]]) -> None:
    assert broken(some_files) == {}


@pytest.mark.slow
def test_files_of_many_random_nets_keep_to_the_rules() -> None:
    assert broken(random_files(range(200, 3000))) == {}


def test_random_files_show_all_that_the_rules_are_about(some_files: list[tuple[str, Written]]) -> None:
    counts = dict.fromkeys(["u8 sum", "s8 sum", "int8 concat", "fp32 concat", "average", "through", "uff"], 0)
    for _, made in some_files:
        file = File(made.layers)
        for step in file.steps:
            stored = file.stored.get(step.makes[0]) if step.makes else None
            if step.residual is not None and stored is not None:
                counts["s8 sum" if stored[1] else "u8 sum"] += 1
            if step.layer.type == "Concat":
                inputs = sum(value in file.stored for value in step.reads)
                counts["int8 concat"] += stored is not None
                counts["fp32 concat"] += stored is None and inputs > 0
                counts["through"] += stored is not None and any(
                    file.maker[value].layer.type in ("Concat", "Pooling") for value in step.reads
                )
            if stored is not None and step.layer.pooling_param.pool == 1:
                counts["average"] += 1
            if made.flags.disable_force_fp32 and stored is not None and not file.read_as_integers(step.makes[0]):
                counts["uff"] += 1
    assert min(counts.values()) > 10, counts


INCEPTION = [
    *(conv("stem", "x"), relu("stem_relu", "stem")),
    *(conv("a", "stem"), relu("a_relu", "a")),
    *(conv("b1", "stem"), relu("b1_relu", "b1"), conv("b2", "b1"), relu("b2_relu", "b2")),
    *(layer("Pooling", "pool", "stem"), conv("c", "pool"), relu("c_relu", "c")),
    *(layer("Concat", "mixed", "a b2 c pool"), layer("Pooling", "down", "mixed"), conv("d", "down")),
    *(relu("d_relu", "d"), conv("e", "mixed"), relu("e_relu", "e"), layer("Pooling", "e_down", "e")),
    *(layer("Concat", "mixed2", "d e_down down"), conv("last", "mixed2"), relu("last_relu", "last")),
    layer("Pooling", "global", "last", "", "pooling_param { pool: AVE global_pooling: true }"),
    layer("InnerProduct", "fc", "global", "", "inner_product_param { num_output: 2 }"),
]
DENSE = [
    *(conv("k0", "x"), relu("k0_relu", "k0")),
    *(conv("k1", "k0"), layer("Concat", "j1", "k0 k1")),  # types differ: k1 has no ReLU
    *(
        layer("BatchNorm", "bn1", "j1"),
        layer("Scale", "s1", "bn1", "", "scale_param { bias_term: true }"),
        relu("s1_relu", "s1"),
    ),
    *(conv("k2", "s1"), relu("k2_relu", "k2"), conv("k3", "k2"), layer("Concat", "j2", "j1 k3")),
    *(conv("t", "j2"), relu("t_relu", "t")),
    layer("Pooling", "t_pool", "t", "", "pooling_param { pool: AVE }"),
    *(conv("k4", "t_pool"), relu("k4_relu", "k4"), layer("Concat", "j3", "t_pool k4")),
    *(conv("k5", "j3"), relu("k5_relu", "k5"), layer("Concat", "j4", "j3 k5"), conv("last", "j4")),
]


def all_flags() -> Iterator[Options]:
    """No switch, each alone, and all of them, with and without the first convolution."""
    for first in (False, True):
        for on in ([], *([name] for name in SWITCHES), SWITCHES):
            yield Options(**{"enable_1st_conv": first, **dict.fromkeys(on, True)})  # type: ignore[arg-type]


@pytest.mark.parametrize("net", [INCEPTION, DENSE], ids=["inception", "dense"])
def test_files_of_joined_nets_keep_to_the_rules(net: list[str]) -> None:
    rng = random.Random(0)
    layers = [node.layer for node in make_graph(*net)]
    for options in all_flags():
        for keep in (1.0, 0.7):
            assert Written(layers, options, rng, keep).violations == [], options


def files_of(prototxt: Path, weights: Path) -> Iterator[tuple[Options, Written]]:
    """The files of a real net, under all flags."""
    rng, layers, blobs = random.Random(0), test_net(read_net(prototxt)).layer, read_weights(weights)
    for options in all_flags():
        for keep in (1.0, 0.7):
            for channels in ("single", "multiple"):
                chosen = replace(options, weights_channel=channels)
                yield chosen, Written(layers, chosen, rng, keep, blobs)


def test_files_of_the_example_keep_to_the_rules() -> None:
    digits = ROOT / "examples" / "digits"
    for options, made in files_of(digits / "digits.prototxt", digits / "digits.caffemodel"):
        assert made.violations == [], options


@pytest.mark.golden
def test_files_of_resnet20_keep_to_the_rules(golden: Path) -> None:
    folder = golden / "cifar10"
    for options, made in files_of(folder / "resnet20.prototxt", folder / "resnet20.caffemodel"):
        assert made.violations == [], options


# The checker itself: it finds what is wrong.

SUM = [
    *(conv("a", "x"), relu("a_relu", "a")),
    *(conv("p", "a"), conv("b", "a"), eltwise("s", "p b"), relu("s_relu", "s")),
    conv("z", "s"),
]
POOLED = [conv("a", "x"), relu("a_relu", "a"), layer("Pooling", "p", "a"), conv("b", "p")]
MIXED = [conv("a", "x"), relu("a_relu", "a"), conv("b", "x"), layer("Concat", "k", "a b"), conv("z", "k")]
POOL = layer("Pooling", "pb", "b")
ADDED = [conv("a", "x"), relu("ra", "a"), conv("b", "x"), relu("rb", "b"), POOL, eltwise("m", "a pb")]


class ConstantRandom(random.Random):
    """All ranges are [-1, 1], and no layer falls back."""

    def uniform(self, a: float, b: float) -> float:
        return 1.0

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("net", "spoil", "said"),
    [
        pytest.param(SUM, ("b", {"bw_layer_out": 32}), "b: bw_layer_out 32 is ignored on a sum", id="width_of_a_sum"),
        pytest.param(SUM, ("b", {"scale_out": [255.0]}), "b: scale_out 255.0 is not 127/1.0", id="s8_sum_of_255"),
        pytest.param(SUM, ("p", {"bw_layer_out": 32, "scale_out": [1.0]}), "b: runs FP32", id="fp32_residual"),
        pytest.param(SUM, ("z", {"is_negative_input": False}), "z: is_negative_input False", id="s8_into_u8"),
        pytest.param(SUM, ("z", {"scale_in": [126.0]}), "z: scale_in 126.0, its input", id="requantized"),
        pytest.param(SUM, ("a", {"is_negative_input": False}), "a: is_negative_input False", id="negative_input"),
        pytest.param(SUM, ("z", {"scale_out": [2.0]}), "z: FP32 output and scale_out 2.0", id="scale_out_of_fp32"),
        pytest.param(SUM, ("z", {"bw_layer_out": 8}), "z: stores integers that no INT8 layer reads", id="unread"),
        pytest.param(SUM, ("a", {"bw_layer_out": 32, "scale_out": [1.0]}), "a: FP32 output, and an INT8", id="fp32"),
        pytest.param(SUM, ("p", {"scale_params": [1.0, 2.0]}), "p: 2 scale_params", id="scale_params"),
        pytest.param(POOLED, ("b", {"scale_in": [254.0]}), "b: scale_in 254.0, its input", id="through_pooling"),
        pytest.param(MIXED, ("a", {"bw_layer_out": 8, "scale_out": [255.0]}), "a: stores integers", id="mixed_concat"),
        pytest.param(MIXED, ("z", {"scale_in": [126.0]}), "z: scale_in 126.0 is not of the range", id="its_own_range"),
        pytest.param(
            ADDED, (None, {"bw_layer_out": 8}), "m: is not fused and has INT8 inputs of one type", id="eltwise"
        ),
    ],
)
def test_violations_are_found(net: list[str], spoil: tuple[str | None, dict[str, object]], said: str) -> None:
    layers = [node.layer for node in make_graph(*net)]
    made = Written(layers, Options(enable_1st_conv=True), ConstantRandom(), 1.0)
    assert made.violations == []
    for one in made.layers:
        if one.HasField("quantization_param") and spoil[0] in (None, one.name):
            for key, value in spoil[1].items():
                if isinstance(value, list):
                    getattr(one.quantization_param, key)[:] = value
                else:
                    setattr(one.quantization_param, key, value)
    assert any(line.startswith(said) for line in made.violations), made.violations


@pytest.mark.golden
def test_files_of_intels_calibrator_break_the_rules_known(golden: Path) -> None:
    """Its last block's sum is written as FP32, which Intel Caffe ignores; and its scales do not match."""
    net = test_net(read_net(golden / "cifar10" / "intel_quantized" / "resnet20_single_DIRECT_quantized.prototxt"))
    said = violations(net.layer, Flags())
    assert any("bw_layer_out 32 is ignored on a sum with an INT8 residual" in line for line in said), said
