"""Planted layers: the FP32 function stays, nothing sees a scaled value unscaled, and the cure is the cure."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.caffe import Weights, read_weights
from distcalib.caffe.graph import Graph
from distcalib.calibration.trial import Trial
from distcalib.engine.builder import build_model
from distcalib.engine.net import open_net
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.errors import OptionError, WeightsError
from distcalib.layers import FileBlobs
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from scripts.bench.plant import choose, main, plant, plantable
from tests.every import every
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu

Array = NDArray[np.float32]
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.prototxt"
ITERATIONS = 18  # all images
MULTIPLE = Options(weights_channel="multiple")

WIDE = "num_output: 4 kernel_size: 1"
C, D = conv("c", "x", WIDE), conv("d", "c", WIDE)
BN = layer("BatchNorm", "b", "c", "c")
SCALE = layer("Scale", "s", "c", "c", "scale_param { bias_term: true }")
POOL = "pooling_param {{ pool: {} kernel_size: 2 stride: 2 pad: 1 }}"
GROUPED = f"{WIDE} group: {{}}"
SHARED = 'convolution_param { num_output: 4 kernel_size: 1 } param { name: "w" }'


def inner(name: str, bottom: str, param: str = "") -> str:
    return layer("InnerProduct", name, bottom, "", f"inner_product_param {{ num_output: 4 {param} }}")


def pool(kind: str) -> str:
    return layer("Pooling", "p", "c", "", POOL.format(kind))


FUNCTIONS = [
    pytest.param([C, relu("r", "c"), D], ["d"], id="bias"),
    pytest.param([C, BN, SCALE, relu("r", "c"), D], ["d"], id="batch_norm"),
    pytest.param([C, BN, layer("Scale", "s", "c", "c"), relu("r", "c", 0.1), D], ["d"], id="no_beta_leaky"),
    pytest.param([C, pool("MAX"), conv("d", "p", WIDE)], ["d"], id="max"),
    pytest.param([C, pool("AVE"), conv("d", "p", WIDE)], ["d"], id="average"),
    pytest.param([C, layer("Dropout", "o", "c"), layer("Split", "t", "o"), conv("d", "t", WIDE)], ["d"], id="identity"),
    pytest.param([C, conv("d", "c", GROUPED.format(4))], ["d"], id="depthwise"),
    pytest.param([C, conv("d", "c", GROUPED.format(2))], ["d"], id="grouped"),
    pytest.param([C, D, conv("e", "d", GROUPED.format(4)), inner("f", "e")], ["d", "e", "f"], id="chain"),
    pytest.param([inner("c", "x"), relu("r", "c"), inner("d", "c")], ["d"], id="inner_products"),
    pytest.param([inner("c", "x", "transpose: true"), inner("d", "c", "transpose: true")], ["d"], id="transposed"),
]


def blobs_of(graph: Graph) -> dict[str, tuple[Array, ...]]:
    """Random blobs, four channels everywhere and images of 4 x 4."""
    random = np.random.default_rng(1)
    found: dict[str, tuple[Array, ...]] = {}
    for node in graph:
        shapes: list[tuple[int, ...]]
        if node.type == "Convolution":
            shapes = [(4, 4 // node.layer.convolution_param.group, 1, 1), (4,)]
        elif node.type == "InnerProduct":
            n_in = 4 if find_fused(graph)[node.name].input.name == "c" else 64
            shapes = [(n_in, 4) if node.layer.inner_product_param.transpose else (4, n_in), (4,)]
        elif node.type == "Scale":
            shapes = [(4,)] * (1 + node.layer.scale_param.bias_term)
        elif node.type == "BatchNorm":
            found[node.name] = random.random(4, np.float32), 1 + random.random(4, np.float32), np.ones(1, np.float32)
            continue
        else:
            continue
        found[node.name] = tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)
    return found


def answer(graph: Graph, weights: Weights) -> Array:
    """What the net says of random images in FP32."""
    shape = (2, 4, 4, 4)
    built = build_model(graph, FileBlobs(weights, "net"), {"x": shape}, "net", keep=graph.outputs)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    outputs, _ = Program(compile_program(built, NetSpec(b"", "net"), 1), 1).run({"x": x})
    return outputs[graph.outputs[0]]


@pytest.mark.parametrize(("layers", "hard"), FUNCTIONS)
def test_plant_leaves_the_function(layers: list[str], hard: list[str]) -> None:
    graph = make_graph(*layers)
    weights = blobs_of(graph)
    assert plantable(graph) == hard
    planting = plant(graph, weights, hard, seed=0)
    assert every(k != 0 for exponents in planting.exponents.values() for k in exponents.values())
    assert every(len(planting.exponents[name]) > 0 for name in hard)
    before, after = answer(graph, weights), answer(graph, planting.weights)
    assert np.allclose(before, after, rtol=1e-6, atol=1e-6 * np.abs(before).max())


@pytest.mark.parametrize(
    ("layers", "hard"),
    [
        pytest.param([C, D, conv("e", "c", WIDE)], [], id="two_readers"),
        pytest.param([C, D, layer("AbsVal", "ear", "c")], [], id="an_ear"),
        pytest.param([C, layer("Sigmoid", "s", "c"), conv("d", "s", WIDE)], [], id="sigmoid"),
        pytest.param([C, layer("LRN", "n", "c"), conv("d", "n", WIDE)], [], id="lrn"),
        pytest.param(
            [C, layer("Pooling", "p", "c", "", POOL.format("STOCHASTIC")), conv("d", "p")], [], id="stochastic"
        ),
        pytest.param([C, BN, D], [], id="batch_norm_without_scale"),
        pytest.param(
            [C, layer("BatchNorm", "b", "c", "c", "batch_norm_param { use_global_stats: false }"), SCALE, D],
            [],
            id="batch_statistics",
        ),
        pytest.param(
            [C, layer("Split", "t", "c", "t1 t2"), conv("d", "t1", WIDE), conv("e", "t2", WIDE)], [], id="split"
        ),
        pytest.param([C, D, conv("e", "d", WIDE), eltwise("sum", "c e"), conv("f", "sum", WIDE)], ["e"], id="residual"),
        pytest.param([C, conv("e", "x", WIDE), layer("Concat", "j", "c e"), conv("f", "j")], [], id="concat"),
        pytest.param([C, inner("f", "c", "axis: 2")], [], id="inner_product_along_another_axis"),
        pytest.param(
            [C, layer("Convolution", "d", "c", "", SHARED), layer("Convolution", "e", "d", "", SHARED)],
            [],
            id="shared_blob",
        ),
    ],
)
def test_plantable_leaves_out_what_another_path_sees(layers: list[str], hard: list[str]) -> None:
    assert plantable(make_graph(*layers)) == hard


def test_plantable_of_the_digits_net() -> None:
    graph = open_net(DIGITS).graph
    hard = ["conv2_dw", "conv2_pw", "conv3_dw", "conv3_pw", "conv4_pw", "conv5_pw"]
    assert plantable(graph) == [*hard, "fc6"]
    assert plantable(graph, Quantizer(graph, MULTIPLE).space) == hard


@pytest.mark.parametrize("n", [1, 3, 5])
def test_choose_takes_layers_that_pull_no_others_along(n: int) -> None:
    graph = open_net(DIGITS).graph
    space = Quantizer(graph, MULTIPLE).space
    chosen = [choose(graph, space, n, seed) for seed in range(20)]
    assert every(space.all_int8.without(*layers).fp32_layers == layers and len(layers) == n for layers in chosen)
    assert len(set(chosen)) > 3
    for layers in chosen:
        assert "conv3_pw" not in layers or "conv4_pw" in layers  # its residual


@pytest.mark.parametrize("n", [0, 7])
def test_choose_refuses_what_cannot_be(n: int) -> None:
    graph = open_net(DIGITS).graph
    with pytest.raises(OptionError, match=f"--layers {n}: cannot be planted; 6 layers can be, conv2_dw, "):
        choose(graph, Quantizer(graph, MULTIPLE).space, n, 0)


def test_plant_refuses_other_layers() -> None:
    with pytest.raises(OptionError, match="c, e: cannot be planted; d can be"):
        plant(make_graph(C, D), {}, ["c", "d", "e"], 0)


def test_plant_names_what_the_weights_lack() -> None:
    graph = make_graph(C, BN, SCALE, D)
    weights = blobs_of(graph)
    del weights["s"], weights["d"]
    with pytest.raises(WeightsError, match=r"^s, d: not in the caffemodel; give the one that belongs to the net$"):
        plant(graph, weights, ["d"], 0)


def test_plant_treats_a_layer_the_same_with_any_others() -> None:
    graph, weights = open_net(DIGITS).graph, read_weights(DIGITS.with_suffix(".caffemodel"))
    alone, many = (plant(graph, weights, names, 3).exponents for names in (["conv3_pw"], ["conv2_pw", "conv3_pw"]))
    assert alone["conv3_pw"] == many["conv3_pw"]
    assert every(k < 0 for k in alone["conv3_pw"].values())
    assert plant(graph, weights, ["conv3_pw"], 4).exponents != alone


def run_cli(out: Path, *args: str) -> dict[str, bytes]:
    main(["-m", str(DIGITS), "-w", str(DIGITS.with_suffix(".caffemodel")), "--out", str(out), *args])
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_main_writes_the_same_bytes_again(tmp_path: Path) -> None:
    files = run_cli(tmp_path / "a", "--layers", "3", "--seed", "1")
    assert sorted(files) == ["digits.caffemodel", "digits.prototxt", "planted.json"]
    assert run_cli(tmp_path / "b", "--layers", "3", "--seed", "1") == files
    assert run_cli(tmp_path / "c", "--layers", "3", "--seed", "2") != files
    planted = json.loads(files["planted.json"])
    assert len(planted["layers"]) == 3
    assert set(planted["layers"]) == set(planted["producers"]) == set(planted["exponents"])


def test_main_refuses_to_overwrite_the_net(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"plant: --out .*: holds the net that is read; give another folder"):
        run_cli(DIGITS.parent)


def test_main_leaves_the_digits_net_in_fp32(tmp_path: Path) -> None:
    run_cli(tmp_path, "--layers", "5")
    before = Trial(open_net(DIGITS), read_weights(DIGITS.with_suffix(".caffemodel")), MULTIPLE, 2).fp32_scores
    written = open_net(tmp_path / DIGITS.name)
    after = Trial(written, read_weights(tmp_path / "digits.caffemodel"), MULTIPLE, 2).fp32_scores
    assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["conv2_dw", "conv5_pw"])
def test_plant_makes_the_layer_hard_and_no_other(name: str) -> None:
    """Depthwise and dense: of all single layers, the named one in FP32 is what helps."""
    net, weights = open_net(DIGITS), read_weights(DIGITS.with_suffix(".caffemodel"))
    trial = Trial(net, plant(net.graph, weights, [name], 0).weights, MULTIPLE, 6)
    given = Trial(net, weights, MULTIPLE, 6)
    assert trial.drop(name) == given.drop(name)  # nothing else became worse
    assert min(trial.drop(other) for other in trial.all_int8.int8 - {name}) > trial.drop(name) + 0.05


@pytest.mark.slow
def test_plant_three_layers_of_which_none_can_be_spared() -> None:
    """No other set of at most three layers is as good, so the planted ones are the only answer."""
    net, weights = open_net(DIGITS), read_weights(DIGITS.with_suffix(".caffemodel"))
    quantizer = Quantizer(net.graph, MULTIPLE)
    layers = choose(net.graph, quantizer.space, 3, 0)
    trial = Trial(net, plant(net.graph, weights, layers, 0).weights, MULTIPLE, ITERATIONS)
    cure, missing = trial.cure_and_gap(layers)
    assert cure < 0.01 < missing
    sets = {trial.all_int8.without(*names) for n in (1, 2, 3) for names in combinations(trial.all_int8.int8_layers, n)}
    least = min(trial.fp32_score - trial.score(c) for c in sets if not set(layers) <= set(c.fp32_layers))
    assert least == pytest.approx(missing, abs=0.05)
    assert least > 0.05
