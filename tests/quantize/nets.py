"""Small nets, a line a layer, and calibrations of them with made-up ranges."""

from collections.abc import Mapping

import numpy as np
from google.protobuf import text_format

from distcalib.caffe import Weights
from distcalib.caffe.caffe_pb2 import NetParameter
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration, Options, Quantizer

INPUT = 'layer { name: "x" type: "Input" top: "x" }'


def layer(kind: str, name: str, bottoms: str, top: str = "", param: str = "") -> str:
    """Prototxt of a layer; bottoms and tops are separated by spaces, the top is the name if none is given."""
    blobs = [f'bottom: "{b}"' for b in bottoms.split()] + [f'top: "{t}"' for t in (top or name).split()]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(blobs)} {param} }}'


def conv(name: str, bottom: str, param: str = "num_output: 2 kernel_size: 1", top: str = "") -> str:
    """A convolution."""
    return layer("Convolution", name, bottom, top, f"convolution_param {{ {param} }}")


def relu(name: str, blob: str, slope: float = 0.0) -> str:
    """A ReLU in place."""
    return layer("ReLU", name, blob, blob, f"relu_param {{ negative_slope: {slope} }}")


def eltwise(name: str, bottoms: str, param: str = "", top: str = "") -> str:
    """A sum, if `param` does not say otherwise."""
    return layer("Eltwise", name, bottoms, top, f"eltwise_param {{ {param} }}")


def make_graph(*layers: str) -> Graph:
    """The graph of an input `x` and these layers."""
    net = text_format.Parse("\n".join([INPUT, *layers]), NetParameter())
    return build_graph(net.layer, "net.prototxt")


def value(text: str) -> Blob:
    """`c` or `c#1`: as `str(Blob)` writes it."""
    name, _, version = text.partition("#")
    return Blob(name, int(version or 0))


def weights_of(graph: Graph, weight: float = 2.0) -> Weights:
    """Two output channels of `weight` for each convolution; no bias, and BatchNorms and Scales that change nothing."""
    made = np.full((2, 1, 1, 1), weight, np.float32)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    blobs = {"Convolution": (made,), "BatchNorm": (zeros, ones, ones[:1]), "Scale": (ones, zeros)}
    return {node.name: blobs[node.type] for node in graph if node.type in blobs}


def calibrate(
    *layers: str,
    largest: Mapping[str, float] | None = None,
    options: Options | None = None,
    weights: Weights | None = None,
) -> Calibration:
    """A calibration in which each value lies in [-m, m]: m as `largest` says, or 1."""
    quantizer = Quantizer(make_graph(*layers), options or Options(enable_1st_conv=True))
    sizes = {value(text): size for text, size in (largest or {}).items()}
    ranges = {blob: Range(-sizes.get(blob, 1.0), sizes.get(blob, 1.0)) for blob in quantizer.observed}
    return Calibration(quantizer, ranges, weights_of(quantizer.graph) if weights is None else weights)
