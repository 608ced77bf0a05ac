"""The families of tests/engine/test_architectures.py, FP32 and INT8, exported: both runtimes answer alike."""

from collections import Counter

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import build_model
from distcalib.exporters import build_export
from distcalib.layers import FileBlobs
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration
from tests.cpu import needs_vnni
from tests.engine.test_architectures import FAMILIES, SHAPE, program, weights_of
from tests.exporters.exports import Array, run_both

pytest.importorskip("onnxruntime")
from distcalib.exporters.runtimes import INTEGER_OPS

IMAGES = np.abs(np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
BY_NAME = {family.__name__: family for family in FAMILIES}


def largest_difference(a: Array, b: Array) -> float:
    """Of the largest value."""
    return float(np.abs(a - b).max() / np.abs(a).max())


@needs_vnni
@pytest.mark.parametrize("name", BY_NAME)
def test_a_family_is_exported_in_fp32_and_int8(name: str) -> None:
    parameter = text_format.Parse(BY_NAME[name](), caffe_pb2.NetParameter())
    graph = build_graph(parameter.layer, name)
    weights = weights_of(parameter)
    blobs, shapes = FileBlobs(weights, "weights"), {"data": SHAPE}
    quantizer = Quantizer(graph, Options("multiple"))
    reference = program(build_model(graph, blobs, shapes, name, taps=quantizer.observed))
    outputs, ranges = reference.run({"data": IMAGES})
    assert ranges is not None
    [engine] = outputs.values()
    ir, onnx = run_both(build_export(graph, blobs, shapes, name), {"data": IMAGES})
    assert largest_difference(engine, ir["fc"]) <= 1e-4
    assert largest_difference(engine, onnx["fc"]) <= 1e-4
    merged = merge_ranges(quantizer.observed, [[observe_ends(*ends) for ends in ranges.tolist()]])
    candidate = quantizer.space.all_int8
    params = Calibration(quantizer, merged, weights).params(candidate)
    for layer in parameter.layer:
        if layer.name in candidate.int8:
            layer.quantization_param.CopyFrom(params[layer.name])
    quantized = build_graph(parameter.layer, name)
    engine_int8, _ = program(build_model(quantized, blobs, shapes, name)).run({"data": IMAGES})
    kernels: Counter[str] = Counter()
    made = build_export(quantized, blobs, shapes, name)
    assert made.batch is None, made.reason
    ir, onnx = run_both(made, {"data": IMAGES}, kernels)
    [answer] = engine_int8.values()
    assert largest_difference(answer, ir["fc"]) <= 0.01
    assert largest_difference(answer, onnx["fc"]) <= 0.01
    assert sum(kernels[kind] for kind in INTEGER_OPS) == len(candidate.int8_layers)
