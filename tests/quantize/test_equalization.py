"""Cross-layer equalization: the same function to the last bit, of weights that fit one scale."""

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.caffe.graph import Graph
from distcalib.quantize.channels import by_channel
from distcalib.quantize.equalization import equalize
from distcalib.quantize.fusion import find_fused, fold
from tests.every import every
from tests.quantize.nets import conv, eltwise, layer, make_graph, relu

Blobs = dict[str, tuple[NDArray[np.float32], ...]]

N = 6
WIDE = f"num_output: {N} kernel_size: 1"
DEPTHWISE = f"num_output: {N} kernel_size: 1 group: {N}"
FC = layer("InnerProduct", "b", "a", "", "inner_product_param { num_output: 3 }")
FC_TRANSPOSED = layer("InnerProduct", "b", "a", "", "inner_product_param { num_output: 3 transpose: true }")
BATCH_NORM = layer("BatchNorm", "a_bn", "a", "a")
SCALE = layer("Scale", "a_scale", "a", "a", "scale_param { bias_term: true }")
POOL = layer("Pooling", "p", "a", "p", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }")


def blobs_of(graph: Graph) -> Blobs:
    """Random blobs, in which the channels differ by up to 2^8."""
    random = np.random.RandomState(0)
    made: Blobs = {}
    for node in graph:
        wide = np.exp2(random.uniform(-8, 0, N)).astype(np.float32)
        if node.type == "Convolution":
            param = node.layer.convolution_param
            shape: tuple[int, ...] = (param.num_output, N // param.group, 1, 1)
            weight = random.standard_normal(shape).astype(np.float32) * wide.reshape(-1, 1, 1, 1)
            made[node.name] = weight, random.standard_normal(N).astype(np.float32)
        elif node.type == "InnerProduct":
            shape = (N, 3) if node.layer.inner_product_param.transpose else (3, N)
            made[node.name] = (random.standard_normal(shape).astype(np.float32),)
        elif node.type == "BatchNorm":
            made[node.name] = wide, wide**2, np.ones(1, np.float32)
        elif node.type == "Scale":
            made[node.name] = wide, 0.1 * wide
    return made


def run(graph: Graph, blobs: Blobs, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last value (P, M) f32 of a chain of pointwise layers, of the input (P, C)."""
    for group in find_fused(graph).values():
        weight, bias = fold(group, blobs)
        param = group.node.layer.convolution_param
        groups = param.group if group.node.type == "Convolution" else 1
        parts = np.split(x, groups, axis=1)
        rows = np.split(weight.reshape(len(weight), -1), groups)
        x = np.concatenate([part @ row.T for part, row in zip(parts, rows, strict=True)], axis=1) + bias
        x = np.maximum(x, 0) if group.nonnegative else x
    return x


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([conv("a", "x", WIDE), relu("r", "a"), conv("b", "a", WIDE)], id="relu"),
        pytest.param([conv("a", "x", WIDE), BATCH_NORM, SCALE, relu("r", "a"), conv("b", "a", WIDE)], id="batch_norm"),
        pytest.param([conv("a", "x", WIDE), relu("r", "a"), POOL, conv("b", "p", WIDE)], id="pooling"),
        pytest.param([conv("a", "x", WIDE), relu("r", "a"), FC], id="inner_product"),
        pytest.param([conv("a", "x", WIDE), FC_TRANSPOSED], id="transposed"),
    ],
)
def test_equalize_brings_both_layers_to_one_size_and_keeps_the_function(layers: list[str]) -> None:
    graph = make_graph(*layers)
    groups, blobs = find_fused(graph), blobs_of(graph)
    found = equalize(graph, groups, blobs)
    assert found.pairs == {"a": "b"}
    new = {**blobs, **found.blobs}
    x = np.random.RandomState(1).standard_normal((20, N)).astype(np.float32)
    assert np.array_equal(run(graph, new, x), run(graph, blobs, x))
    first = np.abs(fold(groups["a"], new)[0]).reshape(N, -1).max(axis=1)
    second = np.abs(by_channel(groups["b"].node, new["b"][0], N)).max(axis=(1, 3)).reshape(-1)
    assert (np.abs(np.log2(first / second)) <= 1.001).all()
    assert every(blob.dtype == np.float32 for blobs in new.values() for blob in blobs)


def test_equalize_goes_through_depthwise_layers() -> None:
    graph = make_graph(
        conv("a", "x", WIDE), relu("r", "a"), conv("d", "a", DEPTHWISE), relu("s", "d"), conv("b", "d", WIDE)
    )
    groups, blobs = find_fused(graph), blobs_of(graph)
    found = equalize(graph, groups, blobs)
    assert found.pairs == {"a": "d", "d": "b"}
    new = {**blobs, **found.blobs}
    x = np.random.RandomState(1).standard_normal((20, N)).astype(np.float32)
    assert np.array_equal(run(graph, new, x), run(graph, blobs, x))
    a, d = (np.abs(new[name][0]).reshape(N, -1).max(axis=1) for name in "ad")
    b = np.abs(new["b"][0][:, :, 0, 0]).max(axis=0)
    assert (np.abs(np.log2(a / d)) <= 1.001).all()
    assert (np.abs(np.log2(d / b)) <= 1.001).all()


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([conv("a", "x", WIDE), conv("b", "a", WIDE), conv("c", "a", WIDE)], id="two_readers"),
        pytest.param([conv("a", "x", WIDE), eltwise("s", "x a"), conv("b", "s", WIDE)], id="sum"),
        pytest.param([conv("a", "x", WIDE), layer("Sigmoid", "s", "a"), conv("b", "s", WIDE)], id="sigmoid"),
        pytest.param([conv("a", "x", WIDE), layer("LRN", "s", "a"), conv("b", "s", WIDE)], id="lrn"),
        pytest.param(
            [layer("InnerProduct", "a", "x", "a", "inner_product_param { num_output: 6 axis: 2 }"), FC],
            id="channels along another axis",
        ),
        pytest.param(
            [
                conv("a", "x", WIDE),
                *(
                    layer("Convolution", n, b, "", f'convolution_param {{ {WIDE} }} param {{ name: "w" }}')
                    for n, b in (("b", "a"), ("c", "b"))
                ),
            ],
            id="shared",
        ),
    ],
)
def test_equalize_leaves_alone_what_others_would_see(layers: list[str]) -> None:
    graph = make_graph(*layers)
    found = equalize(graph, find_fused(graph), blobs_of(graph))
    assert (found.blobs, found.pairs) == ({}, {})


def test_equalize_leaves_dead_channels_alone() -> None:
    graph = make_graph(conv("a", "x", WIDE), relu("r", "a"), conv("b", "a", WIDE))
    blobs = blobs_of(graph)
    blobs["a"][0][1] = 0.0
    blobs["b"][0][:, 4] = 0.0
    found = equalize(graph, find_fused(graph), blobs).blobs
    for channel in (1, 4):
        assert np.array_equal(found["a"][0][channel], blobs["a"][0][channel])
        assert found["a"][1][channel] == blobs["a"][1][channel]
        assert np.array_equal(found["b"][0][:, channel], blobs["b"][0][:, channel])
