"""What a cluster would do with the nets of real size and 5,000 images: the simulation of simulate.py, with
times that scripts/bench/bench_real_size.py measured.

    python -m scripts.simulate.simulate_real_size [--net ssd300-vgg16]

Three layers are planted as hard, at a fifth, a half and four fifths of the net; docs/scaling.md has what is assumed.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import layer_shapes
from distcalib.engine.work import multiply_adds
from distcalib.layers import ZeroBlobs
from scripts.bench.make_real_size import assembled, data_shapes
from scripts.bench.real_nets import NETS
from scripts.simulate.simulate import CONFIDENCE, simulate
from scripts.simulate.simulated_net import SimulatedNet, Times

N_IMAGES, BATCH = 5_000, 4
ACTORS = (1, 16, 256, 1024)
HARD = (0.02, 0.025, 0.02)
#: Images/s of a core, FP32 in a first pass and INT8 in later ones, seconds to compile and to import: docs/real-size.md.
MEASURED: Mapping[str, Times] = {
    "ssd300-vgg16": Times(1.74, 6.84, 0.4, 0.11),
    "ssd512-vgg16": Times(0.58, 2.31, 0.6, 0.10),
    "ssd300-mobilenet": Times(35.98, 122.95, 0.3, 0.06),
    "yolo-v2-416": Times(3.59, 13.05, 1.5, 0.13),
}


def work_of(name: str) -> dict[str, int]:
    """Multiply-adds of one image in each convolution of a net of NETS, in net order."""
    net = NETS[name]()
    graph = build_graph(assembled(net, 1).layer, net.name)
    shapes, problems = layer_shapes(graph, ZeroBlobs(), data_shapes(net, 1), net.name)
    assert not problems, "the nets are convertible"
    return {node.name: multiply_adds(node, shapes) for node in graph if node.type == "Convolution"}


def simulated(name: str) -> SimulatedNet:
    """The net with its measured times and three hard layers."""
    work = work_of(name)
    layers = list(work)
    places = (len(layers) // 5, len(layers) // 2, len(layers) * 4 // 5)
    hard = {layers[place]: cost for place, cost in zip(places, HARD, strict=True)}
    return SimulatedNet(name, work, MEASURED[name], N_IMAGES, BATCH, hard)


def rows(name: str) -> Iterator[str]:
    """A row for each number of actors; that the answer is the same on all is checked."""
    net = simulated(name)
    for confidence in (None, CONFIDENCE):
        runs = {n: simulate(net, n, confidence) for n in ACTORS}
        winners = {run.winner for run in runs.values()}
        assert winners == {net.start.without(*net.hard)}, f"{name}: found {winners}"
        cells = [f"{run.seconds:,.0f}" for run in runs.values()]
        many = max(ACTORS)
        reached = runs[1].busy_seconds / many / runs[many].seconds
        how = "exact" if confidence is None else f"`--confidence {confidence}`"
        yield f"| {name} | {how} | {' | '.join(cells)} | {reached:.0%} | {runs[many].cost_passes:.2f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=MEASURED, action="append", help="default: all")
    args = parser.parse_args(arguments)
    actors = " | ".join(f"{n:,} core{'s' * (n > 1)}, s" for n in ACTORS)
    print(f"| net | search | {actors} | of ideal | cost_passes |\n|{' --- |' * (len(ACTORS) + 4)}")
    for name in args.net or MEASURED:
        print("\n".join(rows(name)), flush=True)


if __name__ == "__main__":
    main()
