"""What the builder does beside computing: order, folding, refusals, ranges, shapes."""

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, build_graph
from distcalib.engine.builder import build_model, layer_shapes
from distcalib.engine.error_builder import build_errors
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.engine.unconverted import device_outputs, refuse_unconverted
from distcalib.errors import UnsupportedError, WeightsError
from distcalib.layers import FileBlobs, RandomBlobs, ZeroBlobs

Array = NDArray[np.float32]
SHAPES = {"data": (2, 3, 8, 8), "label": (2,)}
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }'
CONV = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }"""
BN = """layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
  layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
  layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }"""


def net(*snippets: str) -> caffe_pb2.NetParameter:
    return text_format.Parse("\n".join(snippets), caffe_pb2.NetParameter())


def run(parameter: caffe_pb2.NetParameter, x: Array, *keep: str, taps: tuple[Blob, ...] = ()) -> list[Array]:
    """The last values of the blobs `keep`, with random weights; the ranges of `taps` at the end."""
    graph = build_graph(parameter.layer, "net")
    final = {top.name: top for node in graph for top in node.tops}
    wanted = [final[name] for name in keep]
    built = build_model(graph, RandomBlobs(3), SHAPES, "net", keep=wanted, taps=taps)
    outputs, ranges = Program(compile_program(built, NetSpec(b"", "net"), 1), 1).run({"data": x})
    return [*(outputs[blob] for blob in wanted), *([] if ranges is None else [ranges])]


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(0).normal(size=SHAPES["data"]).astype(np.float32)


def test_build_model_folds_what_the_separate_layers_compute(images: Array) -> None:
    folded = net(DATA, CONV, BN)
    # A second reader of the raw convolution keeps it from being folded: the layers run one by one.
    apart = net(DATA, CONV, 'layer { name: "ear" type: "AbsVal" bottom: "conv" top: "ear" }', BN)
    [together] = run(folded, images, "conv")
    [one_by_one] = run(apart, images, "conv")
    assert np.allclose(together, one_by_one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_build_model_inner_product(images: Array, axis: int, transpose: bool) -> None:
    parameter = net(
        DATA,
        f"""layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param {{ num_output: 5 axis: {axis} transpose: {str(transpose).lower()} }} }}""",
    )
    [found] = run(parameter, images, "fc")
    flat = images.reshape(*images.shape[: axis % 4], -1)
    shape = (flat.shape[-1], 5) if transpose else (5, flat.shape[-1])
    weight = RandomBlobs(3).get("fc", 0, shape)
    bias = RandomBlobs(3).get("fc", 1, (5,))
    expected = flat @ (weight if transpose else weight.T) + bias
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("group", "dilation", "stride"), [(1, 1, 2), (3, 1, 1), (1, 2, 1), (3, 2, 2)])
def test_build_model_convolution(images: Array, group: int, dilation: int, stride: int) -> None:
    parameter = net(
        DATA,
        f"""layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: 6
        kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 stride: {stride} dilation: {dilation} group: {group} }} }}""",
    )
    [found] = run(parameter, images, "conv")
    weight = RandomBlobs(3).get("conv", 0, (6, 3 // group, 3, 1))
    bias = RandomBlobs(3).get("conv", 1, (6,))
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (0, 0)))
    height = (8 + 2 - 2 * dilation - 1) // stride + 1
    width = (8 - 1) // stride + 1
    expected = np.zeros((2, 6, height, width)) + bias.reshape(1, -1, 1, 1)
    for m in range(6):
        for c in range(3 // group):
            source = padded[:, m // (6 // group) * (3 // group) + c]
            for k in range(3):
                rows = source[:, k * dilation : k * dilation + stride * height : stride, ::stride]
                expected[:, m] += weight[m, c, k, 0] * rows[:, :height, :width]
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_build_model_reports_ranges_of_taps(images: Array) -> None:
    parameter = net(DATA, CONV, BN)
    values, ranges = run(parameter, images, "conv", taps=(Blob("data", 0), Blob("conv", 3)))
    expected = [[images.min(), images.max()], [values.min(), values.max()]]
    assert np.allclose(ranges, expected)


def test_device_outputs_are_what_the_host_reads_and_what_nobody_reads() -> None:
    parameter = net(
        DATA,
        'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 } } }',
        CONV,
        """layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
        layer { name: "end" type: "Softmax" bottom: "conv" top: "end" }
        layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }""",
    )
    assert device_outputs(build_graph(parameter.layer, "net")) == (Blob("end", 0), Blob("fc", 0))


def test_refuse_unconverted_names_all_at_once() -> None:
    parameter = net(
        DATA,
        'layer { name: "a" type: "Python" bottom: "data" top: "a" }',
        'layer { name: "b" type: "Nonsense" bottom: "data" top: "b" }',
    )
    with pytest.raises(
        UnsupportedError, match=r"layer 'a' \(Python\): .*; net: layer 'b' \(Nonsense\): is not a layer"
    ):
        refuse_unconverted(build_graph(parameter.layer, "net"), "net")


def test_build_model_names_all_blobs_that_do_not_fit() -> None:
    parameter = net(
        DATA,
        CONV,
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 5 } }',
    )
    wrong = {"conv": (np.zeros((4, 1, 3, 3), np.float32), np.zeros(4, np.float32))}
    with pytest.raises(WeightsError, match=r"layer 'conv': blob 0 has shape \(4, 1, 3, 3\).*layer 'fc' is not there"):
        build_model(build_graph(parameter.layer, "net"), FileBlobs(wrong, "w.caffemodel"), SHAPES, "net")


def test_layer_shapes_go_on_behind_what_cannot_be_converted() -> None:
    parameter = net(
        DATA,
        'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: STOCHASTIC kernel_size: 2 } }',
        'layer { name: "q" type: "ReLU" bottom: "p" top: "q" }',
        CONV,
        BN,
    )
    shapes, problems = layer_shapes(build_graph(parameter.layer, "net"), ZeroBlobs(), SHAPES, "net")
    assert shapes[Blob("conv", 0)] == shapes[Blob("conv", 3)] == (2, 4, 8, 8)
    assert Blob("q", 0) not in shapes
    assert [str(problem).split(":")[1] for problem in problems] == [" layer 'p' (Pooling)"]


QUANTIZED = """quantization_param { bw_layer_in: 8 bw_layer_out: 8 bw_params: 8 scale_in: 30 scale_out: 20
  scale_params: %s is_negative_input: true }"""


@pytest.mark.parametrize(
    "scales", ["60", "60 scale_params: 70 scale_params: 80 scale_params: 90"], ids=["single", "multiple"]
)
def test_build_model_int8_is_integer_arithmetic(images: Array, scales: str) -> None:
    """The facts file's formula, in NumPy and in integers, on the same random weights."""
    parameter = net(DATA, CONV[:-1] + QUANTIZED % scales + "}")
    [found] = run(parameter, images, "conv")
    scale_params = np.array(parameter.layer[1].quantization_param.scale_params) * np.ones(4)
    weight = RandomBlobs(3).get("conv", 0, (4, 3, 3, 3))
    bias = RandomBlobs(3).get("conv", 1, (4,))
    x = np.clip(np.rint(images * np.float32(30)), -128, 127).astype(np.int64)
    w = np.clip(np.rint(weight * scale_params.astype(np.float32).reshape(-1, 1, 1, 1)), -128, 127).astype(np.int64)
    total = np.zeros((2, 4, 8, 8), np.int64) + np.rint(bias * 30 * scale_params).astype(np.int64).reshape(1, -1, 1, 1)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i in range(3):
        for j in range(3):
            total += np.einsum("nchw,mc->nmhw", padded[:, :, i : i + 8, j : j + 8], w[:, :, i, j])
    step = np.float32(20) / (np.float32(30) * scale_params.astype(np.float32))  # in f32 as Intel Caffe divides
    y = np.clip(np.rint(total.astype(np.float32) * step.reshape(1, -1, 1, 1)), -128, 127)
    assert np.array_equal(np.rint(found * 20), y)


def test_build_model_refuses_a_wrong_number_of_scales() -> None:
    parameter = net(DATA, CONV[:-1] + QUANTIZED % "60 scale_params: 70" + "}")
    with pytest.raises(UnsupportedError, match=r"layer 'conv' \(Convolution\): 2 scale_params for 4 output channels"):
        build_model(build_graph(parameter.layer, "net"), RandomBlobs(0), SHAPES, "net")


def on_grid(x: Array, scale: float, low: int, high: int) -> Array:
    return np.asarray(np.clip(np.rint(x * np.float32(scale)), low, high) / scale, np.float32)


def test_build_errors_is_what_each_layer_by_itself_adds_to_fp32(images: Array) -> None:
    """The second layer reads what FP32 makes, not what the first one makes of integers."""
    param = "quantization_param {{ scale_in: {} scale_out: 1 scale_params: {} bw_layer_out: 32 {} }}"
    first, second = (20.0, 9.0, "is_negative_input: true"), (15.0, 11.0, "")
    point = "convolution_param {{ num_output: {} kernel_size: 1 }}"
    parameter = net(
        DATA,
        f'layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" {point.format(4)} {param.format(*first)} }}',
        'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }',
        f'layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" {point.format(5)} {param.format(*second)} }}',
    )
    random = np.random.default_rng(1)
    shapes = {"a": (4, 3), "b": (5, 4)}
    weights = {
        name: (random.normal(size=(*shape, 1, 1)).astype(np.float32), random.normal(size=shape[0]).astype(np.float32))
        for name, shape in shapes.items()
    }
    graph = build_graph(parameter.layer, "net")
    taps = (Blob("b", 0), Blob("a", 0))
    built = build_errors(graph, FileBlobs(weights, "w", {}), SHAPES, "net", taps)
    found, _ = Program(compile_program(built, NetSpec(b"", "net"), 1), 1).run({"data": images})
    assert tuple(found) == taps
    x = images
    for name, (scale_in, scale, sign) in (("a", first), ("b", second)):
        weight, bias = weights[name][0][:, :, 0, 0], weights[name][1]
        exact = np.einsum("oc,nchw->nohw", weight, x) + bias[:, None, None]
        rounded = on_grid(x, scale_in, *((-128, 127) if sign else (0, 255)))
        unit = np.float32(scale_in * scale)
        added = np.rint(bias * unit)[:, None, None] / unit
        integers = np.einsum("oc,nchw->nohw", on_grid(weight, scale, -128, 127), rounded) + added
        assert np.allclose(found[Blob(name, 0)], (integers - exact).mean(axis=(2, 3)), atol=2e-5)
        x = np.maximum(exact, 0)
