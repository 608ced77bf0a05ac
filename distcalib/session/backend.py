"""What measures a net: the embedded engine, or a build of Intel Caffe (intel_caffe.py)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from distcalib.actors import Job, JobResult, Placement, WorkerFactory
from distcalib.actors.compatibility import agreed_environment, agreed_isa, emulation_note
from distcalib.actors.feeder import IN_FLIGHT
from distcalib.actors.isa import Isa, arithmetic_of, known_isa
from distcalib.actors.nodes import NodeInfo
from distcalib.data import Chunk
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import NetWorker, Setting
from distcalib.plugins import load_plugins
from distcalib.session.inputs import Inputs
from distcalib.session.intel_caffe import IntelCaffe, open_build


class Backend(Protocol):
    """An engine as a session uses it: how its workers are made, and what its jobs are made of."""

    @property
    def may_skip(self) -> bool:
        """Whether it can leave bad records out."""
        ...

    @property
    def in_flight(self) -> int:
        """Tasks that an actor has at the most."""
        ...

    @property
    def factory(self) -> WorkerFactory:
        """Makes an actor's worker."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """What its scores depend on beside the versions of Python's packages."""
        ...

    def refuse(self, net: Net) -> None:
        """Raise UnsupportedError for a net that it cannot run."""
        ...

    def open(self, inputs: Inputs, setting: Setting, weights: Path) -> object:
        """What all workers share."""
        ...

    def environment(self, nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
        """The environment in which all `nodes` compute alike; raises OptionError for nodes that cannot."""
        ...

    def isa(self, nodes: Sequence[NodeInfo]) -> Isa:
        """The CPU whose arithmetic they compute."""
        ...

    def note(self, isa: Isa, nodes: Sequence[NodeInfo]) -> str | None:
        """What a user should know of how they compute it."""
        ...

    def scoring(
        self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int] | None, phase: str, n_actors: int
    ) -> Job:
        """A job that scores the iterations `wanted` of `n_iterations`, in that order; None: all."""
        ...

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a scoring job by iteration, from those by the numbers that stand in its `order`."""
        ...

    def close(self) -> None:
        """Remove what `open` made."""
        ...


def make_worker(setting: Setting, placement: Placement, chunks: Sequence[Chunk] = ()) -> NetWorker:
    """The pool's factory; `chunks`: what was sent of the data, if they were sent."""
    load_plugins(setting.plugins)
    if setting.shipped is not None:
        setting = replace(setting, shipped=replace(setting.shipped, chunks=chunks))
    return NetWorker(setting, placement.n_threads, placement.spare_bytes, arithmetic_of(os.environ))


class Embedded:
    """OpenVINO in each actor, iteration by iteration, for the target `isa`."""

    may_skip = True
    in_flight = IN_FLIGHT
    factory = staticmethod(make_worker)

    def __init__(self, isa: str) -> None:
        self._isa = isa

    @property
    def versions(self) -> Mapping[str, str]:
        """None: OpenVINO is a Python package."""
        return {}

    def refuse(self, net: Net) -> None:
        """It runs what the checks of every run let pass."""

    def open(self, inputs: Inputs, setting: Setting, weights: Path) -> Setting:
        """The setting as it is."""
        return setting

    def environment(self, nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
        """The arithmetic and the kernels that all nodes have."""
        return agreed_environment(self._isa, nodes)

    def isa(self, nodes: Sequence[NodeInfo]) -> Isa:
        """The target, and how all nodes compute it."""
        return agreed_isa(self._isa, nodes)

    def note(self, isa: Isa, nodes: Sequence[NodeInfo]) -> str | None:
        """That the target is emulated."""
        return emulation_note(isa, nodes)

    def scoring(
        self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int] | None, phase: str, n_actors: int
    ) -> Job:
        """A row per iteration."""
        if wanted is None:
            return Job(key, spec, n_iterations, phase)
        return Job(key, spec, len(wanted), phase, order=tuple(wanted))

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """They are."""
        return {i: row for i, row in found.items() if isinstance(row, Row)}

    def close(self) -> None:
        """Nothing was made."""


def open_backend(root: str | Path | None, isa: str) -> Backend:
    """The build of Intel Caffe in `root`, or without one the embedded engine for the target `isa`.

    Raises OptionError if there is no such build or target."""
    build = open_build(root, isa)
    if build is not None:
        return IntelCaffe(build)
    known_isa(isa)
    return Embedded(isa)


def rows(result: JobResult) -> list[Row]:
    """The rows of a job that ran a net, in order; those of a slice in its place."""
    units = (unit if isinstance(unit, tuple) else (unit,) for unit in result.rows)
    return [row for unit in units for row in unit if isinstance(row, Row)]
