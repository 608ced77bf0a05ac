"""INT8 emulated in FP32 kernels against native INT8 kernels: how many stored integers are the same, and the top-1.

    python -m scripts.bench.compare_ways --recorded ../shared
    python -m scripts.bench.compare_ways --recorded ../shared --target skylake

Files: Intel's calibrator's eight of resnet20 for CIFAR-10 (10,000 images), the all-INT8 files of examples/ as distcalib
writes them, and the nets of golden/ together. Integers of all stored blobs on the first iterations, scores on all. The
native way needs the CPU's kernels: VNNI for cascadelake, and for skylake ONEDNN_MAX_CPU_ISA=AVX512_CORE or AVX2 in the
environment; there both ways differ where pairs of products with u8 input saturate, which is what is to be seen.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distcalib import CalibrationOptions, calibrate
from distcalib.caffe import read_weights
from distcalib.data import load_arrays
from distcalib.engine.arithmetic import Arithmetic
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Outputs, Row
from distcalib.engine.worker import data_nodes
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import params_of, storage
from distcalib.session.evaluate import scores

ROOT = Path(__file__).resolve().parents[2]
N_COMPARED = 5


@dataclass(frozen=True)
class File:
    """A quantized prototxt with its weights, its iterations and its score, if it has one."""

    name: str
    net: Net
    weights: Path
    n_iterations: int
    score: str | None
    data: Path | None = None


@dataclass(frozen=True)
class Found:
    """Both ways on one file: stored integers that are the same, of how many; the scores."""

    n_same: int
    n_values: int
    native: float | None
    emulated: float | None


def recorded_files(folder: Path) -> Iterator[File]:
    """The nets of golden/, fed with what was recorded, and those of cifar10/."""
    for path in sorted((folder / "golden").glob("*.prototxt")):
        yield File("golden", open_net(path), path.with_suffix(".caffemodel"), 1, None, path.with_suffix(".npz"))
    cifar10 = folder / "cifar10"
    for path in sorted((cifar10 / "intel_quantized").glob("*.prototxt")):
        net = replace(open_net(path), path=cifar10 / path.name)  # its data lie there
        yield File(path.stem, net, cifar10 / "resnet20.caffemodel", 100, "accuracy-top1")


def example_files(out: Path) -> Iterator[File]:
    """The examples with all that can be in INT8, as `calibrate -q` writes them."""
    for name, n_iterations, score in (("digits", 18, "accuracy-top1"), ("digit_scenes", 25, "detection_eval")):
        for channel in ("single", "multiple"):
            model = ROOT / "examples" / name / f"{name}.prototxt"
            options = CalibrationOptions(
                iterations=n_iterations, quantize_model=True, weights_channel=channel, enable_1st_conv=True, out=out
            )
            report = calibrate(model, model.with_suffix(".caffemodel"), options)
            net = open_net(Path(report.output))
            yield File(f"{name}, {channel}, -1st", net, model.with_suffix(".caffemodel"), n_iterations, score)


def compare(file: File, halved: bool) -> Found:
    """Run it both ways."""
    graph = file.net.graph
    grids = storage(graph, find_fused(graph), params_of(graph))
    native, emulated = (_run(file, Arithmetic(way, halved)) for way in (False, True))
    n_same = n_values = 0
    for a, b in zip(native[0], emulated[0], strict=True):
        for blob, grid in grids.items():
            same = np.rint(a.values[blob] * grid.scale) == np.rint(b.values[blob] * grid.scale)
            n_same += int(same.sum())
            n_values += same.size
    if file.score is None:
        return Found(n_same, n_values, None, None)
    return Found(n_same, n_values, native[1][file.score], emulated[1][file.score])


def _run(file: File, arithmetic: Arithmetic) -> tuple[list[Row], Mapping[str, float]]:
    """Rows with all stored values of the first iterations, and the scores of all."""
    graph = file.net.graph
    nodes = data_nodes(graph)
    arrays = None if file.data is None else load_arrays(file.data, [node.layer for node in nodes], file.net.path)
    here = InProcess(file.net, read_weights(file.weights), arithmetic=arithmetic, arrays=arrays)
    stored = tuple(storage(graph, find_fused(graph), params_of(graph)))
    rows = here.rows(file.net.spec(outputs=Outputs(stored)), range(min(N_COMPARED, file.n_iterations)))
    if file.score is None:
        return rows, {}
    return rows, scores(here.rows(file.net.spec(), range(file.n_iterations)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, help="folder that holds golden/ and cifar10/")
    parser.add_argument("--target", choices=("skylake", "cascadelake"), default="cascadelake")
    args = parser.parse_args()
    totals: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as out:
        files = [*(recorded_files(args.recorded) if args.recorded else ()), *example_files(Path(out))]
        for file in files:
            found = compare(file, args.target == "skylake")
            before = totals.get(file.name, Found(0, 0, None, None))
            totals[file.name] = Found(
                before.n_same + found.n_same, before.n_values + found.n_values, found.native, found.emulated
            )
    print(f"{'file':44} {'integers':>12} {'the same':>10} {'native':>9} {'emulated':>9}")
    for name, found in totals.items():
        score = ("", "") if found.native is None else (f"{found.native:.6f}", f"{found.emulated:.6f}")
        share_same = found.n_same / found.n_values
        print(f"{name:44} {found.n_values:12,} {share_same:10.4%} {score[0]:>9} {score[1]:>9}")


if __name__ == "__main__":
    main()
