"""What lies in the memory of a blob when a layer reads it: beyond the recorded nets, what the source says."""

import pytest

from distcalib.quantize.fusion import find_fused
from distcalib.quantize.kept import Pass
from distcalib.quantize.memory import run_pass
from distcalib.quantize.storage import params_of
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu, value

FEW = "convolution_param { num_output: 2 kernel_size: 1 }"
WIDE = "convolution_param { num_output: 16 kernel_size: 1 }"


def q(name: str, bottom: str, scales: str = "scale_in: 10 scale_out: 20", text: str = "", own: str = FEW) -> str:
    out = "" if "bw_layer_out" in scales else "bw_layer_out: 8"
    param = f"quantization_param {{ bw_layer_in: 8 {out} scale_params: 1 {scales} {text} }}"
    return layer("Convolution", name, bottom, "", f"{own} {param}")


def inner(name: str, bottom: str, text: str = "") -> str:
    own = "inner_product_param { num_output: 2 }"
    out = "" if "bw_layer_out" in text else "bw_layer_out: 8"
    param = f"bw_layer_in: 8 {out} scale_params: 1 scale_in: 10 scale_out: 20 {text}"
    return layer("InnerProduct", name, bottom, "", f"{own} quantization_param {{ {param} }}")


def run(*layers: str, block: int = 8, mended: bool = False) -> Pass:
    graph = make_graph(*layers)
    params = params_of(graph)
    return run_pass(
        graph, find_fused(graph), lambda group, source, residual: params.get(group.name), block, mended=mended
    )


def found(done: Pass, index: int) -> list[str]:
    """How the layer with this index finds its bottoms: name, what it was rounded to, and its type."""
    return [f"{r.blob} {' '.join(map(str, r.rounded))}:{r.grid}" for r in done.reads[index]]


S8 = "is_negative_input: true"


@pytest.mark.parametrize(
    ("layers", "index", "reads"),
    [
        pytest.param([q("a", "x", text=S8), conv("b", "x")], 2, ["x s8/10:s8/10"], id="int8_first"),
        pytest.param([conv("b", "x", "num_output: 16 kernel_size: 1"), q("a", "x", text=S8)], 2, ["x s8/10:s8/10"]),
        pytest.param(
            [layer("LRN", "l", "x"), conv("w", "l"), conv("b", "w"), q("a", "w"), conv("c", "w")],
            5,
            ["w :None"],
            id="of_a_convolution",
        ),
        pytest.param(
            [q("a", "x", text=S8), layer("Sigmoid", "s", "x")], 2, ["x :None"], id="plain_copy_of_caffes_own"
        ),
        pytest.param(
            [q("a", "x", text=S8), q("b", "x", text=S8), layer("Sigmoid", "s", "x")],
            3,
            ["x s8/10:None"],
            id="plain_copy_given_up",
        ),
        pytest.param(
            [q("a", "x"), layer("Pooling", "p", "x"), q("b", "p", "scale_in: 30 scale_out: 1")],
            3,
            ["p :u8/10"],
            id="through_pooling",
        ),
        pytest.param([q("a", "x"), layer("LRN", "l", "x"), q("b", "l")], 3, ["l :None"], id="lrn_of_integers_is_nhwc"),
        pytest.param(
            [q("a", "x"), layer("Flatten", "f", "x"), conv("b", "x")], 3, ["x :None"], id="flatten_takes_it_back"
        ),
        pytest.param([q("a", "x", text="force_u8_input: true"), conv("b", "x")], 2, ["x u8/1:u8/1"], id="force_u8"),
        pytest.param([inner("f", "x"), conv("b", "x")], 2, ["x u8/10:u8/10"], id="inner_product"),
        pytest.param(
            [conv("a", "x", "num_output: 16 kernel_size: 1"), layer("PReLU", "p", "a", "a"), conv("c", "x"),
             eltwise("s", "a c")],
            3,
            ["x :None", "a :None"],
            id="behind_a_layer_in_place",
        ),
    ],
)  # fmt: skip
def test_run_pass_finds(layers: list[str], index: int, reads: list[str]) -> None:
    assert found(run(*layers), index) == reads


def test_run_pass_reads_the_first_convolution_of_an_image_as_it_is() -> None:
    """16 channels are laid out in blocks by the FP32 layer, so that the integers do not stay; 2 are not."""
    wide = conv("w", "x", "num_output: 16 kernel_size: 1")
    first = run(wide, layer("Sigmoid", "s", "w"), conv("b", "s"), q("a", "s"), conv("c", "s"))
    assert found(first, 5) == ["s :None"]
    few = run(layer("Sigmoid", "s", "x"), conv("b", "s"), q("a", "s"), conv("c", "s"))
    assert found(few, 4) == ["s u8/10:u8/10"]


@pytest.mark.parametrize(
    ("layers", "stored"),
    [
        pytest.param([q("a", "x"), q("b", "x"), eltwise("s", "a b"), relu("r", "s"), layer("Pooling", "p", "s")],
                     {"a": "s8/20", "s#1": "s8/20", "p": "u8/20"}, id="pooling_of_a_sum_is_u8"),
        pytest.param([q("a", "x"), q("b", "x", "scale_in: 10 scale_out: 1"), layer("Concat", "k", "a b")],
                     {"a": "s8/20", "b": "s8/1", "k": "s8/20"}, id="scale_1_stands_for_none"),
        pytest.param([inner("f", "x"), relu("r", "f")], {"f#1": "u8/20"}, id="inner_product_with_relu"),
        pytest.param([inner("f", "x"), layer("ReLU", "r", "f", "f", "relu_param { negative_slope: 0.5 }")],
                     {"f#1": "u8/20"}, id="inner_product_with_leaky_relu"),
        pytest.param([q("a", "x"), layer("Pooling", "p", "a"), q("b", "x"), layer("Pooling", "o", "b"),
                      eltwise("s", "p o")],
                     {"a": "s8/20", "p": "s8/20", "b": "s8/20", "o": "s8/20", "s": "s8/1"}, id="added_at_1"),
        pytest.param([layer("Convolution", "a", "x", "", f"engine: 'CAFFE' {FEW}")], {}, id="caffes_own"),
    ],
)  # fmt: skip
def test_run_pass_stores(layers: list[str], stored: dict[str, str]) -> None:
    assert {str(blob): str(grid) for blob, grid in run(*layers).stored.items()} == stored


def test_run_pass_runs_a_wide_sum_on_fp32_in_int8() -> None:
    """With bw_layer_out 32 a sum takes an FP32 residual of an INT8 layer as it is (InitConvolutionFwd)."""
    wide = "bw_layer_out: 32 scale_in: 10 scale_out: 1"
    done = run(q("a", "x", wide), q("b", "x", wide), eltwise("s", "a b"))
    assert done.int8 == {"a", "b"}
    assert done.stored == {}
    assert done.troubles == []
    assert run(q("a", "x", wide), q("b", "x"), eltwise("s", "a b")).int8 == {"a"}


def test_run_pass_knows_what_an_inner_product_multiplies_its_output_by() -> None:
    """Its FP32 output is plain, so nobody divides by scale_out again."""
    assert run(inner("f", "x", "bw_layer_out: 32")).gains == {"f": 20.0}
    assert run(inner("f", "x")).gains == {}


@pytest.mark.parametrize(
    ("layers", "said", "engine"),
    [
        pytest.param([q("a", "x"), conv("b", "x"), eltwise("s", "a b")], "is FP32, and its residual 'a' is INT8", "CPU",
                     id="fp32_on_int8"),
        pytest.param([layer("Sigmoid", "g", "x"), conv("b", "x"), eltwise("s", "g b")], "does not add 'g'", "CPU",
                     id="plain_residual"),
        pytest.param([q("a", "x", "bw_layer_out: 32 scale_in: 10 scale_out: 1"), conv("b", "x"), eltwise("s", "a b")],
                     "adds 'a' as if it lay in memory as its own output does", "CPU", id="other_layout"),
        pytest.param([q("a", "x"), relu("r", "a"), layer("Split", "t", "a", "u v"), layer("BatchNorm", "n", "u")],
                     "reads 'a' as u8, for which Intel Caffe has no BatchNorm", "CAFFE", id="batch_norm_of_u8"),
        pytest.param([q("a", "x"), layer("Split", "t", "a", "u v"), layer("BatchNorm", "n", "u")],
                     "reads 'a' as s8: rounds it to whole numbers", "CAFFE", id="batch_norm_of_s8"),
        pytest.param([inner("f", "x"), layer("Split", "t", "f", "u v"), relu("r", "u")],
                     "reads 'f', the INT8 output of an InnerProduct", "CAFFE", id="relu_of_two_axes"),
        pytest.param([layer("Convolution", "b", "x", "", "convolution_param { num_output: 2 engine: CAFFE }"),
                      conv("a", "x"), eltwise("s", "a b")], "", "", id="caffes_own_first"),
        pytest.param([conv("a", "x"),
                      layer("Convolution", "b", "x", "", "convolution_param { num_output: 2 engine: CAFFE }"),
                      eltwise("s", "a b")], "runs in Caffe's own engine, and a sum is fused into it", "CAFFE",
                     id="caffes_own_sum"),
    ],
)  # fmt: skip
def test_run_pass_tells_what_goes_wrong(layers: list[str], said: str, engine: str) -> None:
    troubles = run(*layers).troubles
    if not said:
        assert [one.layer for one in troubles] == ["a"]
        return
    assert said in troubles[0].said
    assert troubles[0].engine.endswith(engine)


def test_run_pass_of_a_mended_net_adds_nothing_wrongly() -> None:
    """The sum of an INT8 and an FP32 value is plain FP32, and its residual keeps its integers."""
    layers = [q("a", "x"), conv("b", "x"), eltwise("s", "a b"), layer("LRN", "l", "s"), q("z", "s")]
    done = run(*layers, mended=True)
    assert set(done.stored) == {value("a"), value("z")}
    assert found(done, 5) == ["s u8/10:u8/10"]


@pytest.mark.parametrize(("block", "lost"), [(8, set()), (16, {"c"})], ids=["avx2", "avx512"])
def test_run_pass_hangs_on_the_blocks_of_a_cpu(block: int, lost: set[str]) -> None:
    """Two inputs of 8 channels end at blocks of 8, and inside one of 16."""
    eight, both = "num_output: 8 kernel_size: 1", "num_output: 16 kernel_size: 1"
    joined = [conv("a", "x", eight), conv("b", "x", eight), layer("Concat", "k", "a b")]
    done = run(*joined, conv("c", "x", both), eltwise("s", "k c"), block=block)
    assert done.dropped == lost


@pytest.mark.parametrize(("channels", "told"), [(8, []), (32, ["b"])], ids=["one_block", "several"])
def test_run_pass_knows_that_one_block_lies_as_nhwc_does(channels: int, told: list[str]) -> None:
    own = f"convolution_param {{ num_output: {channels} kernel_size: 1 }}"
    wide = "bw_layer_out: 32 scale_in: 10 scale_out: 1"
    done = run(
        q("a", "x", wide, own=own), conv("b", "x", f"num_output: {channels} kernel_size: 1"), eltwise("s", "a b")
    )
    assert [trouble.layer for trouble in done.troubles] == told
