r"""Other converters from Caffe to ONNX beside `distcalib export`: how many nets convert, and answer as Caffe does.

    python -m scripts.bench.compare_converters \
      --converter 'caffe-onnx=VENV/bin/caffe2onnx {prototxt} {caffemodel} net {folder}' \
      --converter 'caffe2onnx=VENV2/bin/python -m caffe2onnx.convert --prototxt {prototxt} --caffemodel {caffemodel} \
        --onnx {onnx}' \
      [--net NET.prototxt=NET.caffemodel ...]

Nets: the families of tests/engine/test_architectures.py, the single layers of tests/exporters/test_onnx_operators.py
that an ordinary classifier may have, and those given. All in FP32, as deploy nets with an Input layer and blobs of
Caffe's own format. An answer is right if it differs from the engine's, which is held to recordings of Intel Caffe, by
1e-4 of the largest value at the most. A converter runs as a command of its own, since none of them can share an
environment.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, net_text, shared_params, write_weights
from distcalib.caffe.graph import Graph, build_graph
from distcalib.data import DATA_TYPES
from distcalib.engine.builder import build_model
from distcalib.engine.net import open_net
from distcalib.engine.program import LocalProgram
from distcalib.exporters import build_export
from distcalib.exporters.onnx_file import save_onnx
from distcalib.layers import FileBlobs
from distcalib.metrics import SCORE_TYPES
from distcalib.session.inspect import data_shapes
from tests.engine.test_architectures import FAMILIES, SHAPE, weights_of
from tests.exporters.test_onnx_operators import LAYERS
from tests.exporters.test_onnx_operators import SHAPE as LAYER_SHAPE

Array = NDArray[np.float32]
Blobs = Mapping[str, tuple[Array, ...]]
OWN = "distcalib"


@dataclass(frozen=True)
class Case:
    """A deploy net."""

    name: str
    layers: tuple[caffe_pb2.LayerParameter, ...]
    weights: Blobs
    shape: tuple[int, ...]

    @property
    def graph(self) -> Graph:
        """Its layers as values."""
        return build_graph(self.layers, self.name)


def cases(given: Sequence[str]) -> Iterator[Case]:
    """All nets, each with an Input layer `data`."""
    for family in FAMILIES:
        net = text_format.Parse(family(), caffe_pb2.NetParameter())
        yield deploy(family.__name__, list(net.layer), weights_of(net), SHAPE)
    for name, (kind, (param, blobs)) in LAYERS.items():
        layer = text_format.Parse(f'name: "it" type: "{kind}" bottom: "x" top: "y" {param}', caffe_pb2.LayerParameter())
        yield deploy(f"layer: {name}", [layer], {"it": blobs}, LAYER_SHAPE)
    for pair in given:
        model, weights = map(Path, pair.split("="))
        net_of_file = open_net(model)
        blobs_of_file = FileBlobs(net_of_file.weights(weights), weights.name, shared_params(net_of_file.test.layer))
        shape = next(iter(data_shapes(net_of_file, blobs_of_file, []).values()))
        yield deploy(model.stem, list(net_of_file.test.layer), net_of_file.weights(weights), shape)


def deploy(name: str, layers: list[caffe_pb2.LayerParameter], weights: Blobs, shape: tuple[int, ...]) -> Case:
    """The layers between data and scores behind an Input layer."""
    kept = [layer for layer in layers if layer.type not in DATA_TYPES | SCORE_TYPES]
    top = next((layer.top[0] for layer in layers if layer.type in DATA_TYPES), kept[0].bottom[0])
    first = caffe_pb2.LayerParameter(name=top, type="Input", top=[top])
    first.input_param.shape.add(dim=(1, *shape[1:]))
    return Case(name, (first, *kept), weights, (1, *shape[1:]))


def answers(case: Case, x: Array) -> dict[str, Array]:
    """The engine's."""
    blobs, top = FileBlobs(case.weights, case.name), case.layers[0].top[0]
    built = build_model(case.graph, blobs, {top: case.shape}, case.name)
    return {blob.name: values for blob, values in LocalProgram(built, case.name, 1).run({top: x}).items()}


def is_right(path: Path, x: Array, expected: Mapping[str, Array]) -> bool:
    """Whether the file answers as the engine does; outputs are matched by their order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = session.run(None, {port.name: x for port in session.get_inputs()})  # a constant net has none
    except Exception:  # whatever keeps it from running
        return False
    pairs = list(zip(found, expected.values(), strict=False))
    return len(found) == len(expected) and all(
        a.size == b.size and np.abs(a.reshape(b.shape) - b).max() <= 1e-4 * max(np.abs(b).max(), 1e-30)
        for a, b in pairs
    )


def convert(command: str, case: Case, folder: Path) -> Path | None:
    """The file that a converter makes, if it makes one."""
    prototxt, weights, path = folder / "net.prototxt", folder / "net.caffemodel", folder / "net.onnx"
    prototxt.write_text(net_text(caffe_pb2.NetParameter(name="net", layer=case.layers)), encoding="utf-8")
    write_weights(weights, "net", case.layers, case.weights)
    if command == OWN:
        shapes = {case.layers[0].top[0]: case.shape}
        save_onnx(build_export(case.graph, FileBlobs(case.weights, "w"), shapes, case.name), path, {}, case.name)
        return path
    places = {"prototxt": prototxt, "caffemodel": weights, "onnx": path, "folder": folder}
    words = [word.format(**places) for word in shlex.split(command)]
    try:
        subprocess.run(words, cwd=folder, capture_output=True, timeout=120, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    made = sorted(folder.rglob("*.onnx"))
    return made[0] if made else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--net", action="append", default=[], metavar="PROTOTXT=CAFFEMODEL")
    args = parser.parse_args(arguments)
    converters = {OWN: OWN, **dict(one.split("=", 1) for one in args.converter)}
    counts = {name: [0, 0] for name in converters}
    total = 0
    for case in cases(args.net):
        total += 1
        x = np.random.default_rng(0).normal(size=case.shape).astype(np.float32)
        expected = answers(case, x)
        said = []
        for name, command in converters.items():
            with TemporaryDirectory() as folder:
                made = convert(command, case, Path(folder))
                right = made is not None and is_right(made, x, expected)
            counts[name][0] += made is not None
            counts[name][1] += right
            said.append(f"{name} {'right' if right else 'no file' if made is None else 'WRONG'}")
        print(f"{case.name}: {', '.join(said)}", flush=True)
    for name, (n_made, n_right) in counts.items():
        print(f"{name}: {n_made} of {total} convert, {n_right} answer as Caffe does")


if __name__ == "__main__":
    main()
