"""Small layers of forks, each against its definition: Mish, Flip, Gather, Unpooling, NdPooling, a Scale with limits."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, read_net
from distcalib.caffe.forks import fork_faults, lower
from tests.layers.harness import Array, make_layer, random, refused, run

X = random(2, 3, 4, 5)


def test_mish() -> None:
    x = np.array([-30.0, -5.0, -1.0, 0.0, 0.5, 3.0, 30.0], np.float32)
    wanted = x * np.tanh(np.log1p(np.exp(x.astype(np.float64))))
    np.testing.assert_allclose(run('type: "Mish"', x)[0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("param", "wanted"),
    [
        ("", X[..., ::-1]),
        ("flip_width: false flip_height: true", X[..., ::-1, :]),
        ("flip_height: true", X[..., ::-1, ::-1]),
        ("flip_width: false", X),
    ],
)
def test_flip(param: str, wanted: Array) -> None:
    np.testing.assert_array_equal(run(f'type: "Flip" flip_param {{ {param} }}', X)[0], wanted)


def test_gather_hands_its_bottoms_on() -> None:
    first, second = run('type: "Gather" top: "y" top: "z"', X, X[0])
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, X[0])
    assert "1 bottoms and 2 tops" in refused('type: "Gather" top: "y" top: "z"', X.shape)


def test_mask_pooling_multiplies_each_channel() -> None:
    mask = random(2, 1, 4, 5, seed=1)
    np.testing.assert_array_equal(run('type: "MaskPooling"', X, mask)[0], X * mask)
    assert "its mask has shape (2, 3, 4, 5); (2, 1, 4, 5) is needed" in refused('type: "MaskPooling"', X.shape, X.shape)


def test_unpooling_puts_values_where_the_maximum_was() -> None:
    x, mask = random(2, 3, 2, 2), np.zeros((2, 3, 2, 2), np.float32)
    wanted = np.zeros((2, 3, 16), np.float32)
    for n, c in itertools.product(range(2), range(3)):
        places = np.random.default_rng(3 * n + c).choice(16, 4, replace=False)
        mask[n, c] = places.reshape(2, 2)
        wanted[n, c, places] = x[n, c].reshape(-1)
    param = "unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_size: 4 }"
    np.testing.assert_array_equal(run(f'type: "Unpooling" {param}', x, mask)[0], wanted.reshape(2, 3, 4, 4))
    assert "MAX is" in refused('type: "Unpooling" unpooling_param { unpool: AVE }', x.shape, x.shape)
    assert "no unpool_size" in refused('type: "Unpooling"', x.shape, x.shape)


def shape(name: str, sizes: tuple[int, ...]) -> str:
    return f"{name} {{ " + " ".join(f"dim: {n}" for n in sizes) + " } "


def nd_pooled(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...], is_max: bool) -> Array:
    """compute_output_shape of cudnn_ndpooling_layer.cpp, and each window by itself."""
    sizes = []
    for n, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        size = int(np.ceil((n + 2 * p - k) / s)) + 1
        sizes.append(size - 1 if p > 0 and (size - 1) * s >= n + p else size)
    made = np.zeros((*x.shape[:2], *sizes), np.float32)
    for place in itertools.product(*map(range, sizes)):
        windows = [
            range(max(i * s - p, 0), min(i * s - p + k, n))
            for i, n, k, s, p in zip(place, x.shape[2:], kernel, stride, pad, strict=True)
        ]
        whole = (slice(None), slice(None))
        values = x[whole + tuple(slice(w.start, w.stop) for w in windows)].reshape(*x.shape[:2], -1)
        made[whole + tuple(place)] = values.max(axis=2) if is_max else values.sum(axis=2) / np.prod(kernel)
    return made


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [
        ((1, 2, 2), (1, 2, 2), (0, 0, 0)),
        ((2, 2, 2), (2, 2, 2), (0, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((2, 3, 2), (2, 1, 3), (1, 0, 0)),
    ],
    ids=str,
)
def test_nd_pooling(pool: str, kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> None:
    x = random(2, 3, 5, 6, 7)
    param = shape("kernel_shape", kernel) + shape("stride_shape", stride) + shape("pad_shape", pad)
    [found] = run(f'type: "NdPooling" pooling_param {{ pool: {pool} {param} }}', x)
    np.testing.assert_allclose(found, nd_pooled(x, kernel, stride, pad, pool == "MAX"), rtol=1e-5, atol=1e-6)


def test_nd_pooling_refuses_what_does_not_fit() -> None:
    assert "3 axes" in refused('type: "NdPooling" pooling_param { kernel_shape { dim: 2 } }', (1, 2, 5, 5, 5))
    text = 'type: "NdPooling" pooling_param { kernel_shape { dim: 9 } }'
    assert "a kernel of 9 with a pad of 0 on 5 does not fit" in refused(text, (1, 2, 5))


def test_an_nd_convolution_is_a_convolution_by_its_shapes() -> None:
    param = shape("kernel_shape", (3, 2, 1)) + shape("stride_shape", (1, 2, 1)) + shape("pad_shape", (1, 0, 0))
    proto = make_layer(f'type: "NdConvolution" convolution_param {{ num_output: 4 {param} }}').proto
    lower(proto)
    own = proto.convolution_param
    assert proto.type == "Convolution"
    assert (list(own.kernel_size), list(own.stride), list(own.pad)) == ([3, 2, 1], [1, 2, 1], [1, 0, 0])
    assert fork_faults([proto]) == []


@pytest.mark.parametrize("kind", ["Convolution", "Pooling"])
def test_shapes_of_a_layer_that_does_not_read_them_are_refused(kind: str) -> None:
    own = "convolution_param" if kind == "Convolution" else "pooling_param"
    proto = make_layer(f'type: "{kind}" {own} {{ kernel_size: 2 kernel_shape {{ dim: 2 dim: 2 }} }}').proto
    [said] = fork_faults([proto])
    assert f"{own}.kernel_shape is" in said


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [("min_value: 0.5", [0.5, 2.0, 9.0]), ("max_value: 3", [0.1, 2.0, 3.0]), ("min_value: 1 max_value: 4", [1, 2, 4])],
)
def test_scale_keeps_its_factors_within_limits(limits: str, wanted: list[float]) -> None:
    factors = np.array([0.1, 2.0, 9.0], np.float32)
    [found] = run(f'type: "Scale" scale_param {{ {limits} }}', X, blobs=[factors])
    np.testing.assert_allclose(found, X * np.array(wanted, np.float32).reshape(1, 3, 1, 1), rtol=1e-6)


def test_v1_layers_of_deconvnet_are_read(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        """
        layers { name: "data" type: WINDOW_SEG_DATA top: "data" top: "label" image_data_param { batch_size: 2 } }
        layers { name: "bn" type: BN bottom: "data" top: "bn" bn_param { bn_mode: INFERENCE } }
        layers { name: "u" type: UNPOOLING bottom: "bn" bottom: "bn" top: "u" unpooling_param { unpool_size: 4 } }
        layers { name: "a" type: ELTWISE_ACCURACY bottom: "u" bottom: "label" top: "a"
                 eltwise_accuracy_param { ignore_label: 255 } }
        """
    )
    data, bn, unpooling, accuracy = read_net(net).layer
    assert data.type == "WindowSegData of another Caffe"
    assert (bn.type, bn.bn_param.bn_mode) == ("BN", caffe_pb2.BNParameter.INFERENCE)
    assert (unpooling.type, unpooling.unpooling_param.unpool_size) == ("Unpooling", 4)
    own = accuracy.accuracy_param
    assert (accuracy.type, own.top_k, own.ignore_label) == ("Accuracy", 1, 255)
