"""The engines that keep Intel Caffe from aborting and from nonsense."""

import pytest

from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.mending import mending_engines, troubles
from distcalib.quantize.storage import params_of
from tests.quantize.nets import conv, eltwise, layer, make_graph, mended_graph, relu

OWN = "convolution_param { num_output: 2 kernel_size: 1 }"
QUANTIZED = "quantization_param { bw_layer_in: 8 bw_layer_out: 8 scale_in: 1 scale_out: 3 scale_params: 1 }"
PLAIN = layer("Sigmoid", "p", "x")


def q(name: str, bottom: str) -> str:
    return layer("Convolution", name, bottom, "", f"{OWN} {QUANTIZED}")


def engines(*layers: str) -> dict[str, str]:
    return mending_engines([node.layer for node in make_graph(*layers)], "net.prototxt")


@pytest.mark.parametrize(
    ("layers", "written"),
    [
        pytest.param([conv("a", "x"), conv("b", "x"), eltwise("s", "a b"), relu("r", "s")], {}, id="right"),
        pytest.param([q("a", "x"), q("b", "x"), eltwise("s", "a b"), relu("r", "s")], {}, id="right_int8"),
        pytest.param([q("a", "x"), conv("b", "x"), eltwise("s", "a b")], {"b": "MKLDNN:CPU"}, id="fp32_on_int8"),
        pytest.param([PLAIN, conv("b", "x"), eltwise("s", "p b")], {"b": "MKLDNN:CPU"}, id="dropped"),
        pytest.param(
            [q("a", "x"), conv("b", "x"), eltwise("s", "a b"), conv("c", "x"), eltwise("t", "s c")],
            # 'a' would wait for its Eltwise still, and be added to the next sum
            {"a": "MKLDNN:CPU", "b": "MKLDNN:CPU", "c": "MKLDNN:CPU"},
            id="a_mended_sum_is_plain",
        ),
        pytest.param([PLAIN, eltwise("s", "x p", "operation: PROD")], {"s": "CAFFE"}, id="product"),
        pytest.param(
            [conv("a", "x"), conv("b", "x"), eltwise("s", "a b", "operation: MAX")],
            {"b": "MKLDNN:CPU", "s": "CAFFE"},
            id="maximum_behind_a_convolution",
        ),
        pytest.param(
            [q("a", "x"), layer("Pooling", "o", "a"), q("b", "x"), layer("Pooling", "p", "b"), eltwise("s", "o p")],
            {"s": "CAFFE"},
            id="integers_of_one_type",
        ),
        pytest.param(
            [conv("r", "x"), conv("a", "x"), eltwise("s", "r a"), conv("b", "r"), eltwise("t", "s b")],
            {"a": "MKLDNN:CPU"},
            id="residual_read_behind_its_sum",
        ),
        pytest.param(
            [layer("InnerProduct", "f", "x", "", "inner_product_param { transpose: true }"), relu("r", "f")],
            {"r": "CAFFE"},
            id="lost_relu",
        ),
    ],
)
def test_mending_engines(layers: list[str], written: dict[str, str]) -> None:
    assert engines(*layers) == written


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([q("a", "x"), conv("b", "x"), eltwise("s", "a b"), conv("c", "s")], id="fp32_on_int8"),
        pytest.param([conv("a", "x"), relu("r", "a"), conv("b", "a"), eltwise("s", "a b")], id="own_input"),
    ],
)
def test_a_mended_net_has_no_troubles(layers: list[str]) -> None:
    graph = make_graph(*layers)
    assert troubles(graph, find_fused(graph), params_of(graph))
    mended = mended_graph(graph)
    assert troubles(mended, find_fused(mended), params_of(mended)) == []


def test_mending_engines_refuses_what_no_engine_mends() -> None:
    layers = [conv("a", "x"), layer("BatchNorm", "n", "a"), layer("Scale", "s", "n"), conv("b", "s")]
    with pytest.raises(UnsupportedError, match=r"^net.prototxt: layer 's' \(Scale\): is folded into 'a' .*no bias"):
        engines(*layers)


def test_troubles_say_on_which_cpus_they_are() -> None:
    """Two inputs of 8 channels end at blocks of 8 (AVX2), and inside one of 16 (AVX-512)."""
    eight, both = "num_output: 8 kernel_size: 1", "num_output: 16 kernel_size: 1"
    joined = [conv("a", "x", eight), conv("b", "x", eight), layer("Concat", "k", "a b")]
    graph = make_graph(*joined, conv("c", "x", both), eltwise("s", "k c"))
    [found] = troubles(graph, find_fused(graph), {})
    assert "does not add 'k'" in found.said
    assert found.said.endswith("(on CPUs with AVX-512)")
    assert (found.layer, found.fatal) == ("c", False)
