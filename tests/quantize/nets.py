"""Small nets, a line a layer, and calibrations of them with made-up ranges."""

import random
from collections.abc import Mapping

import numpy as np
from google.protobuf import text_format

from distcalib.caffe import Weights
from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter, QuantizationParameter
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.quantize.mending import mending_engines
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 8 dim: 8 } } }'


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


def mended_graph(graph: Graph, params: Mapping[str, QuantizationParameter] | None = None) -> Graph:
    """`graph` with these parameters, and with the engines that `calibrate` writes."""
    layers = [LayerParameter.FromString(node.layer.SerializeToString()) for node in graph]
    for made in layers:
        if params is not None and made.name in params:
            made.quantization_param.CopyFrom(params[made.name])
    engines = mending_engines(layers, "net.prototxt")
    for made in layers:
        made.engine = engines.get(made.name, made.engine)
    return build_graph(layers, "net.prototxt")


def value(text: str) -> Blob:
    """`c` or `c#1`: as `str(Blob)` writes it."""
    name, _, version = text.partition("#")
    return Blob(name, int(version or 0))


def weights_of(graph: Graph, weight: float = 2.0) -> Weights:
    """Two output channels of `weight` for each convolution; no bias, and BatchNorms and Scales that change nothing."""
    made = np.full((2, 1, 1, 1), weight, np.float32)
    zeros, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    fully = (made.reshape(2, 1),)
    blobs = {
        "Convolution": (made,),
        "InnerProduct": fully,
        "BatchNorm": (zeros, ones, ones[:1]),
        "Scale": (ones, zeros),
    }
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


def random_net(rng: random.Random) -> list[str]:
    """A net of about twenty layers; every kind of reader of every kind of value comes up over the seeds."""
    layers: list[str] = []
    blobs = ["x"]

    def pick() -> str:
        return rng.choice(blobs[-5:])

    def add(text: str, *tops: str) -> None:
        layers.append(text)
        blobs.extend(tops)

    for i in range(rng.randint(8, 24)):
        top, kind = f"b{i}", rng.randrange(10)
        if kind < 4:
            add(conv(top, pick()), top)
            if rng.random() < 0.3:
                layers.append(layer("BatchNorm", f"{top}_bn", top, top))
            if rng.random() < 0.5:
                layers.append(relu(f"{top}_relu", top, rng.choice([0.0, 0.0, 0.1])))
        elif kind < 7:
            branch, shortcut = f"{top}_conv", pick()
            layers.append(conv(branch, pick()))
            if rng.random() < 0.2:
                layers.append(relu(f"{branch}_relu", branch))
            pair = [shortcut, branch]
            rng.shuffle(pair)
            third = f" {pick()}" if rng.random() < 0.15 else ""
            add(eltwise(top, f"{pair[0]} {pair[1]}{third}", rng.choice(["", "", "", "operation: MAX"])), top)
            if rng.random() < 0.7:
                layers.append(relu(f"{top}_relu", top))
        elif kind == 7:
            add(layer("Concat", top, f"{pick()} {pick()}"), top)
        elif kind == 8:
            add(layer("Split", top, pick(), f"{top}a {top}b"), f"{top}a", f"{top}b")
        else:
            add(layer(rng.choice(["Pooling", "Pooling", "ReLU", "LRN"]), top, pick()), top)
    return layers


def random_joined_net(rng: random.Random) -> list[str]:
    """Branches that Concats of two to four join, nested and through poolings of both kinds, with sums onto them."""
    layers, ends = [], ["x"]

    def add(text: str, top: str) -> str:
        layers.append(text)
        return top

    def branch(name: str, bottom: str) -> str:
        top = bottom
        for i in range(rng.randint(0, 2)):
            top = add(conv(f"{name}_{i}", top), f"{name}_{i}")
            if rng.random() < 0.3:
                layers.append(layer("BatchNorm", f"{top}_bn", top, top))
            if rng.random() < 0.7:
                layers.append(relu(f"{top}_relu", top))
        if rng.random() < 0.4:
            pool = rng.choice(["MAX", "AVE"])
            top = add(layer("Pooling", f"{name}_p", top, "", f"pooling_param {{ pool: {pool} }}"), f"{name}_p")
        return top

    for block in range(rng.randint(1, 4)):
        start = rng.choice(ends[-3:])
        tops = [branch(f"n{block}b{i}", rng.choice([start, start, rng.choice(ends)])) for i in range(rng.randint(2, 4))]
        if rng.random() < 0.5:  # densely connected: what is joined is joined again
            tops.append(rng.choice(ends[-2:]))
        out = add(layer("Concat", f"n{block}", " ".join(tops)), f"n{block}")
        if rng.random() < 0.4:
            pool = rng.choice(["MAX", "AVE"])
            out = add(layer("Pooling", f"n{block}p", out, "", f"pooling_param {{ pool: {pool} }}"), f"n{block}p")
        if rng.random() < 0.6:
            shortcut = out
            for i in range(rng.randint(1, 2)):
                end = add(conv(f"n{block}s{i}", out), f"n{block}s{i}")
                out = add(eltwise(f"n{block}e{i}", f"{shortcut} {end}"), f"n{block}e{i}")
                if rng.random() < 0.8:
                    layers.append(relu(f"{out}_relu", out))
        ends.append(out)
    layers.append(layer("InnerProduct", "fc", out, "", "inner_product_param { num_output: 2 }"))
    layers.append(layer("InnerProduct", "end", "fc", "", "inner_product_param { num_output: 2 }"))
    return layers
