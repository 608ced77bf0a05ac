"""The strategies on a trained net with layers that INT8 ruins, against the truth: all smaller sets were tried."""

import itertools
from pathlib import Path

import pytest

from distcalib.caffe import read_weights
from distcalib.quantize.scales import Options
from distcalib.run.net import open_net
from distcalib.search import STRATEGIES
from scripts.plant import choose, plant
from scripts.trial import Trial
from tests.search.test_ranked import is_minimal
from tests.search.test_strategy import Case, run

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.prototxt"
ITERATIONS = 18
TOLERANCE = 0.01
PLANTINGS = [(n, seed) for n in (1, 2, 3) for seed in range(7)]


def make_case(n: int, seed: int) -> tuple[Case, tuple[str, ...]]:
    """The example net with `n` planted layers, and their names."""
    net = open_net(DIGITS)
    weights = read_weights(DIGITS.with_suffix(".caffemodel"))
    options = Options(weights_channel="multiple")
    bare = Trial(net, weights, options, ITERATIONS)
    layers = choose(net.graph, bare.quantizer.space, n, seed)
    trial = Trial(net, plant(net.graph, weights, layers, seed).weights, options, ITERATIONS)
    return Case(trial.loss, TOLERANCE, trial.quantizer.space, trial.distance), layers


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seed"), PLANTINGS)
def test_strategies_on_a_planted_net(n: int, seed: int) -> None:
    """Each meets the tolerance; `ranked` returns the planted layers, which no smaller set can replace."""
    case, layers = make_case(n, seed)
    found = {name: run(name, case) for name in STRATEGIES if name != "none"}
    assert all(case.drop(done.winner) <= TOLERANCE for done in found.values())
    winner = found["ranked"].winner
    assert winner.fp32_layers == layers
    assert is_minimal(case, winner)
    for size in range(n):
        for smaller in itertools.combinations(case.space.order, size):
            candidate = case.space.all_int8.without(*smaller)
            assert len(candidate.fp32_layers) > size or case.drop(candidate) > TOLERANCE
    assert all(len(winner.fp32_layers) <= len(done.winner.fp32_layers) for done in found.values())
    assert len(found["ranked"].candidates) <= len(found["greedy"].candidates)
