"""How soon candidates that lose too much are refused, for scores whose images stay in the order of the data.

    python -m scripts.bench.compare_orders NET WEIGHTS --score BLOB --iterations N [--layers 3]

All INT8, and with one layer in FP32 each, against tolerances of nothing, half and four fifths of what the candidate
loses. Printed is the share of the iterations after which it is certain that it loses too much: in the order of the
data, and with the iterations first that FP32 is worst at. With a batch size of 1 in the prototxt an iteration is an
image. What came out is in docs/decisions/024.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distcalib.calibration.candidate_net import deliver
from distcalib.calibration.trial import Trial
from distcalib.engine.net import Net, open_net
from distcalib.metrics import Decider, PartialScore, lower_is_better, merged
from distcalib.quantize.options import Options

PARTS = (0.0, 0.5, 0.8)


def share_until_refused(order: Sequence[int], rows: Sequence[PartialScore], decider: Decider) -> float:
    """The part of the iterations, taken in `order`, after which the decider says that too much is lost."""
    known: dict[int, PartialScore] = {}
    for n_known, iteration in enumerate(order, 1):
        known[iteration] = rows[iteration]
        if decider.decide(known) is False:
            return n_known / len(rows)
    return 1.0


def shares(
    fp32: Sequence[PartialScore], rows: Sequence[PartialScore], is_loss: bool
) -> Iterable[tuple[float, float, float]]:
    """By tolerance, the shares in the order of the data and with FP32's worst first; none if nothing is lost."""
    upper, natural = None if is_loss else 1, range(len(fp32))
    drop = Decider(fp32, 0.0, upper=upper).drop(rows)
    worst = sorted(natural, key=lambda i: merged([fp32[i]]), reverse=is_loss)
    for tolerance in (part * drop for part in PARTS if drop > 0.0):
        decider = Decider(fp32, tolerance, upper=upper)
        yield tolerance, share_until_refused(natural, rows, decider), share_until_refused(worst, rows, decider)


def candidates(net: Net, trial: Trial, metric: str, n: int, n_layers: int) -> Mapping[str, Sequence[PartialScore]]:
    """What each says of each iteration."""
    chosen = {"all INT8": trial.all_int8}
    chosen |= {f"without {name}": trial.all_int8.without(name) for name in trial.all_int8.movable[:n_layers]}
    specs = {name: deliver(net, trial.calibration, candidate).spec() for name, candidate in chosen.items()}
    return {name: [row.scores[metric] for row in trial.here.rows(spec, range(n))] for name, spec in specs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--score", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--layers", type=int, default=3)
    args = parser.parse_args()
    net = open_net(args.net)
    trial = Trial(net, net.weights(args.weights), Options(), args.iterations, metric=args.score)
    fp32 = [row.scores[args.score] for row in trial.here.rows(net.spec(), range(args.iterations))]
    is_loss = lower_is_better(net.test, args.score)
    print("| candidate | tolerance | order of the data | FP32's worst first |\n| --- | ---: | ---: | ---: |")
    for name, rows in candidates(net, trial, args.score, args.iterations, args.layers).items():
        for tolerance, natural, worst in shares(fp32, rows, is_loss):
            print(f"| {name} | {tolerance:.4f} | {natural:.0%} | {worst:.0%} |")


if __name__ == "__main__":
    main()
