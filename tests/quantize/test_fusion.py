"""What runs inside a convolution, and the weights that it then has."""

import numpy as np
import pytest

from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import Fused, find_fused, fold, own_relu
from tests.every import every
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu


def groups(*layers: str) -> dict[str, list[str]]:
    """The members of each group."""
    return {name: [node.name for node in g.members] for name, g in find_fused(make_graph(*layers)).items()}


def group(name: str, *layers: str) -> Fused:
    return find_fused(make_graph(*layers))[name]


def bn(name: str, bottom: str, param: str = "") -> str:
    return layer("BatchNorm", name, bottom, bottom, f"batch_norm_param {{ {param} }}")


def scale(name: str, bottoms: str, param: str = "bias_term: true") -> str:
    return layer("Scale", name, bottoms, bottoms.split()[0], f"scale_param {{ {param} }}")


C, D = conv("c", "x"), conv("d", "c")
END = layer("LRN", "end", "c")
M = conv("m", "x")
UNFUSED = "engine: 'MKLDNN:CPU' convolution_param { num_output: 2 kernel_size: 1 }"
INNER = layer("InnerProduct", "f", "x", "", "inner_product_param { num_output: 2 }")


@pytest.mark.parametrize(
    ("layers", "members"),
    [
        pytest.param([C, bn("b", "c"), scale("s", "c"), relu("r", "c")], ["c", "b", "s", "r"], id="all"),
        pytest.param([C, relu("r", "c", 0.1)], ["c", "r"], id="leaky"),
        pytest.param([C, layer("ReLU", "r", "c")], ["c", "r"], id="relu_not_in_place"),
        pytest.param([C, bn("b", "c"), relu("r", "c")], ["c", "b", "r"], id="no_scale"),
        pytest.param([C, bn("b", "c", "use_global_stats: true"), END], ["c", "b"], id="global_stats"),
        pytest.param([C, bn("b", "c")], ["c"], id="batch_norm_that_nothing_reads"),
        pytest.param([C, bn("b", "c", "use_global_stats: false"), relu("r", "c")], ["c"], id="batch_statistics"),
        pytest.param([C, bn("b", "c", "relu: true"), scale("s", "c")], ["c", "b", "s"], id="batch_norm_with_relu"),
        pytest.param([C, scale("s", "c"), relu("r", "c")], ["c"], id="lone_scale"),
        pytest.param([C, bn("b", "c"), scale("s", "c", "axis: 0")], ["c", "b"], id="scale_of_other_axis"),
        pytest.param([C, bn("b", "c"), scale("s", "c x")], ["c", "b"], id="scale_by_a_blob"),
        pytest.param([C, relu("r", "c"), bn("b", "c")], ["c", "r"], id="batch_norm_after_relu"),
        pytest.param([C, layer("ReLU", "r", "c"), conv("e", "c")], ["c"], id="two_readers"),
        pytest.param([C, layer("Split", "t", "c", "t1 t2"), relu("r", "t1"), conv("e", "t2")], ["c"], id="split"),
        pytest.param([conv("c", "x", "relu: true"), relu("r", "c")], ["c", "r"], id="own_relu"),
        pytest.param([layer("Convolution", "c", "x", "", "engine: 'CAFFE'"), relu("r", "c")], ["c"], id="engine"),
        pytest.param([C, layer("Dropout", "o", "c", "c"), relu("r", "c")], ["c"], id="dropout_between"),
        pytest.param([conv("c", "x", "relu: true"), bn("b", "c"), END], ["c", "b"], id="own_relu_before_batch_norm"),
        pytest.param([C, 'layer { name: "r" type: "ReLU" bottom: "c" }'], ["c"], id="relu_without_top"),
    ],
)
def test_group_takes_what_follows_the_convolution(layers: list[str], members: list[str]) -> None:
    assert groups(*layers)["c"] == members


def test_group_of_an_inner_product_takes_the_relu_only() -> None:
    assert groups(INNER, relu("r", "f"))["f"] == ["f", "r"]
    assert groups(INNER, bn("b", "f"))["f"] == ["f"]


def test_group_takes_a_sum_and_its_relu() -> None:
    found = group("d", C, D, bn("b", "d"), scale("s", "d"), eltwise("e", "c d"), relu("r", "e"))
    assert [node.name for node in found.members] == ["d", "b", "s", "e", "r"]
    assert (str(found.input), str(found.residual), str(found.output)) == ("c", "c", "e#1")


@pytest.mark.parametrize(
    ("layers", "taker"),
    [
        pytest.param([C, D, eltwise("e", "c d")], "d", id="residual_first"),
        pytest.param([C, D, eltwise("e", "d c")], "d", id="residual_second"),
        pytest.param([C, conv("d", "x"), eltwise("e", "c d")], "d", id="later_of_two"),
        pytest.param([C, conv("d", "x"), eltwise("e", "c d", "coeff: 1 coeff: 1")], "d", id="coefficients_of_1"),
        pytest.param([C, D, eltwise("e", "c d", top="c")], "d", id="in_place"),
        pytest.param([C, layer("Pooling", "p", "c"), D, eltwise("e", "p d")], "d", id="through_pooling"),
        pytest.param([C, layer("Split", "t", "c", "t1 t2"), conv("d", "t1"), eltwise("e", "t2 d")], "d", id="split"),
        pytest.param([eltwise("z", "x x"), C, eltwise("e", "z c")], "c", id="fp32_residual"),
    ],
)
def test_group_takes_the_sum_once_its_residual_is_there(layers: list[str], taker: str) -> None:
    assert [name for name, members in groups(*layers).items() if "e" in members] == [taker]


def test_group_takes_a_sum_on_a_sum() -> None:
    found = groups(C, conv("d", "x"), eltwise("e", "c d"), relu("r", "e"), conv("g", "x"), eltwise("h", "e g"), END)
    assert found == {"c": ["c"], "d": ["d", "e", "r"], "g": ["g", "h"]}


@pytest.mark.parametrize(
    ("layers", "members", "residual"),
    [
        pytest.param([C, M, relu("r", "m"), eltwise("e", "c m")], ["m", "r", "e"], "c", id="relu_before_the_sum"),
        pytest.param([C, conv("m", "x", "relu: true"), eltwise("e", "c m")], ["m", "e"], "c", id="own_relu"),
        pytest.param([C, M, eltwise("e", "c m x")], ["m", "e"], "c", id="third_bottom"),
        pytest.param([C, M, eltwise("e", "m x c")], ["m", "e"], "c", id="third_bottom_of_the_first"),
        pytest.param([C, M, eltwise("e", "c m", "operation: MAX")], ["m", "e"], "c", id="max"),
        pytest.param([C, M, eltwise("e", "c m", "operation: PROD")], ["m", "e"], "c", id="product"),
        pytest.param([C, M, eltwise("e", "c m", "coeff: 1 coeff: -1")], ["m", "e"], "c", id="difference"),
        pytest.param([C, M, eltwise("e", "c m"), relu("r", "e", 0.5)], ["m", "e", "r"], "c", id="leaky"),
        pytest.param([layer("LRN", "l", "x"), M, eltwise("e", "l m")], ["m", "e"], "l", id="no_convolution"),
    ],
)
def test_group_takes_whatever_eltwise_stands_behind_it(layers: list[str], members: list[str], residual: str) -> None:
    found = group("m", *layers)
    assert [node.name for node in found.members] == members
    assert str(found.residual) == residual


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([C, D, eltwise("e", "d d")], id="both_are_the_same"),
        pytest.param([C, M, layer("LRN", "l", "x"), eltwise("e", "c m")], id="a_layer_between"),
        pytest.param([C, M, eltwise("e", "c m"), conv("g", "m")], id="read_by_another_too"),
        pytest.param([C, layer("LRN", "l", "x"), eltwise("e", "c l")], id="residual_too_late"),
        pytest.param([C, conv("d", "x"), conv("g", "x"), eltwise("e", "c d"), eltwise("h", "e g")], id="stands_later"),
        pytest.param([C, M, bn("b", "c"), bn("a", "m"), eltwise("e", "c m")], id="batch_norms_stand_apart"),
        pytest.param([C, M, eltwise("e", "c m"), conv("g", "c"), conv("h", "c")], id="residual_of_three_readers"),
        pytest.param([layer("Convolution", "m", "x", "", UNFUSED), eltwise("e", "m x")], id="engine_spelled_out"),
        pytest.param([INNER, layer("InnerProduct", "g", "f"), eltwise("e", "f g")], id="inner_product"),
    ],
)
def test_no_group_takes_another_eltwise(layers: list[str]) -> None:
    assert every("e" not in members for members in groups(*layers).values())


def test_one_sum_without_a_relu_ends_the_fusion_of_relus_behind_sums() -> None:
    first = [C, M, eltwise("e", "c m")]
    second = [conv("n", "x"), eltwise("f", "e n"), relu("r", "f")]
    assert groups(*first, *second)["n"] == ["n", "f"]
    assert groups(C, conv("n", "x"), eltwise("f", "c n"), relu("r", "f"))["n"] == ["n", "f", "r"]


@pytest.mark.parametrize(
    ("layers", "slope"),
    [
        pytest.param([C, D], None, id="none"),
        pytest.param([C, D, relu("r", "d")], 0.0, id="relu"),
        pytest.param([C, D, relu("r", "d", 0.5)], 0.5, id="leaky"),
        pytest.param([C, conv("d", "c", "relu: true")], 0.0, id="own"),
        pytest.param([C, conv("d", "c", "relu: true negative_slope: 0.5")], 0.5, id="own_leaky"),
        pytest.param([C, D, eltwise("e", "c d")], None, id="sum"),
        pytest.param([C, D, eltwise("e", "c d"), relu("r", "e")], 0.0, id="sum_relu"),
        pytest.param([C, D, eltwise("e", "c d"), relu("r", "e", 0.5)], 0.0, id="leaky_behind_a_sum"),
        pytest.param([C, D, relu("r", "d", 0.5), eltwise("e", "c d"), relu("s", "e")], 0.5, id="leaky_before_it"),
        pytest.param([C, D, relu("r", "d"), eltwise("e", "c d")], 0.0, id="relu_before_a_sum"),
    ],
)
def test_group_knows_the_relu_that_makes_its_output(layers: list[str], slope: float | None) -> None:
    found = group("d", *layers)
    assert found.slope == slope
    assert found.nonnegative == (slope == 0.0)


def test_a_relu_behind_an_inner_product_of_caffes_own_is_lost() -> None:
    inner = layer("InnerProduct", "f", "x", "", "inner_product_param { num_output: 2 transpose: true }")
    found = group("f", inner, relu("r", "f"))
    assert (found.relu is not None, found.slope) == (True, None)


def test_own_relu_of_an_inner_product_is_its_own() -> None:
    text = layer("InnerProduct", "f", "x", "", "inner_product_param { relu: true negative_slope: 0.25 }")
    assert own_relu(make_graph(text).nodes[1].layer) == 0.25


def test_find_fused_names_all_convolutions_that_are_not_of_one_bottom_and_top() -> None:
    with pytest.raises(UnsupportedError) as caught:
        find_fused(
            make_graph(
                layer("Convolution", "a", "x x", "a1 a2"), C, 'layer { name: "f" type: "InnerProduct" bottom: "c" }'
            )
        )
    assert str(caught.value) == (
        "layer 'a' (Convolution): has 2 bottoms and 2 tops; one of each is converted; "
        "layer 'f' (InnerProduct): has 1 bottoms and 0 tops; one of each is converted"
    )


WEIGHT = np.array([[1, 2], [3, 4]], np.float32).reshape(2, 2, 1, 1)
BIAS = np.array([10, 20], np.float32)
MEAN, VARIANCE = np.array([2, 4], np.float32), np.array([8, 32], np.float32)
GAMMA, BETA = np.array([3, 5], np.float32), np.array([7, 11], np.float32)


def f32(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(values, np.float32)


# Variance and mean are divided by the factor 2, so that a = 1/sqrt(4), 1/sqrt(16) and the means are 1, 2.
@pytest.mark.parametrize(
    ("layers", "blobs", "weight", "bias"),
    [
        pytest.param([C], {"c": (WEIGHT, BIAS)}, [1, 2, 3, 4], [10, 20], id="alone"),
        pytest.param([C], {"c": (WEIGHT,)}, [1, 2, 3, 4], [0, 0], id="no_bias"),
        pytest.param(
            [C, bn("b", "c", "eps: 0"), END],
            {"c": (WEIGHT, BIAS), "b": (MEAN, VARIANCE, f32(2))},
            [0.5, 1, 0.75, 1],
            [4.5, 4.5],
            id="batch_norm",
        ),
        pytest.param(
            [C, bn("b", "c", "eps: 0"), scale("s", "c")],
            {"c": (WEIGHT, BIAS), "b": (MEAN, VARIANCE, f32(2)), "s": (GAMMA, BETA)},
            [1.5, 3, 3.75, 5],
            [20.5, 33.5],
            id="batch_norm_and_scale",
        ),
        pytest.param(
            [C, bn("b", "c", "eps: 0"), scale("s", "c", "")],
            {"c": (WEIGHT,), "b": (MEAN, VARIANCE, f32(2)), "s": (GAMMA,)},
            [1.5, 3, 3.75, 5],
            [-1.5, -2.5],
            id="scale_without_bias",
        ),
        pytest.param(
            [C, bn("b", "c", "eps: 0"), END],
            {"c": (WEIGHT, BIAS), "b": (MEAN, VARIANCE, f32(2), GAMMA, BETA)},
            [1.5, 3, 3.75, 5],
            [20.5, 33.5],
            id="five_blobs",
        ),
        pytest.param(
            [C, bn("b", "c", "eps: 1"), END],
            {"c": (WEIGHT, BIAS), "b": (MEAN, VARIANCE - np.array([0, 8], np.float32), f32(0))},
            [1 / 3, 2 / 3, 0.6, 0.8],
            [8 / 3, 3.2],
            id="factor_0_counts_as_1",
        ),
    ],
)
def test_fold_gives_the_weights_that_run(
    layers: list[str],
    blobs: dict[str, tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]],
    weight: list[float],
    bias: list[float],
) -> None:
    folded, offset = fold(group("c", *layers), blobs)
    assert folded.shape == WEIGHT.shape
    assert folded.dtype == offset.dtype == np.float32
    np.testing.assert_allclose(folded.reshape(-1), weight, rtol=1e-6)
    np.testing.assert_allclose(offset, bias, rtol=1e-6)


@pytest.mark.parametrize(
    ("param", "stored"),
    [
        pytest.param("num_output: 2", np.array([[1, 2, 3], [4, 5, 6]]), id="rows"),
        pytest.param("num_output: 2", np.array([[[[1, 2, 3], [4, 5, 6]]]]), id="legacy"),
        pytest.param("num_output: 2 transpose: true", np.array([[1, 4], [2, 5], [3, 6]]), id="transposed"),
    ],
)
def test_fold_gives_inner_products_with_output_channels_first(
    param: str, stored: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> None:
    text = layer("InnerProduct", "f", "x", "", f"inner_product_param {{ {param} }}")
    weight, _ = fold(group("f", text), {"f": (stored.astype(np.float32),)})
    np.testing.assert_array_equal(weight, [[1, 2, 3], [4, 5, 6]])


def test_find_fused_knows_a_convolution_that_intel_caffe_leaves_out() -> None:
    """It stands between a sum and its ReLU, where as many layers are skipped as the ReLU would be."""
    assert groups(C, M, eltwise("e", "c m"), conv("g", "x"), relu("r", "e"))["g"] == ["g"]
