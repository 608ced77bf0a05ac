"""An engine that says which iterations it was asked for, and the simulated cluster and fleet that run it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from distcalib.actors import Placement
from distcalib.actors.fleet import Fleet
from scripts.simulate.simulated_cluster import Faults, SimulatedCluster, no_faults, no_worker

ROW_SECONDS, LOAD_SECONDS = 1e-3, 1e-4


@dataclass
class Echo:
    """A row is its iteration. `ran`: the specs and iterations of all runs; a spec that is a number is the seconds that
    a row of it takes."""

    ran: list[tuple[object, int]] = field(default_factory=list)

    def compile_seconds(self, spec: object) -> float:
        return LOAD_SECONDS

    def load_seconds(self, spec: object) -> float:
        return LOAD_SECONDS

    def run(self, spec: object, iterations: Sequence[int]) -> tuple[Sequence[object], float]:
        self.ran += [(spec, iteration) for iteration in iterations]
        return list(iterations), len(iterations) * (spec if isinstance(spec, float) else ROW_SECONDS)


def echo_cluster(*nodes: str, seed: int | None = None, faults: Faults = no_faults) -> SimulatedCluster:
    """Nodes by id, all that answer; without any, one machine."""
    return SimulatedCluster(Echo(), nodes={node: f"host {node}" for node in nodes}, seed=seed, faults=faults)


def fleet_on(cluster: SimulatedCluster, *nodes: str) -> Fleet:
    """An actor on each, numbered in that order, on a CPU of its number."""
    return Fleet(cluster, [Placement(i, (i,), node) for i, node in enumerate(nodes)], no_worker, None, {})
