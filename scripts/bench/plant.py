"""Plant layers that INT8 ruins into a net whose FP32 function stays what it was.

    python -m scripts.bench.plant -m MODEL -w WEIGHTS --layers 3 --seed 0 --out DIR [--strength 6] [-1st] [-fc]

writes DIR/MODEL.prototxt, DIR/WEIGHTS.caffemodel and DIR/planted.json.  A search that is given a tolerance between
the drops of the cure and of the cure without one of its layers must return exactly the planted layers; with
`-c multiple`, under which all of them are clean (scripts/bench/bench_plant.py).

Some output channels of a layer are multiplied by 2^k through its folded Scale, and the weights of the only layer that
reads them are divided by it: between the two stand layers with f(a·x) = a·f(x) only, so what follows is the same to
the last bit.  The hard layer is the reader, which has weights and input that no one scale fits: in FP32 it needs
neither, and the producer then writes FP32.  The producer in FP32 cures nothing, since the reader still rounds.

A dense reader gets few channels scaled *down*: its weights for them grow and take the resolution from all others,
while the producer loses no more than these few rows, and these with `-c single` only.  A depthwise reader has a weight
scale for each channel with `-c multiple`, so nothing but its input can be ruined, and its channels are scaled up; with
`-c single` the producer then needs FP32 too.
"""

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import (
    Weights,
    caffe_pb2,
    net_text,
    read_weights,
    resolve_sources,
    shared_params,
    write_atomically,
    write_weights,
)
from distcalib.caffe.graph import Graph, Node
from distcalib.engine.net import Net, open_net
from distcalib.errors import DistcalibError, OptionError, WeightsError
from distcalib.quantize.candidate import Space
from distcalib.quantize.channels import by_channel, divide_input, only_reader, scale_output
from distcalib.quantize.fusion import Fused, find_fused, rows_first
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer

Array = NDArray[np.float32]

# Bits of resolution that a planted layer loses. With `-c multiple`, one layer alone costs resnet20 1 to 30 points (7
# bits: 7 to 62), and examples/digits 50 to 90.  scripts/bench/bench_plant.py measures it.
STRENGTH = 6.0
# A depthwise layer whose input alone is ruined bears this much more: its weights keep all their bits.
DEPTHWISE_EXTRA = 1.5
# Of the channels that its reader weighs most; more of them hurt the producer without hurting the reader more.
FRACTION = 1 / 16
LARGEST_K = 24


@dataclass(frozen=True)
class Site:
    """A layer that can be made hard, `reader`, and the fused group whose output it alone reads."""

    producer: Fused
    reader: Node


@dataclass(frozen=True)
class Planting:
    """Weights with hard layers, in net order, and what was done: layer -> channel of its input -> k."""

    weights: Weights
    layers: tuple[str, ...]
    exponents: Mapping[str, Mapping[int, int]]
    producers: Mapping[str, str]

    def to_json(self) -> str:
        """As planted.json holds it."""
        record = {"layers": self.layers, "producers": self.producers, "exponents": self.exponents}
        return json.dumps(record, indent=1) + "\n"


def find_sites(graph: Graph) -> dict[str, Site]:
    """What can be planted, by the name of the layer that becomes hard, in net order.

    Left out is every value that something else would see scaled: a second reader, a sum, a net's output, a layer whose
    blobs another one shares.
    """
    sites = {}
    shared = {name for name, _ in shared_params([node.layer for node in graph])}
    for group in find_fused(graph).values():
        reader, _ = only_reader(graph, group) or (None, ())
        if reader is not None and not shared & {node.name for node in (*group.members, reader)}:
            sites[reader.name] = Site(group, reader)
    return {node.name: sites[node.name] for node in graph if node.name in sites}


def plantable(graph: Graph, space: Space | None = None) -> list[str]:
    """The layers that can become hard, in net order; of `space`, if given: one that never runs INT8 is not hard."""
    return [name for name in find_sites(graph) if space is None or name in space.order]


def choose(graph: Graph, space: Space, n: int, seed: int) -> tuple[str, ...]:
    """`n` random layers that are returned to FP32 without any other: the cure is these layers, neither more nor less.

    What a layer pulls along to FP32 (a sum that its output is the residual of) is chosen with it.  Raises OptionError
    if there are no such layers.
    """
    names = plantable(graph, space)
    everything = space.all_int8
    pulled = {name: frozenset(everything.without(name).fp32_layers) for name in names}
    closed = {name: found for name, found in pulled.items() if found <= set(names)}
    random = np.random.RandomState(seed)
    for _ in range(1000):
        chosen: frozenset[str] = frozenset()
        for name in random.permutation(sorted(closed)):
            if len(chosen | closed[name]) <= n:
                chosen |= closed[name]
        if len(chosen) == n > 0:
            return tuple(name for name in space.order if name in chosen)
    raise OptionError(f"--layers {n}: cannot be planted; {len(closed)} layers can be, {', '.join(closed) or 'none'}")


def plant(
    graph: Graph,
    weights: Weights,
    layers: Collection[str],
    seed: int,
    strength: float = STRENGTH,
    fraction: float = FRACTION,
) -> Planting:
    """`weights` with `layers` made hard; channels and exponents follow from `seed` and the layer's place in the net.

    Raises OptionError for layers that cannot be planted, WeightsError if `weights` lacks what they need.
    """
    sites = find_sites(graph)
    wrong = sorted(set(layers) - set(sites))
    if wrong:
        raise OptionError(f"{', '.join(wrong)}: cannot be planted; {', '.join(sites) or 'no layer'} can be")
    names = [name for name in sites if name in layers]
    used = [node for name in names for node in (*sites[name].producer.members, sites[name].reader)]
    lacking = {node.name: None for node in used if node.type != "ReLU" and node.name not in weights}
    if lacking:
        raise WeightsError(f"{', '.join(lacking)}: not in the caffemodel; give the one that belongs to the net")
    changed = dict(weights)
    exponents: dict[str, dict[int, int]] = {}
    for name in names:
        site = sites[name]
        random = np.random.RandomState([seed, site.reader.index])
        # Strengths are those of the net as it was given, so that a layer is the same with any others planted.
        exponents[name] = _exponents(site, weights, random, strength, fraction)
        factors = np.ones(_n_channels(site, weights))
        factors[list(exponents[name])] = np.exp2(list(exponents[name].values()))
        scale_output(site.producer, changed, factors)
        divide_input(site.reader, changed, factors)
    return Planting(changed, tuple(names), exponents, {name: sites[name].producer.name for name in names})


def _n_channels(site: Site, weights: Weights) -> int:
    return len(rows_first(site.producer.node.layer, weights[site.producer.name][0]))


def _exponents(
    site: Site, weights: Weights, random: np.random.RandomState, strength: float, fraction: float
) -> dict[int, int]:
    """k of each scaled channel: so large that the reader loses `strength` bits, up to one more, in its median row."""
    n_channels = _n_channels(site, weights)
    size = np.abs(by_channel(site.reader, weights[site.reader.name][0], n_channels)).max(axis=3).astype(np.float64)
    n_each = size.shape[2]
    found: dict[int, int] = {}
    if n_each == 1:
        spread = _spread(site.producer, weights)
        sizes, sign = np.log2(spread / spread.max())[None, :], 1
        strength += DEPTHWISE_EXTRA
    else:
        row_max = np.maximum(size.max(axis=2, keepdims=True), np.finfo(np.float32).tiny)
        sizes, sign = np.log2(np.maximum(np.median(size / row_max, axis=1), 2.0**-LARGEST_K)), -1
    for group, logs in enumerate(sizes):
        # The larger half needs the smaller k: so the reader loses most, and what is scaled least.
        likely = np.argsort(-logs, kind="stable")[: max(1, len(logs) // 2)]
        n = max(1, round(len(logs) * fraction))
        for channel in sorted(random.choice(likely, n, replace=False)):
            k = round(strength + random.random_sample() - logs[channel])
            found[group * len(logs) + int(channel)] = sign * min(max(k, 1), LARGEST_K)
    return found


def _spread(group: Fused, weights: Weights) -> NDArray[np.float64]:
    """How far each output channel goes, (M,): beta + 4·gamma of the Scale, by which training normalized; else |w|."""
    if group.scale is not None:
        blobs = [np.abs(np.asarray(blob, np.float64).reshape(-1)) for blob in weights[group.scale.name]]
        reach = 4 * blobs[0] + (weights[group.scale.name][1].reshape(-1) if len(blobs) > 1 else 0.0)
    else:
        rows = rows_first(group.node.layer, weights[group.name][0])
        reach = np.linalg.norm(rows.reshape(len(rows), -1).astype(np.float64), axis=1)
    return np.asarray(np.maximum(reach, np.max(reach) * 2.0**-8 + np.finfo(np.float32).tiny), np.float64)


def write_planted(net: Net, weights_name: str, planting: Planting, folder: Path) -> None:
    """Write the three files of `planting` into `folder`, which is made; the data stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    resolve_sources(full, net.path)
    layers = net.test.layer
    kept = {layer.name: planting.weights[layer.name] for layer in layers if layer.name in planting.weights}
    write_weights(folder / weights_name, net.full.name, layers, kept)
    write_atomically(folder / net.path.name, [net_text(full).encode()])
    write_atomically(folder / "planted.json", [planting.to_json().encode()])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True)
    add("-w", "--weights", type=Path, required=True)
    add("--layers", type=int, default=1, metavar="N", help="how many layers become hard (default: 1)")
    add("--seed", type=int, default=0, help="which layers, which channels, how much (default: 0)")
    add("--strength", type=float, default=STRENGTH, help=f"bits that each loses (default: {STRENGTH:g})")
    add("-1st", "--enable_1st_conv", action="store_true", help="the search will quantize the first convolution too")
    add("-fc", "--fc_int8", action="store_true", help="the search will quantize InnerProduct too")
    add("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(arguments)
    try:
        net = open_net(args.model)
        space = Quantizer(net.graph, Options(enable_1st_conv=args.enable_1st_conv, fc_int8=args.fc_int8)).space
        layers = choose(net.graph, space, args.layers, args.seed)
        planting = plant(net.graph, read_weights(args.weights), layers, args.seed, args.strength)
        if args.out.resolve() in (args.model.resolve().parent, args.weights.resolve().parent):
            raise OptionError(f"--out {args.out}: holds the net that is read; give another folder")
        write_planted(net, args.weights.name, planting, args.out)
    except DistcalibError as error:
        raise SystemExit(f"plant: {error}") from None
    print(f"{args.out}: {', '.join(planting.layers)}")


if __name__ == "__main__":
    main()
