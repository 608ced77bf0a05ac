"""What every run does first: open the net, its weights and its data, then start the actors.

What can be wrong with the input is found here, before any actor starts: a wrong path costs a second, not an hour. Blobs
that do not fit and records that cannot be decoded are met by the actors.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights
from distcalib.caffe.graph import Blob
from distcalib.data import Index, load_arrays, open_source
from distcalib.engine.builder import layer_shapes
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.layers import ZeroBlobs
from distcalib.measure import ActorPool, Job, JobResult, Placement, Progress
from distcalib.run.checks import refuse_no_numbers, refuse_unrunnable
from distcalib.run.isa import isa_environment
from distcalib.run.net import Net
from distcalib.run.reporter import Reporter
from distcalib.version import __version__


class Session:
    """A net with weights and data, and the actors that run it; a context manager."""

    def __init__(
        self,
        net: Net,
        weights: Path,
        reporter: Reporter,
        *,
        n_actors: int | None = None,
        cores_per_actor: int = 1,
        isa: str = "native",
        data: Path | None = None,
        address: str | None = None,
    ) -> None:
        """Raises what reading the inputs and starting the actors raise."""
        refuse_unrunnable(net, fed=data is not None)
        self.net = net
        self.reporter = reporter
        self.weights: Weights = net.weights(weights)
        refuse_no_numbers(self.weights, weights, net)
        self.cores_per_actor = cores_per_actor
        layers = [node.layer for node in data_nodes(net.graph)]
        arrays = None if data is None else load_arrays(data, layers, net.path)
        self.batch, indexes, self._data_shapes = _open_data(net, arrays)
        setting = Setting(net.path.resolve(), self.weights, weights.name, indexes, arrays)
        reporter.note(f"{net.name}: {len(net.graph.nodes)} layers, batch {self.batch}; starting actors")
        self._pool = ActorPool(
            make_worker,
            n_actors=n_actors,
            cores_per_actor=cores_per_actor,
            env=isa_environment(isa),
            address=address,
            shared=setting,
        )
        self.n_actors = self._pool.n_actors
        if self._pool.oversubscribed:
            reporter.note(f"{self.n_actors} actors share fewer cores: results hold, times do not")

    def in_parts(self, blobs: Sequence[Blob], n_bytes: int) -> list[tuple[Blob, ...]]:
        """`blobs` in their order, in groups whose values take `n_bytes` a batch at the most, or are alone."""
        shapes, _ = layer_shapes(self.net.graph, ZeroBlobs(), self._data_shapes, self.net.name)
        parts: list[list[Blob]] = []
        left = 0
        for blob in blobs:
            size = 4 * prod(shapes[blob])
            if not parts or size > left:
                parts.append([])
                left = n_bytes
            parts[-1].append(blob)
            left -= size
        return [tuple(part) for part in parts]

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many rows; results in the order of `work`."""
        sizes = [spec.sampling.row_sizes if spec.sampling else None for spec, _ in work]
        jobs = [Job(f"{phase}/{i}", spec, n, phase, sizes[i]) for i, (spec, n) in enumerate(work)]
        self.reporter.phase(phase, sum(job.size for job in jobs), self.batch)

        def advance(progress: Progress) -> None:
            self.reporter.advance(progress.n_done)

        return self._pool.run(jobs, advance)

    def close(self) -> None:
        """Stop the actors."""
        self._pool.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_worker(setting: Setting, placement: Placement) -> NetWorker:
    """The pool's factory."""
    return NetWorker(setting, placement.n_threads)


def rows(result: JobResult) -> list[Row]:
    """The rows of a job that ran a net."""
    return [row for row in result.rows if isinstance(row, Row)]


def _open_data(
    net: Net, arrays: Mapping[str, NDArray[np.generic]] | None
) -> tuple[int, Mapping[str, Index | None], Mapping[str, tuple[int, ...]]]:
    """Batch size, index of each data layer and shapes of their tops; everything wrong with the data that can be seen
    at once is raised here.
    """
    indexes: dict[str, Index | None] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    batch = 0
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path, arrays=arrays)
        batch = batch or source.batch_size
        indexes[node.name] = source.index
        shapes.update(source.shapes)
        source.close()
    return batch, indexes, shapes


def versions() -> dict[str, str]:
    """What a score depends on beside its inputs."""
    return {
        "distcalib": __version__,
        "openvino": version("openvino"),
        "ray": version("ray"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }
