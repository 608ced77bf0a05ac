"""What Intel Caffe's compiler makes of a net, by the names of its layers and blobs."""

from collections.abc import Sequence

import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter
from distcalib.caffe.compiling import compile_net
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.caffe.steps import Compiled, runs_on_caffe, runs_on_mkldnn

LARGE = "convolution_param { num_output: 2 kernel_size: 3 pad: 1 stride: 1 }"
SMALL = "convolution_param { num_output: 2 kernel_size: 1 stride: 2 }"
SAME = "convolution_param { num_output: 2 kernel_size: 1 stride: 1 }"


def layer(kind: str, name: str, bottoms: str, top: str = "", param: str = "") -> str:
    blobs = [f'bottom: "{b}"' for b in bottoms.split()] + [f'top: "{t}"' for t in (top or name).split()]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(blobs)} {param} }}'


def conv(name: str, bottom: str, param: str = SAME) -> str:
    return layer("Convolution", name, bottom, "", param)


def eltwise(name: str, bottoms: str, param: str = "") -> str:
    return layer("Eltwise", name, bottoms, "", param)


def relu(blob: str) -> str:
    return layer("ReLU", f"{blob}_relu", blob, blob)


def layers_of(*texts: str) -> Sequence[LayerParameter]:
    return text_format.Parse("\n".join([layer("Input", "x", ""), *texts]), NetParameter()).layer


def compiled(*texts: str) -> Compiled:
    return compile_net(layers_of(*texts))


def graph_of(*texts: str) -> Graph:
    return build_graph(layers_of(*texts), "net")


def steps(*texts: str) -> list[str]:
    """The compiled layers as `name(bottoms)`, without the Splits."""
    return [f"{s.name}({' '.join(s.bottoms)})" for s in compiled(*texts).steps[1:] if s.type != "Split"]


def said(*texts: str) -> list[str]:
    return [str(trouble) for trouble in compiled(*texts).troubles]


def test_compile_net_inserts_splits_as_caffe_names_them() -> None:
    made = compiled(conv("a", "x"), conv("b", "x"), layer("LRN", "l", "b")).steps
    assert [step.name for step in made] == ["x", "x_x_0_split", "a", "b", "l"]
    assert (made[1].tops, made[2].bottoms) == (["x_x_0_split_0", "x_x_0_split_1"], ["x_x_0_split_0"])


def test_compile_net_counts_a_loss_weight_as_a_reader() -> None:
    made = compiled(layer("LRN", "a", "x", "", "loss_weight: 1"), layer("LRN", "b", "a")).steps
    assert [step.name for step in made] == ["x", "a", "a_a_0_split", "b"]
    assert made[3].bottoms == ["a_a_0_split_1"]


BATCH_NORM = layer("BatchNorm", "n", "a")
SCALE = layer("Scale", "s", "n", "", "scale_param { bias_term: true }")


@pytest.mark.parametrize(
    ("texts", "made"),
    [
        pytest.param([conv("a", "x"), BATCH_NORM, SCALE], ["a(x)"], id="folded"),
        pytest.param([conv("a", "x"), BATCH_NORM, layer("LRN", "l", "n")], ["a(x)", "l(n)"], id="without_scale"),
        pytest.param([conv("a", "x"), BATCH_NORM], ["a(x)", "n(a)"], id="read_by_none"),
        pytest.param([layer("LRN", "a", "x"), BATCH_NORM, SCALE], ["a(x)", "n(a)"], id="merged"),
        pytest.param(
            [layer("LRN", "a", "x"), layer("BatchNorm", "n", "a", "", "engine: 'CAFFE'"), SCALE],
            ["a(x)", "n(a)", "s(n)"],
            id="merged_on_mkldnn_only",
        ),
        pytest.param([conv("a", "x"), relu("a"), conv("b", "a")], ["a(x)", "b(a)"], id="relu"),
        pytest.param([layer("LRN", "a", "x"), BATCH_NORM, relu("n")], ["a(x)", "n(a)"], id="relu_of_batch_norm"),
        pytest.param(
            [conv("p", "x"), conv("c", "x"), eltwise("s", "p c"), relu("s")],
            ["p(x_x_0_split_0)", "c(x_x_0_split_1 p)"],
            id="sum",
        ),
        pytest.param(
            [conv("c", "x"), layer("LRN", "l", "x"), conv("d", "l"), eltwise("s", "c d")],
            ["c(x_x_0_split_0)", "l(x_x_0_split_1)", "d(l c)"],
            id="sum_of_the_later",
        ),
    ],
)
def test_compile_net_fuses(texts: list[str], made: list[str]) -> None:
    assert steps(*texts) == made


HOURGLASS = [
    *(conv("p", "x"), layer("Pooling", "y", "x"), conv("a", "y"), relu("a"), conv("b", "a")),
    *(eltwise("s", "y b"), conv("c", "s"), eltwise("t", "p c")),
]


def test_compile_net_tells_of_a_residual_that_goes_to_another_sum() -> None:
    """Golden_rules c28: `Unknown bottom blob`."""
    [trouble] = compiled(*HOURGLASS).troubles
    assert trouble.said.startswith("layer 'c' (Convolution): finds no blob 'p', for Intel Caffe takes convolution 'p'")
    assert (trouble.fatal, trouble.layer, trouble.engine) == (True, "p", "MKLDNN:CPU")
    mended = [text.replace('name: "p"', 'name: "p" engine: "MKLDNN:CPU"') for text in HOURGLASS]
    assert compiled(*mended).troubles == ()


@pytest.mark.parametrize(
    ("texts", "begins"),
    [
        pytest.param(
            [conv("a", "x"), BATCH_NORM, layer("Scale", "s", "n")],
            "layer 's' (Scale): is folded into 'a' (Convolution), and has no bias",
            id="no_bias",
        ),
        pytest.param(
            [layer("LRN", "a", "x"), BATCH_NORM, layer("Scale", "s", "n")],
            "layer 's' (Scale): is folded into 'n' (BatchNorm), and has no bias",
            id="no_bias_merged",
        ),
        pytest.param(
            [conv("a", "x"), BATCH_NORM, layer("Scale", "s", "n x", "", "scale_param { bias_term: true }")],
            "layer 's' (Scale): is folded into 'a' (Convolution), and has a second bottom",
            id="two_bottoms",
        ),
        pytest.param(
            [conv("a", "x"), BATCH_NORM, layer("Scale", "s", "n", "", "scale_param { bias_term: true axis: 0 }")],
            "layer 's' (Scale): is folded into 'a' (Convolution), and does not scale channels",
            id="axis",
        ),
        pytest.param(
            [conv("p", "x"), conv("c", "x"), eltwise("s", "p c"), layer("LRN", "l", "x"), relu("s")],
            "layer 'l' (LRN): is left out, for it stands between a fused sum and its ReLU",
            id="left_out",
        ),
    ],
)
def test_compile_net_tells_what_caffe_dies_of(texts: list[str], begins: str) -> None:
    found = said(*texts)
    assert found
    assert found[0].startswith(begins)
    assert "Intel Caffe cannot run the net" in found[0]


SPARSE = [
    *(conv("r", "x", LARGE), relu("r"), conv("a", "r", LARGE), eltwise("s", "r a"), relu("s")),
    *(conv("f", "s", SMALL), conv("g", "s", SMALL), eltwise("t", "f g")),
]


def test_move_strides_adds_a_copy_of_the_residual() -> None:
    """Golden_rules c26: the sum does not overwrite its residual."""
    assert "a(r_r_relu_0_split_0 r_r_relu_0_split_1_p)" in steps(*SPARSE)
    graph = graph_of(*SPARSE)
    [run] = [run for run in graph.runs if run.step.name == "a"]
    assert (run.copied, run.reads[1]) == (True, Blob("r", 1))
    assert Blob("r", 1) not in graph.overwritten
    assert graph.troubles == ()


@pytest.mark.parametrize(
    ("texts", "begins", "fatal"),
    [
        pytest.param([*SPARSE, layer("LRN", "l", "s")], "layer 'l' (LRN): reads 's'", False, id="third_reader"),
        pytest.param(
            [text.replace('bottom: "r" bottom: "a"', 'bottom: "a" bottom: "r"') for text in SPARSE],
            "layer 's' (Eltwise): Intel Caffe thins out the first of its inputs",
            True,
            id="order",
        ),
        pytest.param(
            [*SPARSE[:5], conv("f", "s", SMALL.replace("2 }", "3 }")), *SPARSE[6:]],
            "layer 'f' (Convolution): reads what 'g' reads, both with a stride, of another size",
            True,
            id="hangs",
        ),
    ],
)
def test_move_strides_tells_what_it_breaks(texts: list[str], begins: str, fatal: bool) -> None:
    found = [trouble for trouble in compiled(*texts).troubles if trouble.said.startswith(begins)]
    assert [trouble.fatal for trouble in found] == [fatal]


def test_build_graph_has_later_readers_read_the_sum() -> None:
    """Golden_rules c05: the sum lies in its residual's memory."""
    graph = graph_of(conv("r", "x"), conv("a", "x"), eltwise("s", "r a"), relu("s"), conv("b", "r"))
    node = next(node for node in graph if node.name == "b")
    assert node.bottoms == (Blob("s", 1),)
    assert graph.overwritten[Blob("r", 0)] == Blob("s", 1)
    [trouble] = graph.troubles
    assert str(trouble).startswith("layer 'b' (Convolution): finds the sum 's' where it reads 'r'")
    assert (trouble.fatal, trouble.layer, trouble.engine) == (False, "a", "MKLDNN:CPU")


def test_build_graph_lets_earlier_readers_read_the_residual() -> None:
    graph = graph_of(conv("r", "x"), conv("b", "r"), conv("a", "x"), eltwise("s", "r a"), layer("LRN", "l", "b"))
    assert next(node for node in graph if node.name == "b").bottoms == (Blob("r", 0),)
    assert graph.troubles == ()


@pytest.mark.parametrize(
    ("text", "caffe", "mkldnn"),
    [
        pytest.param(conv("a", "x"), False, True, id="convolution"),
        pytest.param(conv("a", "x", "engine: 'MKLDNN:CPU'"), False, True, id="engine_spelled_out"),
        pytest.param(conv("a", "x", "engine: 'CAFFE'"), True, False, id="engine"),
        pytest.param(conv("a", "x", "convolution_param { engine: CAFFE }"), True, False, id="own_engine"),
        pytest.param(layer("InnerProduct", "a", "x"), False, True, id="inner_product"),
        pytest.param(
            layer("InnerProduct", "a", "x", "", "inner_product_param { transpose: true }"), True, False, id="transposed"
        ),
        pytest.param(layer("LRN", "a", "x", "", "lrn_param { norm_region: WITHIN_CHANNEL }"), False, False, id="lrn"),
        pytest.param(layer("Pooling", "a", "x"), False, True, id="pooling"),
        pytest.param(layer("Eltwise", "a", "x", "", "eltwise_param { engine: CAFFE }"), False, False, id="eltwise"),
        pytest.param(layer("PReLU", "a", "x"), False, False, id="prelu"),
    ],
)
def test_engines_of_layers(text: str, caffe: bool, mkldnn: bool) -> None:
    made = layers_of(text)[1]
    assert runs_on_mkldnn(made) == mkldnn
    if made.type in ("Convolution", "InnerProduct"):
        assert runs_on_caffe(made) == caffe
