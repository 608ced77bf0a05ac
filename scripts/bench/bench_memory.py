"""What an actor needs of memory: the peak of a process that compiles a net, loads it and runs a batch.

    python -m scripts.bench.bench_memory [FOLDER of intel_int8_zoo]

What actors/memory.py estimates is fitted to this. Each measurement is a process of its own, since a peak never falls.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from distcalib.actors.memory import actor_bytes
from distcalib.caffe import read_net, test_net
from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import build_model, layer_shapes
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.layers import RandomBlobs
from distcalib.layers.blobs import FloatArray, Role

MB = 2**20
NETS = (("mobilenet_v1_int8_acc", 224), ("inceptionv3_int8_acc", 299), ("resnet50_int8_acc", 224))


class CountedBlobs(RandomBlobs):
    """Random weights, and how many bytes each blob has."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sizes: dict[tuple[str, int], int] = {}

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """As RandomBlobs has it."""
        values = super().get(layer, index, shape, role)
        self.sizes[layer, index] = values.nbytes
        return values


def peak() -> int:
    """The most bytes that this process had in memory so far."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def measure(path: Path, size: int, batch: int, int8: bool) -> str:
    net = test_net(read_net(path))
    if not int8:
        for layer in net.layer:
            layer.ClearField("quantization_param")
    graph = build_graph(net.layer, path.stem)
    shapes = {"data": (batch, 3, size, size), "label": (batch,)}
    blobs = CountedBlobs(1)
    before = peak()
    built = build_model(graph, blobs, shapes, path.stem)
    program = Program(compile_program(built, NetSpec(b"", path.stem), 1), 1)
    images = np.random.default_rng(0).normal(size=shapes["data"]).astype(np.float32)
    program.run({"data": images})
    after = peak()
    values, _ = layer_shapes(graph, blobs, shapes, path.stem)
    sizes = [4 * int(np.prod(shape)) for shape in values.values()]
    n_weights = sum(blobs.sizes.values())
    estimate = actor_bytes(n_weights, sizes)
    kind = "INT8" if int8 else "FP32"
    return (
        f"{path.stem:24s} {kind} {batch:5d} {n_weights / MB:9.0f} {sum(sizes) / MB:9.0f} {max(sizes) / MB:9.0f} "
        f"{before / MB:7.0f} {after / MB:7.0f} {estimate / MB:9.0f}"
    )


def main() -> None:
    """Measure all nets, in FP32 and INT8, with small and large batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/intel_int8_zoo"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, size, batch, int8 = args.one
        print(measure(args.folder / f"{name}.prototxt", int(size), int(batch), int8 == "1"))
        return
    print("net                      kind batch weights MB blobs MB  largest MB before  peak  estimate")
    for name, size in NETS:
        for batch in (1, 10, 50):
            for int8 in ("0", "1"):
                words = ["--one", name, str(size), str(batch), int8]
                command = [sys.executable, "-m", "scripts.bench.bench_memory", str(args.folder), *words]
                env = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, env=env)
                print(done.stdout.rstrip() or done.stderr, flush=True)


if __name__ == "__main__":
    main()
