"""-fu against the arithmetic told naively in NumPy: the accumulators of the net on s8 input, to the last integer, but
where the frame shows that the data layer makes."""

from collections.abc import Mapping

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, build_graph
from distcalib.errors import UnsupportedError
from distcalib.quantize.force_u8 import Forced, force_u8, refuse_unforceable
from distcalib.quantize.fusion import Fused, find_fused, fold
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from tests.quantize.nets import conv, eltwise, layer, relu

Blobs = dict[str, tuple[NDArray[np.float32], ...]]

N_OUT = 4
MEANS = "mean_value: 104.3 mean_value: 117.1 mean_value: 123.9"
BATCH_NORM = layer("BatchNorm", "bn", "c", "c") + layer("Scale", "scale", "c", "c", "scale_param { bias_term: true }")


def data(transform: str = f"scale: 0.017 {MEANS}", kind: str = "Data", more: str = "") -> str:
    return layer(kind, "data", "", "data label", f"transform_param {{ {transform} }} {more}")


def graph_of(*layers: str) -> Graph:
    return build_graph(text_format.Parse("\n".join(layers), caffe_pb2.NetParameter()).layer, "net.prototxt")


def blobs_of(random: np.random.RandomState, n_in: int, has_bias: bool) -> Blobs:
    weight = random.standard_normal((N_OUT, n_in, 3, 3)).astype(np.float32)
    bias = random.standard_normal(N_OUT).astype(np.float32)
    return {
        "c": (weight, bias) if has_bias else (weight,),
        "bn": (bias * 0.3, np.abs(bias) + np.float32(0.5), np.ones(1, np.float32)),
        "scale": (random.standard_normal(N_OUT).astype(np.float32), bias - 1),
    }


def params_of(group: Fused, blobs: Blobs, is_single: bool, scale_in: float) -> caffe_pb2.QuantizationParameter:
    largest = np.abs(fold(group, blobs)[0]).reshape(N_OUT, -1).max(axis=1)
    scales = 127.0 / (largest.max(keepdims=True) if is_single else largest)
    return caffe_pb2.QuantizationParameter(scale_in=[scale_in], scale_params=scales, is_negative_input=True)


def naive(
    pixels: NDArray[np.uint8],
    transform: caffe_pb2.TransformationParameter,
    group: Fused,
    convolution: caffe_pb2.LayerParameter,
    blobs: Mapping[str, tuple[NDArray[np.float32], ...]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The integers (C, H, W) that the convolution multiplies, and its accumulators (M, H', W'), as in Intel Caffe.

    The frame of the data layer is 0 here, which is not all of it: tests/data/test_transform.py has that.
    """
    param, geometry = convolution.quantization_param, convolution.convolution_param
    means = np.array(transform.mean_value or [0.0], np.float32).reshape(-1, 1, 1)
    x = (pixels.astype(np.float32) - means) * np.float32(transform.scale)
    at_data = [(0, 0), (transform.pad, transform.pad), (transform.pad, transform.pad)]
    x = np.pad(x, at_data)
    in_convolution = max([0, *geometry.pad, geometry.pad_h])
    x = np.pad(x, [(0, 0), (in_convolution,) * 2, (in_convolution,) * 2])
    if param.force_u8_input:
        x_q = np.clip(np.rint(x), 0, 255).astype(np.int64)
    else:
        x_q = np.clip(np.rint(x * np.float32(param.scale_in[0])), -128, 127).astype(np.int64)
    weight, bias = fold(group, blobs)
    scales = np.broadcast_to(np.array(param.scale_params), N_OUT)
    w_q = np.clip(np.rint(weight * scales.astype(np.float32).reshape(-1, 1, 1, 1)), -128, 127).astype(np.int64)
    b_q = np.rint(bias * param.scale_in[0] * scales).astype(np.int64)
    n_in = weight.shape[1]
    sums = np.empty((N_OUT, x.shape[1] - 2, x.shape[2] - 2), np.int64)
    for m, i, j in np.ndindex(sums.shape):
        first = m // (N_OUT // geometry.group) * n_in
        sums[m, i, j] = (x_q[first : first + n_in, i : i + 3, j : j + 3] * w_q[m]).sum() + b_q[m]
    return x_q, sums


def inside(maps: NDArray[np.int64], pad: int) -> NDArray[np.int64]:
    """What is not of the frame, or does not see it."""
    height, width = maps.shape[1:]
    return maps[:, pad : height - pad, pad : width - pad]


def forced_case(
    convolution: str, *, tail: str = "", is_single: bool = True, has_bias: bool = True, clx: bool = True, n_in: int = 3
) -> tuple[Graph, Fused, caffe_pb2.LayerParameter, Blobs, Forced]:
    graph = graph_of(data(), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3 {convolution}"), tail)
    group = find_fused(graph)["c"]
    blobs = blobs_of(np.random.RandomState(3), n_in, has_bias)
    plain = caffe_pb2.LayerParameter()
    plain.CopyFrom(group.node.layer)
    plain.quantization_param.CopyFrom(params_of(group, blobs, is_single, 51.7))
    return graph, group, plain, blobs, force_u8(graph, group, plain.quantization_param, blobs, clx)


@pytest.mark.parametrize("clx", [True, False], ids=["clx", "halved"])
@pytest.mark.parametrize("is_single", [True, False], ids=["single", "multiple"])
@pytest.mark.parametrize("tail", ["", BATCH_NORM], ids=["alone", "batch norm and scale"])
@pytest.mark.parametrize(
    ("convolution", "has_bias", "n_in", "pad"),
    [
        ("", True, 3, 0),
        ("pad: 1", True, 3, 1),
        ("pad: 2 pad: 2 bias_term: false", False, 3, 2),
        ("pad_h: 1 pad_w: 1 group: 1", True, 3, 1),
    ],
    ids=["no pad", "pad", "no bias", "h and w"],
)
def test_force_u8_gives_the_accumulators_of_the_plain_net(
    convolution: str, has_bias: bool, n_in: int, pad: int, tail: str, is_single: bool, clx: bool
) -> None:
    graph, group, plain, blobs, forced = forced_case(
        convolution, tail=tail, is_single=is_single, has_bias=has_bias, clx=clx, n_in=n_in
    )
    assert forced.data.transform_param.pad == pad
    assert not any(forced.convolution.convolution_param.pad)
    assert forced.convolution.convolution_param.pad_h == forced.convolution.convolution_param.pad_w == 0
    assert forced.convolution.convolution_param.bias_term
    new, old = forced.convolution.quantization_param.scale_params, plain.quantization_param.scale_params
    np.testing.assert_array_equal(np.array(new), np.array(old) * (1.0 if clx else 0.5))
    plain.quantization_param.scale_params[:] = new
    pixels = np.random.RandomState(5).randint(0, 256, (3, 6, 7)).astype(np.uint8)
    transform = graph.nodes[0].layer.transform_param
    x_q, sums = naive(pixels, transform, group, plain, blobs)
    changed = {**blobs, "c": forced.blobs}
    u8, sums_of_u8 = naive(pixels, forced.data.transform_param, group, forced.convolution, changed)
    assert inside(u8, pad).size
    np.testing.assert_array_equal(inside(u8, pad), inside(x_q, pad) + 128)
    np.testing.assert_array_equal(inside(sums_of_u8, pad), inside(sums, pad))
    assert np.array_equal(sums_of_u8, sums) == (pad == 0), "a frame of pixels is no zero"
    np.testing.assert_array_equal(forced.blobs[0], blobs["c"][0])


def test_force_u8_of_a_grouped_convolution() -> None:
    graph = graph_of(data("mean_value: 99.7"), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3 pad: 1 group: 2"))
    group, blobs = find_fused(graph)["c"], blobs_of(np.random.RandomState(3), 1, True)
    plain = caffe_pb2.LayerParameter()
    plain.CopyFrom(group.node.layer)
    plain.quantization_param.CopyFrom(params_of(group, blobs, False, 0.83))
    forced = force_u8(graph, group, plain.quantization_param, blobs, True)
    assert len(forced.data.transform_param.mean_value) == 1
    pixels = np.random.RandomState(5).randint(0, 256, (2, 6, 7)).astype(np.uint8)
    _, sums = naive(pixels, graph.nodes[0].layer.transform_param, group, plain, blobs)
    _, of_u8 = naive(pixels, forced.data.transform_param, group, forced.convolution, {**blobs, "c": forced.blobs})
    np.testing.assert_array_equal(inside(of_u8, 1), inside(sums, 1))


def test_force_u8_is_the_predecessors_rule_where_weights_are_whole() -> None:
    """b - (128/scale_in)·Σw, mean - 128/scale', scale_in·scale: with weights on the grid nothing is rounded."""
    graph = graph_of(data("scale: 0.5 mean_value: 100"), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3"))
    group = find_fused(graph)["c"]
    weight = np.random.RandomState(0).randint(-127, 128, (N_OUT, 1, 3, 3)).astype(np.float32) / np.float32(64)
    bias = np.arange(N_OUT, dtype=np.float32)
    param = caffe_pb2.QuantizationParameter(scale_in=[2.0], scale_params=[64.0], is_negative_input=True)
    forced = force_u8(graph, group, param, {"c": (weight, bias.reshape(1, 1, 1, -1))}, True)
    assert forced.blobs[1].shape == (1, 1, 1, N_OUT), "as it was stored"
    np.testing.assert_array_equal(forced.blobs[1].reshape(-1), bias - 64.0 * weight.sum(axis=(1, 2, 3)))
    transform, quantization = forced.data.transform_param, forced.convolution.quantization_param
    assert (transform.scale, list(transform.mean_value), transform.HasField("pad")) == (1.0, [-28.0], False)
    assert (quantization.is_negative_input, quantization.force_u8_input) == (False, True)
    assert list(quantization.scale_in) == [2.0]


def test_force_u8_gives_a_mean_to_a_layer_without_one() -> None:
    graph = graph_of(data("scale: 0.25"), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3"))
    param = caffe_pb2.QuantizationParameter(scale_in=[2.0], scale_params=[64.0])
    blobs = blobs_of(np.random.RandomState(3), 3, False)
    forced = force_u8(graph, find_fused(graph)["c"], param, blobs, True)
    assert list(forced.data.transform_param.mean_value) == [-256.0]


@pytest.mark.parametrize("dead", ["weights", "gamma", "scale"])
def test_force_u8_leaves_a_channel_without_weights_as_it_is(dead: str) -> None:
    graph = graph_of(data(), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3"), BATCH_NORM)
    group, blobs = find_fused(graph)["c"], blobs_of(np.random.RandomState(3), 3, True)
    scales = np.full(N_OUT, 20.0)
    if dead == "weights":
        blobs["c"][0][1], blobs["c"][1][1] = 0.0, 0.0
    elif dead == "gamma":
        blobs["scale"][0][1] = 0.0
    else:
        scales[1] = 0.0
    param = caffe_pb2.QuantizationParameter(scale_in=[50.0], scale_params=scales)
    new = force_u8(graph, group, param, blobs, True).blobs[1]
    assert np.isfinite(new).all()
    assert new[1] == pytest.approx(blobs["c"][1][1], abs=0.01)
    assert (np.abs(new - blobs["c"][1])[[0, 2, 3]] > 0.01).all()


def test_force_u8_refuses_a_bias_beyond_32_bits() -> None:
    graph = graph_of(data(), conv("c", "data", f"num_output: {N_OUT} kernel_size: 3"))
    blobs = blobs_of(np.random.RandomState(3), 3, True)
    param = caffe_pb2.QuantizationParameter(scale_in=[1e9], scale_params=[100.0])
    with pytest.raises(UnsupportedError, match=r"layer 'c' \(Convolution\): its bias would leave 32 bits with -fu"):
        force_u8(graph, find_fused(graph)["c"], param, blobs, True)


C = conv("c", "data")
SHARED = C.replace('name: "c"', 'name: "c" param { name: "w" }')
NO_TRANSFORM = (
    r"has no transform_param for -fu to write to; Data, ImageData, AnnotatedData layers have one, else leave out -fu"
)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        pytest.param(
            [data(kind="Input"), C], rf"reads 'data' of layer 'data' \(Input\), which {NO_TRANSFORM}", id="input"
        ),
        pytest.param([data(kind="DummyData"), C], rf"'data' \(DummyData\), which {NO_TRANSFORM}", id="dummy"),
        pytest.param([data(kind="HDF5Data"), C], rf"'data' \(HDF5Data\), which {NO_TRANSFORM}", id="hdf5"),
        pytest.param(
            [data(), layer("Power", "p", "data"), conv("c", "p")],
            rf"reads 'p' of layer 'p' \(Power\), which {NO_TRANSFORM}",
            id="not_directly",
        ),
        pytest.param(
            [data(), conv("c", "label")], rf"reads 'label' of layer 'data' \(Data\), which {NO_TRANSFORM}", id="label"
        ),
        pytest.param(
            [data(), C, conv("d", "data"), layer("Silence", "s", "data")],
            r"shares its input 'data' with 'd', 's', which would read u8; leave out -fu",
            id="other_readers",
        ),
        pytest.param(
            [data('mean_file: "m"'), C],
            r"layer 'data' subtracts a mean_file, into which -fu writes nothing; give mean_value instead",
            id="mean_file",
        ),
        pytest.param([data("scale: 0"), C], r"has scale 0 in transform_param", id="scale_0"),
        pytest.param(
            [data(), conv("c", "data", "num_output: 2 kernel_size: 3 pad_h: 1 pad_w: 2")],
            r"pads 1 rows and 2 columns, and a data layer pads both alike; leave out -fu",
            id="pad_h_and_w",
        ),
        pytest.param(
            [data(), conv("c", "data", "num_output: 2 kernel_size: 3 pad: 1 pad: 0")],
            r"pads 1 rows and 0 columns",
            id="pad_twice",
        ),
        pytest.param(
            [data(), SHARED, conv("d", "c").replace('name: "d"', 'name: "d" param { name: "w" }')],
            r"shares weights with other layers \(param 'w'\), and -fu changes its own; leave out -fu",
            id="shared_weights",
        ),
        pytest.param(
            [data(), layer("Input", "z", "", "z"), C, eltwise("e", "z c")],
            r"cannot be INT8 \(its residual 'z' is FP32, so Intel Caffe runs the sum in FP32\)",
            id="sum",
        ),
    ],
)
def test_refuse_unforceable(layers: list[str], said: str) -> None:
    quantizer = Quantizer(graph_of(*layers), Options(first_conv_force_u8=True))
    with pytest.raises(UnsupportedError, match=rf"^net\.prototxt: layer 'c' \(Convolution\): .*{said}"):
        refuse_unforceable(quantizer, "net.prototxt")


def test_refuse_unforceable_names_everything_at_once() -> None:
    layers = data('scale: 0 mean_file: "m"'), conv("c", "data", "num_output: 2 kernel_size: 3 pad_h: 1")
    with pytest.raises(UnsupportedError, match=r"pads 1 rows .*; .*mean_file.*; .*scale 0"):
        refuse_unforceable(Quantizer(graph_of(*layers), Options(first_conv_force_u8=True)), "net.prototxt")


def test_refuse_unforceable_wants_a_convolution() -> None:
    inner = layer("InnerProduct", "f", "data", "", "inner_product_param { num_output: 2 }")
    quantizer = Quantizer(graph_of(data(), inner), Options(first_conv_force_u8=True))
    with pytest.raises(UnsupportedError, match="has no convolution whose input -fu could make u8; leave out -fu"):
        refuse_unforceable(quantizer, "net.prototxt")


@pytest.mark.parametrize("kind", ["Data", "ImageData"])
def test_refuse_unforceable_lets_the_usual_net_pass(kind: str) -> None:
    label = layer("Accuracy", "top1", "c label")
    one_user = SHARED  # a name that no other layer has shares nothing
    refuse_unforceable(
        Quantizer(graph_of(data(kind=kind), one_user, relu("r", "c"), label), Options(first_conv_force_u8=True)), "net"
    )
