"""How much of the bare engine's speed `evaluate` keeps, what INT8 gains, and what a second actor adds; ratios of one
run.

    python scripts/bench/bench_evaluate.py [-m net.prototxt -w net.caffemodel] [-i 200] [--rounds 5]

Without a net, resnet20 of the recorded data is taken (DISTCALIB_GOLDEN, or ../shared), else examples/digits.  It is
quantized twice: as calibrate does by itself, and with -1st.

`bare` is the compiled OpenVINO model alone, in a loop over batches that are ready in memory, on one pinned core with
one thread.  `evaluate` is what a user gets: actors, LMDB, decoding, transform, metrics; its rate is the one that the
command prints.  All take turns, round by round, and the table shows medians, because a shared machine drifts.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job
from distcalib.caffe import read_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.program import Program
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.session.evaluate import rate
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Silent
from distcalib.session.session import Session

# Enough different batches that they do not all stay in the cache, as in a real pass.
N_READY = 16


class Bare:
    """The compiled model alone, on ready batches."""

    def __init__(self, net: Net, weights: Path) -> None:
        setting = Setting(net.path, read_weights(weights), weights.name, {})
        self._program = Program(NetWorker(setting, 1).compile(net.spec()), 1)
        [node] = data_nodes(net.graph)
        source = open_source(node.layer, net.path)
        self._batch = source.batch_size
        self._ready: list[Mapping[str, NDArray[np.float32]]] = [source.batch(i) for i in range(N_READY)]

    def rate(self, n_iterations: int) -> float:
        """Images/s over so many batches."""
        request, inputs = self._program._request, self._program.header.inputs
        ready = [{i: batch[name] for i, name in enumerate(inputs)} for batch in self._ready]
        begin = time.perf_counter()
        for iteration in range(n_iterations):
            request.infer(ready[iteration % N_READY], share_inputs=True, share_outputs=True)
        return n_iterations * self._batch / (time.perf_counter() - begin)


def evaluated(session: Session, net: Net, iterations: range) -> float:
    """Images/s of a pass over these iterations, as `distcalib evaluate` prints it.

    Of those that a session has met, images are kept.
    """
    begin = time.perf_counter()
    [result] = session.run("bench", [Job("bench", net.spec(), len(iterations), "bench", order=tuple(iterations))])
    return rate(result, session.n_actors, session.batch, time.perf_counter() - begin)


def main() -> None:
    """Quantize the net, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("-w", "--weights", type=Path)
    parser.add_argument("-i", "--iterations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = args.model or default_model()
    weights = args.weights or model.with_suffix(".caffemodel")
    with tempfile.TemporaryDirectory() as folder:
        nets = {"FP32": open_net(model)}
        for name, first in (("INT8", False), ("INT8 -1st", True)):
            options = CalibrationOptions(quantize_model=True, enable_1st_conv=first, out=Path(folder, name))
            nets[name] = open_net(Path(calibrate(model, weights, options).output))
        compare(nets, weights, args.iterations, args.rounds)


def default_model() -> Path:
    """resnet20 of the recorded data where that is, else the shipped example."""
    root = Path(__file__).resolve().parents[2]
    recorded = Path(os.environ.get("DISTCALIB_GOLDEN") or root.parent / "shared") / "cifar10" / "resnet20.prototxt"
    return recorded if recorded.exists() else root / "examples" / "digits" / "digits.prototxt"


def compare(nets: Mapping[str, Net], weights: Path, n_iterations: int, n_rounds: int) -> None:
    """Measure in turns, print medians and their ratios."""
    bare = {name: Bare(net, weights) for name, net in nets.items()}
    allowed = os.sched_getaffinity(0)
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(n_rounds):
        # The bare loop runs beside an idle actor on the same core, right before the actor does the same work.
        for n_actors in (1, 2):
            with Session(nets["FP32"], weights, Silent(), SessionOptions(n_actors=n_actors)) as session:
                for turn, (name, net) in enumerate(nets.items()):
                    if n_actors == 1:
                        os.sched_setaffinity(0, {min(allowed)})
                        rates.setdefault((name, "bare"), []).append(bare[name].rate(n_iterations))
                        os.sched_setaffinity(0, allowed)
                    first = turn * n_iterations  # fresh ones: decoding is a part of what a user gets
                    found = evaluated(session, net, range(first, first + n_iterations))
                    rates.setdefault((name, f"{n_actors} actors"), []).append(found)
    for (name, how), values in rates.items():
        spread = " ".join(f"{value:,.0f}" for value in values)
        print(f"{name:9} {how:9} {statistics.median(values):8,.0f} images/s   ({spread})")

    def ratio(what: str, of: tuple[str, str], over: tuple[str, str]) -> None:
        """Median of the rounds' ratios: each compares neighbours in time."""
        found = [a / b for a, b in zip(rates[of], rates[over], strict=True)]
        print(f"{what} = {statistics.median(found):.2f}   ({' '.join(f'{value:.2f}' for value in found)})")

    for name in nets:
        ratio(f"{name}: evaluate / bare", (name, "1 actors"), (name, "bare"))
        ratio(f"{name}: two actors / one", (name, "2 actors"), (name, "1 actors"))
    for name in list(nets)[1:]:
        ratio(f"{name} / FP32, bare", (name, "bare"), ("FP32", "bare"))
        ratio(f"{name} / FP32, evaluate, one actor", (name, "1 actors"), ("FP32", "1 actors"))


if __name__ == "__main__":
    main()
