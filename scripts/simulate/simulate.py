"""How a whole search scales to 4,096 actors, simulated: an engine that only says how long it would take.

    python -m scripts.simulate.simulate [--net resnet50] [--margins] [--out docs/img/scaling.svg]

Strategy, driver, dispatcher and fleet are the real ones, under a clock that jumps to the next event; so the figures do
not depend on the machine. What comes out is docs/scaling.md, where the assumptions stand, too.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distcalib.actors import Enough, Job, JobResult
from distcalib.calibration.budget import Budget
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal, ranked_iterations
from distcalib.calibration.meter import Meter
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.search_driver import Searching, Switches
from distcalib.engine.spec import NetSpec, Row
from distcalib.quantize.candidate import Candidate
from distcalib.search import Measurement, Verdict
from distcalib.session.backend import rows
from distcalib.session.progress import Reporter, Silent
from scripts.simulate.scaling_plot import plot
from scripts.simulate.simulated_cluster import SimulatedPool
from scripts.simulate.simulated_net import METRIC, SimulatedNet, Times, resnet50_work, ssd_vgg16_work

TASK_SECONDS = 0.001  # what a task costs the driver: scripts/bench/bench_dispatch.py measures 0.75 ms
TOLERANCE = 0.01
CONFIDENCE = 0.999
ACTORS = (1, 4, 16, 64, 256, 1024, 4096)
ABLATED = (1, 16, 1024)
FACTORS = (0.75, 1.0, 1.5, 2.0)
SEEDS = (1, 2, 3)
SWITCHES = {
    "all of it": Switches(),
    "no shared parts": Switches(share_parts=False),
    "no early stop": Switches(stop_early=False),
    "no look ahead": Switches(look_ahead=False),
    "natural order": Switches(hard_first=False),
}


class SimulatedSession:
    """What Session is to a Meter: the Actors of a net that does not exist."""

    def __init__(self, net: SimulatedNet, n_actors: int, task_seconds: float = TASK_SECONDS) -> None:
        self.pool = SimulatedPool(net, n_actors, task_seconds)
        self.n_actors = n_actors
        self.batch = net.batch
        self.reporter: Reporter = Silent()
        self._work = net.work

    def scoring(self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int], phase: str) -> Job:
        """As Session.scoring of the embedded engine; so the others."""
        return Job(key, spec, len(wanted), phase, order=tuple(wanted), may_fail=True)

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """Rows are of iterations as they are."""
        return {i: row for i, row in found.items() if isinstance(row, Row)}

    def run(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """By the simulated clock."""
        return self.pool.run(jobs, enough)

    def recorded(self, job: Job) -> None:
        """There is no journal."""

    def settle(self) -> float:
        """The actor-seconds of what was left."""
        return self.pool.settle()

    def work(self, layers: Sequence[str]) -> Mapping[str, int]:
        """The multiply-adds of one image in each of `layers`."""
        return {name: self._work[name] for name in layers}


@dataclass(frozen=True)
class Simulated:
    """A search as it went: seconds of the clock and of all actors together."""

    winner: Candidate
    answered: Mapping[Candidate, Measurement | Verdict]
    distances: Mapping[str, float]
    minimal: bool
    seconds: float
    busy_seconds: float
    cost_passes: float

    def path(self, tolerance: float = TOLERANCE) -> list[tuple[Candidate, bool]]:
        """The candidates in the order of the search, and whether each meets the tolerance."""
        return [
            (candidate, said.meets if isinstance(said, Verdict) else said.drop <= tolerance)
            for candidate, said in self.answered.items()
        ]


def simulate(
    net: SimulatedNet,
    n_actors: int,
    confidence: float | None = None,
    switches: Switches | None = None,
    tolerance: float = TOLERANCE,
    task_seconds: float = TASK_SECONDS,
    strategy: str = "ranked",
) -> Simulated:
    """The FP32 pass and the search; the start of the actors and the ranges of the scales are not in it."""
    session = SimulatedSession(net, n_actors, task_seconds)
    options = CalibrationOptions(
        iterations=net.n_iterations, accuracy_loss=tolerance, confidence=confidence, strategy=strategy
    )
    searching = begun(net, session, options, switches)
    found, meter, cluster = searching.run(), searching.meter, session.pool.cluster
    assert meter.passes is not None, "two passes were measured"
    return Simulated(
        found.winner,
        found.answered,
        found.distances,
        found.minimal,
        cluster.clock,
        cluster.busy_seconds,
        meter.passes,
    )


def begun(
    net: SimulatedNet, session: SimulatedSession, options: CalibrationOptions, switches: Switches | None = None
) -> Searching:
    """A search behind its FP32 pass, which has been run."""
    n = net.n_iterations
    meter, goal = Meter(session), Goal(METRIC, False, options, ranked_iterations(n, net.batch))
    [answers] = meter.run("FP32", [Job("fp32", net.fp32(goal.ranked), n, "FP32")])
    fp32 = Fp32Pass.of(rows(answers), answers.run_seconds, goal, net.batch, net.name)
    meter.count_fp32(fp32.seconds)
    return Searching(meter, net, goal, fp32, switches or Switches(), budget=Budget(options))


def resnet50() -> SimulatedNet:
    """Five hard layers, none of which pulls another along. One core here runs it as fast as this (FP32, INT8)."""
    work, needs = resnet50_work()
    hard = {
        "res2b_branch2b": 0.015,
        "res3a_branch2a": 0.02,
        "res3d_branch2b": 0.0175,
        "res4c_branch2a": 0.025,
        "res5b_branch2b": 0.02,
    }
    return SimulatedNet("ResNet-50", work, Times(22.0, 86.0, 1.0, 0.25), 50_000, 50, hard, needs)


def ssd_vgg16() -> SimulatedNet:
    """Three hard layers; all times are assumed, and its score is counted as an accuracy is."""
    hard = {"conv1_2": 0.02, "conv4_3": 0.025, "conv6_2": 0.02}
    return SimulatedNet("SSD300-VGG16", ssd_vgg16_work(), Times(1.4, 5.0, 2.5, 0.6), 5_000, 8, hard)


NETS = {"resnet50": resnet50, "ssd-vgg16": ssd_vgg16}


def tables(net: SimulatedNet) -> tuple[list[str], dict[str, list[float]]]:
    """The tables of a net as Markdown, and its curves: wall seconds by ACTORS."""
    runs = {c: [simulate(net, n, c) for n in ACTORS] for c in (None, CONFIDENCE)}
    expected = runs[None][0]
    for found in [*runs[None], *runs[CONFIDENCE]]:
        assert found.winner == expected.winner, f"{found.winner.fp32_layers} on other actors"
        assert found.minimal
    lines = [f"### {net.name}", "", f"FP32 layers found: {', '.join(expected.winner.fp32_layers)}.", ""]
    lines += [
        "| actors | exact, s | ideal, s | reached | cost_passes | confidence, s | ideal, s | reached | cost_passes |",
        "|" + " --- |" * 9,
    ]
    curves: dict[str, list[float]] = {"exact": [], "ideal": [], "confidence 0.999": []}
    for n, exact, sure in zip(ACTORS, runs[None], runs[CONFIDENCE], strict=True):
        cells = [f"{n:,}"]
        for run, alone in ((exact, runs[None][0]), (sure, runs[CONFIDENCE][0])):
            ideal = alone.busy_seconds / n
            cells += [_seconds(run.seconds), _seconds(ideal), f"{ideal / run.seconds:.0%}", f"{run.cost_passes:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        curves["exact"].append(exact.seconds)
        curves["ideal"].append(expected.busy_seconds / n)
        curves["confidence 0.999"].append(sure.seconds)
    return lines, curves


def ablation(net: SimulatedNet) -> list[str]:
    """A table: what each part of the search is worth; that the answers are the same in every row is checked."""
    lines = ["| | " + " | ".join(f"{n:,} actor{'s' * (n > 1)}, s | cost_passes" for n in ABLATED) + " |"]
    lines.append("|" + " --- |" * (1 + 2 * len(ABLATED)))
    expected: list[tuple[Candidate, bool]] = []
    for confidence, name in [(c, name) for c in (None, CONFIDENCE) for name in SWITCHES]:
        if name == "all of it":
            expected = []
        cells = [f"{'exact' if confidence is None else 'confidence'}, {name}"]
        for n in ABLATED:
            run = simulate(net, n, confidence, SWITCHES[name])
            expected = expected or run.path()
            assert run.path() == expected, f"{cells[0]}, {n} actors: another path"
            cells += [_seconds(run.seconds), f"{run.cost_passes:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def strategies(net: SimulatedNet) -> list[str]:
    """A table: what each strategy costs on one actor, and how many times that of `ranked`."""
    lines = ["| strategy | FP32 layers | candidates | cost_passes | times `ranked` |", "|" + " --- |" * 5]
    runs = {name: simulate(net, 1, strategy=name) for name in ("ranked", "topological", "greedy")}
    for name, run in runs.items():
        cells = [f"`{name}`", str(len(run.winner.fp32_layers)), str(len(run.answered)), f"{run.cost_passes:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {run.cost_passes / runs['ranked'].cost_passes:.1f} |")
    return lines


def margins(net: SimulatedNet) -> list[str]:
    """A table: cost_passes on one actor by how far the hard layers are from the tolerance, on other random images."""
    lines = ["| hard layers cost, times | exact | confidence | FP32 layers |", "|" + " --- |" * 4]
    for factor in FACTORS:
        hard = {layer: factor * cost for layer, cost in net.hard.items()}
        nets = [replace(net, hard=hard, seed=seed) for seed in SEEDS]
        exact, sure = ([simulate(one, 1, c) for one in nets] for c in (None, CONFIDENCE))
        cells = [" ".join(f"{run.cost_passes:.2f}" for run in runs) for runs in (exact, sure)]
        found = " ".join(str(len(run.winner.fp32_layers)) for run in exact)
        lines.append(f"| {factor:g} | {' | '.join(cells)} | {found} |")
    return lines


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, action="append", help="default: both")
    parser.add_argument("--margins", action="store_true", help="one more table: how much the hard layers cost")
    parser.add_argument("--out", type=Path, help="the plot, an SVG")
    args = parser.parse_args()
    begun, curves = time.perf_counter(), {}
    for name in args.net or NETS:
        net = NETS[name]()
        lines, curves[net.name] = tables(net)
        lines += ["", *strategies(net), "", *ablation(net), *(["", *margins(net)] if args.margins else [])]
        print("\n".join([*lines, ""]), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(plot(ACTORS, curves))
    print(f"<!-- simulated in {time.perf_counter() - begun:.0f} s -->")


if __name__ == "__main__":
    main()
