"""The families of nets that people have, in small: quantized by the rules, run on INT8 kernels, close to FP32."""

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.engine.builder import BuiltModel, build_model
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec, is_int8_kernel
from distcalib.layers import FileBlobs
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration
from distcalib.quantize.storage import params_of, storage
from tests.cpu import needs_vnni

Array = NDArray[np.float32]
SHAPE = (4, 16, 16, 16)
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 16 dim: 16 dim: 16 } } }'


class Drawn:
    """Prototxt text, a layer at a time; `top` is the last blob."""

    def __init__(self) -> None:
        self.text = [DATA]
        self.top = "data"

    def add(self, name: str, kind: str, *bottoms: str, param: str = "", in_place: bool = False) -> str:
        reads = bottoms or (self.top,)
        self.top = reads[0] if in_place else name
        bottom = " ".join(f'bottom: "{b}"' for b in reads)
        self.text.append(f'layer {{ name: "{name}" type: "{kind}" {bottom} top: "{self.top}" {param} }}')
        return self.top

    def conv(
        self,
        name: str,
        n: int,
        *bottom: str,
        k: int = 3,
        group: int = 1,
        stride: int = 1,
        bn: bool = True,
        relu: bool = True,
    ) -> str:
        shape = f"num_output: {n} kernel_size: {k} pad: {k // 2} group: {group} stride: {stride}"
        top = self.add(
            name, "Convolution", *bottom, param=f"convolution_param {{ {shape} bias_term: {str(not bn).lower()} }}"
        )
        if bn:
            self.add(f"{name}/bn", "BatchNorm", top, in_place=True)
            self.add(f"{name}/scale", "Scale", top, param="scale_param { bias_term: true }", in_place=True)
        if relu:
            self.add(f"{name}/relu", "ReLU", top, in_place=True)
        return top

    def end(self) -> str:
        self.add("pool_last", "Pooling", param="pooling_param { pool: AVE global_pooling: true }")
        self.add("fc", "InnerProduct", param="inner_product_param { num_output: 10 }")
        return "\n".join(self.text)


def alexnet() -> str:
    net = Drawn()
    net.conv("conv1", 16, bn=False)
    net.add("norm1", "LRN", param="lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    net.add("pool1", "Pooling", param="pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.conv("conv2", 32, k=5, group=2, bn=False)
    net.conv("conv3", 32, group=2, bn=False)
    net.add("pool5", "Pooling", param="pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    net.add("drop", "Dropout", in_place=True)
    return net.end()


def googlenet() -> str:
    net = Drawn()
    stem = net.conv("conv1", 16, bn=False)
    one = net.conv("one", 16, stem, k=1, bn=False)
    net.conv("three_reduce", 16, stem, k=1, bn=False)
    three = net.conv("three", 32, bn=False)
    net.add("pool", "Pooling", stem, param="pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }")
    proj = net.conv("proj", 16, k=1, bn=False)
    net.add("concat", "Concat", one, three, proj)
    net.conv("after", 32, bn=False)
    return net.end()


def squeezenet() -> str:
    net = Drawn()
    net.conv("conv1", 16, bn=False)
    for fire in ("a", "b"):
        squeeze = net.conv(f"{fire}/squeeze", 16, k=1, bn=False)
        left = net.conv(f"{fire}/left", 16, squeeze, k=1, bn=False)
        right = net.conv(f"{fire}/right", 16, squeeze, bn=False)
        net.add(f"{fire}/concat", "Concat", left, right)
    net.conv("last", 16, k=1, bn=False)
    return net.end()


def resnet(group: int = 1) -> str:
    net = Drawn()
    stem = net.conv("conv1", 32)
    shortcut = net.conv("a/shortcut", 32, stem, k=1, relu=False)
    net.conv("a/1", 32, stem, group=group)
    branch = net.conv("a/2", 32, relu=False)
    net.add("a", "Eltwise", shortcut, branch)
    first = net.add("a/relu", "ReLU", in_place=True)
    net.conv("b/1", 32, first, group=group)
    branch = net.conv("b/2", 32, relu=False)
    net.add("b", "Eltwise", first, branch)
    net.add("b/relu", "ReLU", in_place=True)
    net.conv("last", 16)
    return net.end()


def resnext() -> str:
    return resnet(group=4)


def mobilenet_v1() -> str:
    net = Drawn()
    net.conv("conv1", 16)
    for block in ("a", "b"):
        net.conv(f"{block}/dw", 16, group=16)
        net.conv(f"{block}/pw", 16, k=1)
    return net.end()


def mobilenet_v2() -> str:
    net = Drawn()
    net.conv("conv1", 16)
    linear = net.conv("first", 16, k=1, relu=False)
    for block in ("a", "b"):
        net.conv(f"{block}/expand", 32, linear, k=1)
        net.conv(f"{block}/dw", 32, group=32)
        branch = net.conv(f"{block}/linear", 16, k=1, relu=False)
        linear = net.add(f"{block}/sum", "Eltwise", linear, branch)
    net.conv("last", 32, k=1)
    return net.end()


def densenet() -> str:
    net = Drawn()
    features = net.conv("conv1", 16, bn=False, relu=False)
    for block in ("a", "b"):
        net.add(f"{block}/bn", "BatchNorm", features)
        net.add(f"{block}/scale", "Scale", param="scale_param { bias_term: true }", in_place=True)
        net.add(f"{block}/relu", "ReLU", in_place=True)
        new = net.conv(f"{block}/conv", 16, bn=False, relu=False)
        features = net.add(f"{block}/concat", "Concat", features, new)
    net.add("transition", "Pooling", param="pooling_param { pool: AVE kernel_size: 2 stride: 2 }")
    return net.end()


def inception_ave() -> str:
    """An average pooling between two INT8 convolutions, as Inception has it: rounded to the grid."""
    net = Drawn()
    net.conv("conv1", 16)
    stem = net.conv("conv2", 32)
    net.add("pool", "Pooling", stem, param="pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }")
    pooled = net.conv("pooled", 16, k=1)
    tall = net.conv("tall", 16, stem)
    net.add("concat", "Concat", pooled, tall)
    net.conv("last", 16, k=1)
    return net.end()


FAMILIES = (
    *(alexnet, googlenet, squeezenet, resnet, resnext),
    *(mobilenet_v1, mobilenet_v2, densenet, inception_ave),
)


def weights_of(parameter: caffe_pb2.NetParameter) -> dict[str, tuple[Array, ...]]:
    """Random weights of sensible size for every layer, channels read off a dry pass over the text's shapes."""
    rng = np.random.default_rng(5)
    channels = {"data": SHAPE[1]}
    found: dict[str, tuple[Array, ...]] = {}
    for layer in parameter.layer:
        c = (
            sum(channels[b] for b in layer.bottom)
            if layer.type == "Concat"
            else channels.get(next(iter(layer.bottom), ""), SHAPE[1])
        )
        if layer.type == "Convolution":
            p = layer.convolution_param
            shape = (p.num_output, c // p.group, p.kernel_size[0], p.kernel_size[0])
            weight = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
            found[layer.name] = (_f32(weight), *((_f32(rng.normal(size=p.num_output) * 0.1),) if p.bias_term else ()))
            c = p.num_output
        elif layer.type == "InnerProduct":
            found[layer.name] = (_f32(rng.normal(size=(10, c)) / np.sqrt(c)), _f32(np.zeros(10)))
        elif layer.type == "BatchNorm":
            found[layer.name] = (_f32(rng.normal(size=c) * 0.1), _f32(rng.uniform(0.5, 1.5, c)), _f32(np.ones(1)))
        elif layer.type == "Scale":
            found[layer.name] = (_f32(rng.uniform(0.7, 1.2, c)), _f32(rng.normal(size=c) * 0.1))
        channels.update((top, c) for top in layer.top)
    return found


def _f32(values: NDArray[np.float64]) -> Array:
    return values.astype(np.float32)


def program(built: BuiltModel) -> Program:
    return Program(compile_program(built, NetSpec(b"", "net"), 1), 1)


@pytest.fixture(params=FAMILIES, ids=[family.__name__ for family in FAMILIES])
def family(request: pytest.FixtureRequest) -> tuple[str, caffe_pb2.NetParameter]:
    make = request.param
    return make.__name__, text_format.Parse(make(), caffe_pb2.NetParameter())


# What stays FP32 beside the first convolution: see Quantizer.refused.
@needs_vnni
@pytest.mark.parametrize("channel", ["single", "multiple"])
def test_a_family_runs_int8_and_stays_close_to_fp32(family: tuple[str, caffe_pb2.NetParameter], channel: str) -> None:
    name, parameter = family
    graph: Graph = build_graph(parameter.layer, name)
    weights = weights_of(parameter)
    blobs = FileBlobs(weights, "weights")
    quantizer = Quantizer(graph, Options(channel))
    images = np.abs(np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    shapes = {"data": SHAPE}
    outputs, ranges = program(build_model(graph, blobs, shapes, name, taps=quantizer.observed)).run({"data": images})
    assert ranges is not None
    calibration = Calibration(
        quantizer, merge_ranges(quantizer.observed, [[observe_ends(*ends) for ends in ranges.tolist()]]), weights
    )
    candidate = quantizer.space.all_int8
    assert len(candidate.int8) >= 2
    for layer in parameter.layer:
        if layer.name in candidate.int8:
            layer.quantization_param.CopyFrom(calibration.params(candidate)[layer.name])
    quantized = build_graph(parameter.layer, name)
    compiled = program(build_model(quantized, blobs, shapes, name))
    kernels = compiled.header.kernels
    assert [layer for layer in candidate.int8_layers if not is_int8_kernel(kernels[layer])] == []
    found, _ = compiled.run({"data": images})
    fc = Blob("fc", 0)
    error = np.linalg.norm(found[fc] - outputs[fc]) / np.linalg.norm(outputs[fc])
    assert error < 0.06, error
    assert error > 0.0  # integers were there
    stored = storage(quantized, quantizer.groups, params_of(quantized))
    assert {blob for blob, grid in stored.items() if grid.scale <= 0} == set()
