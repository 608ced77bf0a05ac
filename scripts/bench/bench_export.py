"""Images/s of one core, in CPU time: the engine's bare loop, the IR in OpenVINO, the ONNX file in ONNX Runtime.

    python -m scripts.bench.bench_export NET.prototxt NET.caffemodel [--batch N] [--rounds N]

The net as it is, and without its quantization_params where it has some.  All run the same values on one thread, in
turns of some 50 ms and in an order drawn for each round, so that what else the machine does meets all alike; printed
are medians of the rounds, and of the ratios round by round.
Files have the outputs of the engine's loop: what detections are made from, not these, which `evaluate` makes on the
host.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from distcalib.caffe import caffe_pb2, shared_params
from distcalib.engine.builder import build_model
from distcalib.engine.net import Net, open_net
from distcalib.engine.program import LocalProgram
from distcalib.exporters import build_export, save_ir
from distcalib.exporters.onnx_file import save_onnx
from distcalib.exporters.runtimes import open_model
from distcalib.layers import FileBlobs
from distcalib.session.inspect import data_shapes

Loop = Callable[[], object]
SECONDS = 0.05  # of a turn: a busy machine changes its mind in tenths of a second


def loops(net: Net, weights: Path, batch: int | None, folder: Path) -> dict[str, tuple[Loop, int]]:
    """What to run, and how many images it takes at once."""
    blobs = FileBlobs(net.weights(weights), weights.name, shared_params(net.test.layer))
    shapes = data_shapes(net, blobs, [])
    given = next(iter(shapes.values()))[0]
    size = batch or given
    sized = {top: (size, *shape[1:]) if shape[0] == given else shape for top, shape in shapes.items()}
    built = build_model(net.graph, blobs, sized, net.name)
    outputs = [blob.name for blob in built.outputs]
    engine = LocalProgram(built, net.name, 1)
    rng = np.random.default_rng(0)
    feeds = {top: rng.random(shape, np.float32) for top, shape in sized.items() if len(shape) == 4 and shape[1] > 1}
    feeds = feeds or {top: rng.random(shape, np.float32) for top, shape in sized.items() if len(shape) == 4}
    found: dict[str, tuple[Loop, int]] = {"engine": (lambda: engine.run(feeds), size)}
    for name, fixed in (("IR, open batch", None), ("IR", size), ("ONNX", size)):
        made = build_export(net.graph, blobs, sized, net.name, outputs=outputs, batch=fixed)
        path = folder / name / ("model.onnx" if name == "ONNX" else "model.xml")
        if name == "ONNX":
            save_onnx(made, path, {}, net.name)
        else:
            save_ir(made, path, {})
        runtime = open_model(path)
        own = {top: feeds[top] for top in runtime.inputs}
        found[name] = (lambda runtime=runtime, own=own: runtime.run(own), size)  # type: ignore[misc]
    return found


def fp32(net: Net) -> Net:
    """The net without its quantization_params."""
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    for layer in full.layer:
        layer.ClearField("quantization_param")
    return net.remade(full)


def rate(loop: Loop, size: int) -> float:
    """Images/s of CPU time: what else the machine does takes none of it, though it takes of the caches.  The first
    call of a turn, which finds the caches full of another's values, does not count.
    """
    loop()
    begin, count = time.process_time(), 0
    while (spent := time.process_time() - begin) < SECONDS:
        loop()
        count += 1
    return count * size / spent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--batch", type=int, help="images at once (default: the prototxt's)")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args(arguments)
    net = open_net(args.model)
    is_int8 = any(layer.HasField("quantization_param") for layer in net.test.layer)
    with TemporaryDirectory() as folder:
        whole = loops(net, args.weights, args.batch, Path(folder, "net"))
        if is_int8:
            plain = loops(fp32(net), args.weights, args.batch, Path(folder, "fp32"))
            whole |= {f"{name}, FP32": loop for name, loop in plain.items()}
        for loop, _ in whole.values():
            loop()
        found: dict[str, list[float]] = {name: [] for name in whole}
        order = np.random.default_rng(0)
        for _ in range(args.rounds):
            for name in order.permutation(list(whole)):
                found[name].append(rate(*whole[name]))
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, found["engine"], strict=True)]
        print(f"{name}: {median(rates):,.1f} images/s, {median(ratios):.3f} of the engine")


if __name__ == "__main__":
    main()
