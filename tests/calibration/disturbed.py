"""Runs that are disturbed: answers in any order, and ends in the middle."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from distcalib.actors.cluster import Ref
from distcalib.actors.ray_cluster import RayCluster
from distcalib.session.progress import Silent


def shuffle_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the answers that are there, now one is taken and now all, last first or in any order."""
    random, wait = Random(5), RayCluster.wait

    def shuffled(self: RayCluster, refs: Sequence[Ref], *args: Any, **kwargs: Any) -> list[Ref]:
        ready = wait(self, random.sample(refs, len(refs)), *args, **kwargs)
        return random.sample(ready, random.randint(min(1, len(ready)), len(ready)))

    monkeypatch.setattr(RayCluster, "wait", shuffled)


class Ending(Silent):
    """Calls `end` when the phase `name` begins."""

    def __init__(self, name: str, end: Callable[[], object]) -> None:
        self._name, self._end = name, end

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        if name.startswith(self._name):
            self._end()


def interrupt() -> None:
    raise KeyboardInterrupt
