"""How much of the bare engine's speed `evaluate` keeps, what INT8 gains, and what a second actor adds; ratios of one
run.

    python scripts/bench_evaluate.py --fp32 net.prototxt --int8 net_quantized.prototxt -w net.caffemodel [-i 200]

`bare` is the compiled OpenVINO model alone, in a loop over batches that are ready in memory, on one pinned core with
one thread.  `evaluate` is what a user gets: actors, LMDB, decoding, transform, metrics; its rate is the one that the
command prints.  All take turns, round by round, and the table shows medians, because a shared machine drifts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import read_weights
from distcalib.data import open_source
from distcalib.engine.program import Program
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.run.evaluation import rate
from distcalib.run.reporter import Silent
from distcalib.run.session import Net, Session, open_net

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


def evaluated(session: Session, net: Net, n_iterations: int) -> float:
    """Images/s of a pass, as `distcalib evaluate` prints it."""
    begin = time.perf_counter()
    [result] = session.measure("bench", [(net.spec(), n_iterations)])
    return rate(result, session, time.perf_counter() - begin)


def main() -> None:
    """Measure in turns, print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp32", type=Path, required=True)
    parser.add_argument("--int8", type=Path, required=True)
    parser.add_argument("-w", "--weights", type=Path, required=True)
    parser.add_argument("-i", "--iterations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    nets = {"FP32": open_net(args.fp32), "INT8": open_net(args.int8)}
    bare = {name: Bare(net, args.weights) for name, net in nets.items()}
    allowed = os.sched_getaffinity(0)
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.rounds):
        for name, loop in bare.items():
            os.sched_setaffinity(0, {min(allowed)})
            rates.setdefault((name, "bare"), []).append(loop.rate(args.iterations))
            os.sched_setaffinity(0, allowed)
        for n_actors in (1, 2):
            with Session(nets["FP32"], args.weights, Silent(), n_actors=n_actors) as session:
                for name, net in nets.items():
                    found = evaluated(session, net, args.iterations)
                    rates.setdefault((name, f"{n_actors} actors"), []).append(found)
    median = {key: statistics.median(values) for key, values in rates.items()}
    for (name, how), values in rates.items():
        spread = " ".join(f"{value:,.0f}" for value in values)
        print(f"{name:5} {how:9} {median[name, how]:8,.0f} images/s   ({spread})")
    for name in nets:
        print(f"{name}: evaluate / bare = {median[name, '1 actors'] / median[name, 'bare']:.3f}")
        print(f"{name}: two actors / one = {median[name, '2 actors'] / median[name, '1 actors']:.2f}")
    print(f"INT8 / FP32, evaluate, one actor = {median['INT8', '1 actors'] / median['FP32', '1 actors']:.2f}")


if __name__ == "__main__":
    main()
