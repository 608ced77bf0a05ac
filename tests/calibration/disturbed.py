"""Runs that are disturbed: answers in any order, and ends in the middle."""

from collections.abc import Callable, Sequence
from random import Random

import pytest

from distcalib.actors.cluster import Ref
from distcalib.actors.machines import Machines
from distcalib.actors.ray_cluster import RayCluster
from distcalib.session.progress import Silent
from tests.actors.forked import ForkedMachines


def shuffle_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the answers that are there, now one is taken and now all, last first or in any order."""
    random = Random(5)

    def shuffling(wait: Callable[..., list[Ref]]) -> Callable[..., list[Ref]]:
        def shuffled(self: Machines, refs: Sequence[Ref], seconds: float) -> list[Ref]:
            ready = wait(self, random.sample(refs, len(refs)), seconds)
            return random.sample(ready, random.randint(min(1, len(ready)), len(ready)))

        return shuffled

    for machines in (RayCluster, ForkedMachines):
        monkeypatch.setattr(machines, "wait", shuffling(machines.wait))


class Ending(Silent):
    """Calls `end` when the phase `name` begins."""

    def __init__(self, name: str, end: Callable[[], object]) -> None:
        self._name, self._end = name, end

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        if name.startswith(self._name):
            self._end()


def interrupt() -> None:
    raise KeyboardInterrupt
