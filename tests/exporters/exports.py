"""What the tests of export/ share: nets that are built as the command builds them, and run without it."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import read_net, read_weights, resolve_sources, shared_params
from distcalib.data import open_source
from distcalib.engine.builder import build_model
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import Net, open_net
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import Row
from distcalib.engine.worker import data_nodes
from distcalib.exporters import Exported, build_export, save_ir
from distcalib.exporters.runtimes import open_model, optimized_ops
from distcalib.layers import FileBlobs
from distcalib.metrics import merged
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration

Array = NDArray[np.float32]
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def shapes_of(net: Net) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path)
        found.update(source.shapes)
        source.close()
    return found


def exported(model: Path, weights: Path, **options: Any) -> Exported:
    net = open_net(model)
    blobs = FileBlobs(net.weights(weights), weights.name, shared_params(net.test.layer))
    return build_export(net.graph, blobs, shapes_of(net), net.name, **options)


def placed(model: Path, folder: Path) -> Path:
    """A copy of the prototxt in `folder`, its paths absolute; those of cifar10/intel_quantized/ start one level up."""
    net = read_net(model)
    resolve_sources(net, model.parent if model.parent.name == "intel_quantized" else model)
    path = folder / model.name
    path.write_text(text_format.MessageToString(net), encoding="utf-8")
    return path


def quantized(model: Path, weights: Path, folder: Path, n: int = 2, **options: Any) -> Path:
    """The prototxt with all layers in INT8, scales from `n` iterations, in `folder`."""
    net = open_net(placed(model, folder))
    quantizer = Quantizer(net.graph, Options("multiple", enable_1st_conv=True, **options))
    read = net.weights(weights)
    blobs = FileBlobs(read, weights.name, shared_params(net.test.layer))
    built = build_model(net.graph, blobs, shapes_of(net), net.name, keep=(), taps=quantizer.observed)
    program = Program(compile_program(built, net.spec(), 1), 1)
    found = []
    for batch in batches(net.path, n):
        _, ends = program.run(batch)
        assert ends is not None
        found.append([observe_ends(*pair) for pair in ends.tolist()])
    calibration = Calibration(quantizer, merge_ranges(quantizer.observed, found), read)
    params = calibration.params(quantizer.space.all_int8)
    for layer in net.full.layer:
        if layer.name in params:
            layer.quantization_param.CopyFrom(params[layer.name])
    path = folder / f"{model.stem}_quantized.prototxt"
    path.write_text(text_format.MessageToString(net.full), encoding="utf-8")
    return path


def batches(model: Path, n: int) -> Sequence[Mapping[str, Array]]:
    """What the data layers give in the first `n` iterations."""
    net = open_net(model)
    sources = [open_source(node.layer, net.path) for node in data_nodes(net.graph)]
    made = [{top: values for source in sources for top, values in source.batch(i).items()} for i in range(n)]
    for source in sources:
        source.close()
    return made


def rows(model: Path, weights: Path, n: int) -> list[Row]:
    """What `evaluate` measures, in this process."""
    net = open_net(model)
    return InProcess(net, read_weights(weights)).rows(net.spec(), range(n))


def score(found: list[Row], blob: str) -> float:
    return merged([row.scores[blob] for row in found])


def in_plain_openvino(
    path: Path, inputs: Mapping[str, Array], folder: Path
) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Answers by output, and execution types, of `path` on batches (iterations, N, ...) in a process of its own."""
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]  # its stub takes names for options
    program = [sys.executable, str(HERE / "plain_openvino.py"), str(path), str(folder / "inputs.npz")]
    done = subprocess.run(
        [*program, str(folder / "answers.npz")], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = np.load(folder / "answers.npz")
    return {name: answers[name] for name in answers.files}, json.loads(done.stdout.splitlines()[-1])


def run_both(
    made: Exported, feeds: Mapping[str, NDArray[Any]], kernels: Counter[str] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The answers of plain OpenVINO and of ONNX Runtime to one model; `kernels` takes the operators of this one."""
    from distcalib.exporters.onnx_file import save_onnx

    with tempfile.TemporaryDirectory() as folder:
        ir, path = Path(folder) / "model.xml", Path(folder) / "model.onnx"
        save_ir(made, ir, {})
        save_onnx(made, path, {}, "net")
        found = _answers(ir, feeds), _answers(path, feeds)
        if kernels is not None:
            kernels.update(optimized_ops(path))
    return found


def _answers(path: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    runtime = open_model(path)
    return runtime.run({name: feeds[name] for name in runtime.inputs})
