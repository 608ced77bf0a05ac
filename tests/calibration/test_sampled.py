"""What is observed of channels: the ranges of the equalized net without running it."""

from pathlib import Path

import numpy as np
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.calibration.observation import Sampled
from distcalib.engine.spec import NetSpec, Row, Sampling
from distcalib.engine.worker import NetWorker, Setting
from distcalib.quantize.equalization import between_pairs, equalize
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "a_relu" type: "ReLU" bottom: "a" top: "a" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "a" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "b" type: "Convolution" bottom: "pool" top: "b"
  convolution_param { num_output: 6 kernel_size: 3 group: 6 bias_term: false } }
layer { name: "b_relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "c" type: "Convolution" bottom: "b" top: "c" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "fc" type: "InnerProduct" bottom: "c" top: "fc" inner_product_param { num_output: 5 } }
"""
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "a": [(6, 3, 3, 3), (6,)],
    "b": [(6, 1, 3, 3)],
    "c": [(4, 6, 1, 1), (4,)],
    "fc": [(5, 36), (5,)],
}


def test_ranges_of_scaled_channels_are_those_that_the_equalized_net_shows() -> None:
    random = np.random.default_rng(0)
    weights = {
        name: tuple((random.normal(size=s) * np.exp2(random.uniform(-9, 9, s))).astype(np.float32) for s in shapes)
        for name, shapes in SHAPES.items()
    }
    net = text_format.Parse(NET, caffe_pb2.NetParameter()).SerializeToString()
    graph = NetSpec(net, "net").graph
    quantizer = Quantizer(graph, Options())
    taps, between = quantizer.observed, between_pairs(graph, quantizer.groups)
    by_channel = tuple(tap for tap in taps if tap in between)
    x = random.normal(size=(10, 3, 9, 9)).astype(np.float32)
    worker = NetWorker(Setting(Path("net.prototxt"), weights, "w", {}, {"x": x}), 1)

    def rows(spec: NetSpec) -> list[Row]:
        worker.load("net", worker.compile(spec))
        return worker.run("net", range(2))

    observing = Sampling(taps, False, 0, 5, 3, by_channel=by_channel)
    found = rows(NetSpec(net, "net", observing))
    assert [list(row.values) for row in found] == [list(by_channel)] * 2
    sampled = Sampled().with_rows(observing, found)
    plain = rows(NetSpec(net, "net", Sampling(taps, False, 0, 5, 3)))
    assert [row.ranges for row in plain] == [row.ranges for row in found]
    assert not any(row.values for row in plain)

    equalized = equalize(graph, quantizer.groups, weights)
    assert equalized.pairs == {"a": "b", "b": "c", "c": "fc"}
    assert equalized.largest >= 4.0, "else there is nothing to see"
    again = rows(NetSpec(net, "net", Sampling(taps, False, 0, 5, 3), equalized.blobs))
    expected = merge_ranges(taps, [row.ranges for row in again])
    scaled = sampled.scaled(equalized)
    assert {tap: (scaled[tap].low, scaled[tap].high) for tap in taps} == {
        tap: (expected[tap].low, expected[tap].high) for tap in taps
    }
    assert scaled[by_channel[0]].max_abs != sampled.ranges[by_channel[0]].max_abs
