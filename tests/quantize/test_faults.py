"""Graphs and files that Intel Caffe computes otherwise are told by layer."""

import numpy as np
import pytest

from distcalib.quantize.faults import intel_faults
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import params_of, storage
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu, weights_of

ONE = "num_output: 2 kernel_size: 1"
INNER = layer("InnerProduct", "f", "x", "", "inner_product_param { num_output: 2 transpose: true }")
RELU_SUM = "layer 's' (Eltwise): follows convolution 'a' and its ReLU"
DROPPED = "layer 'a' (Convolution): does not add 'l', which lies in Caffe's plain layout"
W = 'num_output: 2 kernel_size: 1 } param { name: "w"'


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        pytest.param([conv("a", "x"), conv("b", "x"), eltwise("s", "a b"), relu("r", "s")], [], id="projection"),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), conv("c", "b"), eltwise("s", "a c")], [], id="identity"
        ),
        pytest.param(
            [conv("a", "x"), conv("b", "x"), relu("rb", "b"), eltwise("s", "a b")],
            ["layer 's' (Eltwise): follows convolution 'b' and its ReLU"],
            id="conv_relu_eltwise",
        ),
        pytest.param(
            [conv("a", "x"), relu("ra", "a"), conv("b", "a"), eltwise("s", "a b")],
            ["layer 'b' (Convolution): adds to 'a', its own input"],
            id="own_input",
        ),
        pytest.param(
            [layer("LRN", "l", "x"), conv("a", "x"), relu("ra", "a"), eltwise("s", "l a")],
            [DROPPED, RELU_SUM],
            id="dropped_residual",
        ),
        pytest.param([conv("b", "x"), layer("Pooling", "p", "b"), conv("c", "p")], [], id="nothing_added"),
        pytest.param([INNER, relu("r", "f")], ["layer 'r' (ReLU): is left out"], id="lost_relu"),
        pytest.param(
            [conv("a", "x", ONE + " relu: true"), layer("BatchNorm", "n", "a"), conv("b", "n")],
            ["layer 'a' (Convolution): its relu: true comes behind BatchNorm 'n'"],
            id="relu_in_front_of_batch_norm",
        ),
        pytest.param(
            [conv("a", "x"), layer("BatchNorm", "n", "a", "", "batch_norm_param { relu: true }"), conv("b", "n")],
            ["layer 'n' (BatchNorm): its relu: true is lost"],
            id="relu_of_batch_norm",
        ),
        pytest.param(
            [conv("a", "x", W), layer("BatchNorm", "n", "a", "a"), conv("b", "a", W)],
            ["layer 'a' (Convolution): Intel Caffe folds the BatchNorm behind it into its weights, which 'b' shares"],
            id="shared_and_folded",
        ),
        pytest.param([conv("a", "x", W), relu("r", "a"), conv("b", "a", W)], [], id="shared"),
    ],
)
def test_intel_faults_of_a_graph(layers: list[str], said: list[str]) -> None:
    graph = make_graph(*layers)
    groups = find_fused(graph)
    found = intel_faults(graph, groups, storage(graph, groups, {}), {})
    assert len(found) == len(said)
    for full, begin in zip(found, said, strict=True):
        assert full.startswith(begin)


def quantized(name: str, bottom: str, text: str = "bw_layer_out: 8", scale_params: str = "scale_params: 1") -> str:
    own = "convolution_param { num_output: 2 kernel_size: 1 }"
    scales = f"scale_in: 1 scale_out: 3 {scale_params}"
    return layer("Convolution", name, bottom, "", f"{own} quantization_param {{ {scales} {text} }}")


S8 = "bw_layer_out: 8 is_negative_input: true"
ZERO = "scale_params: 0 scale_params: 1"


@pytest.mark.parametrize(
    ("layers", "bias", "said"),
    [
        pytest.param(
            [quantized("a", "x"), quantized("b", "x", "bw_layer_out: 32"), eltwise("s", "a b"), relu("r", "s")],
            None,
            "layer 'b' (Convolution): bw_layer_out 32 is ignored on a sum with an INT8 residual; its sums are stored "
            "as integers at scale_out 3",
            id="width_of_a_sum",
        ),
        pytest.param(
            [quantized("a", "x"), relu("ra", "a"), quantized("b", "x"), eltwise("s", "a b")],
            None,
            "layer 'b' (Convolution): its sum can be negative but is stored u8, as its residual 'a' is; negative",
            id="negative_sum_on_u8",
        ),
        pytest.param(
            [quantized("a", "x"), quantized("b", "a")],
            None,
            "layer 'b' (Convolution): reads 'a', stored s8, without is_negative_input; negative values become 0",
            id="s8_read_as_u8",
        ),
        pytest.param(
            [quantized("a", "x", scale_params=ZERO)],
            0.5,
            "layer 'a' (Convolution): scale_params is 0 in 1 channel with a bias, which Intel Caffe rounds to a whole",
            id="scale_of_0",
        ),
        pytest.param([quantized("a", "x", scale_params=ZERO)], 0.0, "", id="scale_of_0_without_bias"),
        pytest.param([quantized("a", "x", scale_params=ZERO)], None, "", id="scale_of_0_without_weights"),
        pytest.param([quantized("a", "x"), quantized("b", "a", S8)], None, "", id="right"),
        pytest.param(
            [quantized("a", "x"), quantized("b", "x"), eltwise("s", "a b"), relu("r", "s"), quantized("c", "s")],
            None,
            "",
            id="s8_of_a_relu_read_as_u8",
        ),
        pytest.param(
            [conv("a", "x"), quantized("b", "x", "bw_layer_out: 32"), eltwise("s", "a b")],
            None,
            "layer 'b' (Convolution): adds 'a' as if it lay in memory as its own output does, which it does not",
            id="fp32_in_another_layout",
        ),
        pytest.param(
            [quantized("a", "x"), conv("b", "x"), layer("LRN", "l", "x"), layer("PriorBox", "p", "a x")],
            None,
            "layer 'b' (Convolution): finds 'x' rounded to u8/1, for an INT8 layer in front of it reads it first",
            id="rounded",
        ),
    ],
)
def test_intel_faults_of_a_file(layers: list[str], bias: float | None, said: str) -> None:
    graph = make_graph(*layers)
    groups, params = find_fused(graph), params_of(graph)
    weights = {name: (*blobs, np.array([bias, 0], np.float32)) for name, blobs in weights_of(graph).items()}
    found = intel_faults(graph, groups, storage(graph, groups, params), params, None if bias is None else weights)
    assert bool(found) == bool(said)
    assert "".join(found).startswith(said)
