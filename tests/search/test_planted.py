"""The strategies on a trained net with layers that INT8 ruins, against the truth: all smaller sets were tried."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from distcalib.caffe import read_weights
from distcalib.calibration.trial import Trial
from distcalib.engine.net import open_net
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.options import Options
from distcalib.search import STRATEGIES
from scripts.bench.plant import choose, plant
from tests.every import every
from tests.search.test_ranked import is_minimal
from tests.search.test_strategy import Case, run

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.prototxt"


def make_case(prototxt: Path, n: int, seed: int, n_iterations: int, options: Options) -> tuple[Case, tuple[str, ...]]:
    """The net with `n` planted layers, and their names; the tolerance is halfway to missing one of them."""
    net = open_net(prototxt)
    weights = read_weights(prototxt.with_suffix(".caffemodel"))
    bare = Trial(net, weights, options, n_iterations)
    layers = choose(net.graph, bare.quantizer.space, n, seed)
    trial = Trial(net, plant(net.graph, weights, layers, seed).weights, options, n_iterations)
    cure, gap = trial.cure_and_gap(layers)
    assert cure < gap
    return Case(trial.loss, (max(cure, 0.0) + gap) / 2, trial.quantizer.space, trial.distance), layers


def smaller_sets(case: Case, n: int) -> Iterator[Candidate]:
    """All candidates with up to `n` layers in FP32."""
    for size in range(n + 1):
        for layers in itertools.combinations(case.space.order, size):
            candidate = case.space.all_int8.without(*layers)
            if len(candidate.fp32_layers) == size:
                yield candidate


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seed"), [(n, seed) for n in (1, 2, 3) for seed in range(7)])
def test_strategies_on_a_planted_net(n: int, seed: int) -> None:
    """Each meets the tolerance; `ranked` returns the planted layers, which no smaller set can replace."""
    case, layers = make_case(DIGITS, n, seed, 18, Options(weights_channel="multiple"))
    found = {name: run(name, case) for name in STRATEGIES if name != "none"}
    assert every(case.drop(done.winner) <= case.tolerance for done in found.values())
    winner = found["ranked"].winner
    assert winner.fp32_layers == layers
    assert is_minimal(case, winner)
    assert every(case.drop(candidate) > case.tolerance for candidate in smaller_sets(case, n - 1))
    assert every(len(winner.fp32_layers) <= len(done.winner.fp32_layers) for done in found.values())
    assert len(found["ranked"].candidates) <= len(found["greedy"].candidates)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("n", "seed"), [(1, 0), (3, 0), (3, 2), (5, 0)])
def test_ranked_on_planted_resnet20(golden: Path, n: int, seed: int) -> None:
    """The planted layers, which no set of fewer can replace; of five, no set of up to three."""
    options = Options(weights_channel="multiple", enable_1st_conv=True)
    case, layers = make_case(golden / "cifar10" / "resnet20.prototxt", n, seed, 10, options)
    winner = run("ranked", case).winner
    assert winner.fp32_layers == layers
    assert is_minimal(case, winner)
    assert every(case.drop(candidate) > case.tolerance for candidate in smaller_sets(case, min(n - 1, 3)))
