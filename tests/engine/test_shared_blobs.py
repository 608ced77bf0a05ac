"""Nets whose blobs share memory: computed as Caffe does, told here with NumPy buffers that are really shared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.engine.builder import build_model
from distcalib.engine.net import open_net
from distcalib.layers import ZeroBlobs
from distcalib.quantize.mending import mending_engines
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from tests.layers.harness import CONFIG, Array, random

SHAPE = (2, 3, 4, 4)
INPUT = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } } '


def layer(name: str, kind: str, bottoms: str, tops: str, params: str = "") -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {params} }} '


def graph_of(text: str) -> Graph:
    return build_graph(text_format.Parse(INPUT + text, caffe_pb2.NetParameter()).layer, "net")


def computed(graph: Graph, a: Array) -> Mapping[Blob, Array]:
    """Every value of the net, by the engine."""
    made = [blob for node in graph if node.type != "Input" for blob in node.tops]
    built = build_model(graph, ZeroBlobs(), {"a": a.shape}, "net", keep=made)
    results = ov.Core().compile_model(built.model, "CPU", CONFIG)([a])
    return {Blob("a", 0): a, **{blob: np.array(results[i]) for i, blob in enumerate(made)}}


def last(values: Mapping[Blob, Array], name: str) -> Array:
    """What the last write to a name left."""
    return values[max(blob for blob in values if blob.name == name)]


@dataclass
class Caffe:
    """A net as Caffe runs it: each name is a shape and a buffer, and some names have one buffer."""

    rng: np.random.Generator
    buffers: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    n_read: dict[str, int] = field(default_factory=dict)
    text: str = ""
    made: dict[str, Array] = field(default_factory=dict)
    """What each layer that is not in place made when it ran, by its top."""

    def pick(self, wanted: Callable[[str], bool] = lambda name: True) -> str:
        names = [name for name in self.buffers if wanted(name)]
        return str(self.rng.choice(names)) if names else ""

    def read(self, name: str) -> Array:
        self.n_read[name] += 1
        return self.buffers[name]

    def make(self, name: str, shape: tuple[int, ...], buffer: Array) -> None:
        self.shapes[name], self.buffers[name], self.n_read[name] = shape, buffer, 0

    def sharing(self, number: int) -> None:
        """Flatten, Reshape, Split, Squeeze, Concat of one bottom, Slice into one top: the buffer under another name."""
        kind = str(self.rng.choice(["Flatten", "Reshape", "Split", "Squeeze", "Concat", "Slice"]))
        bottom = self.pick()
        shape, buffer, name = self.shapes[bottom], self.read(bottom), f"v{number}"
        tops, params = [name], ""
        made = shape
        if kind == "Flatten":
            made = (shape[0], int(np.prod(shape[1:])))
        elif kind == "Reshape":
            made = (shape[0], 12, 4, 1) if self.rng.random() < 0.5 else (shape[0], 4, 12)
            params = "reshape_param { shape { " + " ".join(f"dim: {n}" for n in made) + " } }"
        elif kind == "Squeeze":
            made = tuple(n for n in shape if n != 1)
        elif kind == "Split":
            tops.append(f"w{number}")
        self.text += layer(name, kind, bottom, " ".join(tops), params)
        for top in tops:
            self.make(top, made, buffer)

    def in_place(self, number: int) -> None:
        """A layer that writes over the buffer of a name that nobody has read."""
        name = self.pick(lambda one: one != "a" and self.n_read[one] == 0)
        if not name:
            return
        x = self.buffers[name]
        kind = str(self.rng.choice(["ReLU", "TanH", "Power", "Eltwise", "Dropout"]))
        bottoms, params = [name], ""
        if kind == "ReLU":
            np.maximum(x, 0.0, out=x)
        elif kind == "TanH":
            np.tanh(x, out=x)
        elif kind == "Power":
            params = "power_param { scale: -1.5 shift: 0.25 }"
            x *= np.float32(-1.5)
            x += np.float32(0.25)
        elif kind == "Eltwise":
            others = [self.pick(lambda one: self.shapes[one] == self.shapes[name] and one != name) for _ in range(2)]
            bottoms += [other for other in others if other]
            if len(bottoms) == 1:
                return
            params = self.eltwise_in_place(x, [self.read(other) for other in bottoms[1:]])
        self.text += layer(f"i{number}", kind, " ".join(bottoms), name, params)
        self.n_read[name] = 0

    def eltwise_in_place(self, top: Array, others: list[Array]) -> str:
        """eltwise_layer.cpp, statement by statement, on buffers of which some may be one."""
        bottoms = [top, *others]
        # the largest of what lies in the top alone is the least float32, which overflows in the next layer
        kinds = ["SUM", "PROD", "SUM" if all(other is top for other in others) else "MAX"]
        operation = str(self.rng.choice(kinds))
        coeffs = [float(c) for c in self.rng.choice([0.5, 2.0, -1.0], len(bottoms))] if operation == "SUM" else []
        if operation == "SUM":
            top[...] = 0.0
            for coeff, bottom in zip(coeffs, bottoms, strict=True):
                top += np.float32(coeff) * bottom
        elif operation == "PROD":
            top[...] = bottoms[0] * bottoms[1]
            for bottom in bottoms[2:]:
                top *= bottom
        else:
            top[...] = np.finfo(np.float32).min
            for bottom in bottoms[1:]:
                np.maximum(top, bottom, out=top)
        return "eltwise_param { operation: " + operation + "".join(f" coeff: {c}" for c in coeffs) + " }"

    def reading(self, number: int) -> None:
        """A layer with memory of its own."""
        bottom, name = self.pick(), f"r{number}"
        self.text += layer(name, "Power", bottom, name, "power_param { scale: 2 shift: 1 }")
        self.made[name] = self.read(bottom) * np.float32(2.0) + np.float32(1.0)
        self.make(name, self.shapes[bottom], self.made[name].copy())


def made_up(seed: int) -> tuple[Caffe, Array]:
    a = random(*SHAPE, seed=seed)
    net = Caffe(np.random.default_rng(seed))
    net.make("a", SHAPE, a.reshape(-1).copy())
    net.reading(0)
    for number in range(1, 12):
        steps = (net.sharing, net.in_place, net.reading)
        steps[int(net.rng.choice(3, p=[0.35, 0.4, 0.25]))](number)
    return net, a


@pytest.mark.parametrize("seeds", [range(0, 40), range(40, 80)], ids=str)
def test_random_nets_find_in_memory_what_caffe_finds(seeds: range) -> None:
    n_changed = 0
    for seed in seeds:
        net, a = made_up(seed)
        graph = graph_of(net.text)
        values = computed(graph, a)
        n_changed += bool(graph.shared)
        for name, made in net.made.items():
            there = values[Blob(name, 0)]
            assert np.allclose(there.reshape(-1), made, rtol=1e-5, atol=1e-5), f"seed {seed}: {name} in {net.text}"
        for blob in graph.outputs:
            assert values[blob].shape == net.shapes[blob.name], f"seed {seed}: {blob}"
            wanted = net.buffers[blob.name]
            assert np.allclose(values[blob].reshape(-1), wanted, rtol=1e-5, atol=1e-5), f"seed {seed}: {blob}"
        assert {blob.name for blob in graph.outputs} == {name for name, n in net.n_read.items() if n == 0}
    assert n_changed > len(seeds) // 3


@pytest.mark.parametrize("name", ["differs_eltwise_in_place", "differs_flatten_in_place"])
def test_cases_come_out_as_caffe_answers(golden: Path, name: str) -> None:
    folder = golden / "cases" / name
    with np.load(folder / "in.npz") as file:
        a = file["a"]
    values = computed(open_net(folder / "net.prototxt").graph, a)
    if name == "differs_eltwise_in_place":  # b, half of a, is set to 0, and a is added
        assert np.array_equal(last(values, "b"), a)
    else:
        assert np.array_equal(last(values, "p"), np.maximum(2.0 * a, 0.0))
        assert np.array_equal(last(values, "r"), np.maximum(2.0 * a, 0.0))


def test_a_view_has_the_next_number_of_its_name() -> None:
    text = layer("p", "Power", "a", "p") + layer("f", "Flatten", "p", "f") + layer("n", "ReLU", "f", "f")
    graph = graph_of(text + layer("r", "Power", "p", "r"))
    reader = next(node for node in graph if node.name == "r")
    assert reader.bottoms == (Blob("p", 1),)
    assert graph.views == {Blob("p", 1): Blob("f", 1)}
    assert graph.overwritten[Blob("p", 0)] == Blob("p", 1)
    assert {Blob("p", 0), Blob("p", 1), Blob("f", 0), Blob("f", 1)} == set(graph.shared)
    assert graph.outputs == (Blob("f", 1), Blob("r", 0))
    assert graph.layer(4).name == "r"


CONVOLUTION = "convolution_param { num_output: 3 kernel_size: 1 }"
POOL = "pooling_param { kernel_size: 1 }"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (
            layer("f", "Flatten", "c1", "f") + layer("n", "ReLU", "f", "f")
            + layer("c2", "Convolution", "c1", "c2", CONVOLUTION),
            {"c1", "c2"},
        ),
        (
            layer("q", "Pooling", "c1", "q", POOL) + layer("f", "Flatten", "q", "f") + layer("n", "ReLU", "f", "f")
            + layer("c2", "Convolution", "q", "c2", CONVOLUTION) + layer("c3", "Convolution", "c2", "c3", CONVOLUTION),
            {"c1", "c2"},
        ),
        (layer("f", "Flatten", "c1", "f") + layer("n", "ReLU", "f", "f"), set()),
    ],
    ids=["at it", "integers come there", "nobody finds it"],
)  # fmt: skip
def test_quantizer_keeps_what_touches_shared_memory_in_fp32(text: str, refused: set[str]) -> None:
    first = layer("c0", "Convolution", "a", "c0", CONVOLUTION)
    graph = graph_of(first + layer("c1", "Convolution", "c0", "c1", CONVOLUTION) + text)
    found = Quantizer(graph, Options(enable_1st_conv=True)).refused
    assert set(found) == refused
    assert set(found.values()) <= {"a layer in place writes to memory that its input or output shares"}


@pytest.mark.parametrize(
    ("text", "engines"),
    [
        (layer("p", "Power", "a", "p") + layer("e", "Eltwise", "p a", "p"), {"e": "CAFFE"}),
        (
            layer("p", "Power", "a", "p") + layer("c", "Concat", "p", "c") + layer("n", "ReLU", "c", "c")
            + layer("r", "Power", "p", "r"),
            {"c": "CAFFE"},
        ),
        (layer("p", "Power", "a", "p") + layer("c", "Concat", "p", "c") + layer("n", "ReLU", "c", "c"), {}),
    ],
    ids=["Eltwise", "Concat of one", "that nobody sees"],
)  # fmt: skip
def test_calibrate_has_intel_caffe_share_as_caffe_does(text: str, engines: dict[str, str]) -> None:
    layers = text_format.Parse(INPUT + text, caffe_pb2.NetParameter()).layer
    assert mending_engines(layers, "net") == engines


def test_an_eltwise_whose_engine_is_mkldnn_adds() -> None:
    text = layer("p", "Power", "a", "p", "power_param { scale: 0.5 }")
    a = random(*SHAPE)
    values = computed(graph_of(text + layer("e", "Eltwise", "p a", "p", 'engine: "MKLDNN"')), a)
    assert np.allclose(last(values, "p"), 1.5 * a)
