"""What every run does first: open the net, its weights and its data, then start the actors.

All that can be wrong with the input is found here, before any actor starts: a wrong path costs a second, not an hour.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

from distcalib.caffe import Weights, caffe_pb2, read_net, read_weights, resolve_sources, test_net
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.data import Index, open_source
from distcalib.engine.builder import refuse_unconverted
from distcalib.engine.worker import NetSpec, NetWorker, Row, Setting, data_nodes, refuse_host_feeding
from distcalib.errors import FormatError, OptionError, UnsupportedError
from distcalib.measure import ActorPool, Job, JobResult, Placement, Progress
from distcalib.metrics import HOST_TYPES, check_layer
from distcalib.run.reporter import Reporter
from distcalib.version import __version__


@dataclass(frozen=True)
class Net:
    """A prototxt, read: all phases as they are written out again, and the TEST net as it is measured."""

    path: Path
    full: caffe_pb2.NetParameter
    test: caffe_pb2.NetParameter
    graph: Graph

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def spec(self, taps: tuple[Blob, ...] = ()) -> NetSpec:
        """The TEST net as a program to be compiled; its paths are absolute, since an actor has a folder of its own."""
        net = caffe_pb2.NetParameter()
        net.CopyFrom(self.test)
        resolve_sources(net, self.path)
        return NetSpec(net.SerializeToString(deterministic=True), self.name, taps)


def open_net(path: Path) -> Net:
    """Read the prototxt `path`.  Raises FormatError, also for a caffemodel, which is a binary net with blobs."""
    full = read_net(path)
    if any(layer.blobs for layer in full.layer):
        raise FormatError(f"{path}: is a caffemodel, not a prototxt; give the prototxt as -m and the caffemodel as -w")
    return make_net(path, full)


def make_net(path: Path, full: caffe_pb2.NetParameter) -> Net:
    """A net from its layers; `path` is where its relative paths start and what messages call it."""
    test = test_net(full)
    graph = build_graph(test.layer, path.name)
    return Net(path, full, test, graph)


def refuse_unrunnable(net: Net) -> None:
    """Raise UnsupportedError for layers that are not converted, and for what the host's layers cannot do."""
    refuse_unconverted(net.graph, net.name)
    refuse_host_feeding(net.graph, net.name)
    for node in net.graph:
        if node.type in HOST_TYPES:
            check_layer(node.layer)
    if not data_nodes(net.graph):
        raise UnsupportedError(f"{net.name}: has no data layer in the TEST phase; add one (Data with an LMDB)")


def check_iterations(n_iterations: int, flag: str = "-i") -> None:
    """Raise OptionError for less than one iteration."""
    if n_iterations < 1:
        raise OptionError(f"{flag} {n_iterations}: is no number of iterations; give at least 1")


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
        address: str | None = None,
    ) -> None:
        """Raises what reading the inputs and starting the actors raise."""
        refuse_unrunnable(net)
        self.net = net
        self.reporter = reporter
        self.weights: Weights = read_weights(weights)
        self.cores_per_actor = cores_per_actor
        self.batch, indexes = _open_data(net)
        setting = Setting(net.path.resolve(), self.weights, weights.name, indexes)
        reporter.note(f"{net.name}: {len(net.graph.nodes)} layers, batch {self.batch}; starting actors")
        self._pool = ActorPool(
            make_worker, n_actors=n_actors, cores_per_actor=cores_per_actor, address=address, shared=setting
        )
        self.n_actors = self._pool.n_actors
        if self._pool.oversubscribed:
            reporter.note(f"{self.n_actors} actors share fewer cores: results hold, times do not")

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many iterations; results in the order of `work`."""
        jobs = [Job(f"{phase}/{i}", spec, n, phase) for i, (spec, n) in enumerate(work)]
        self.reporter.phase(phase, sum(n for _, n in work), self.batch)

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


def _open_data(net: Net) -> tuple[int, Mapping[str, Index | None]]:
    """Batch size and index of each data layer; everything wrong with the data that can be seen at once is raised
    here.
    """
    indexes: dict[str, Index | None] = {}
    batch = 0
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path)
        batch = batch or source.batch_size
        indexes[node.name] = source.index
        source.close()
    return batch, indexes


def versions() -> dict[str, str]:
    """What a score depends on beside its inputs."""
    return {
        "distcalib": __version__,
        "openvino": version("openvino"),
        "ray": version("ray"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }


_ISA_LEVELS = (
    ("avx512_core_amx", "amx_int8"),
    ("avx512_core_vnni", "avx512_vnni"),
    ("avx512_core", "avx512bw"),
    ("avx2_vnni", "avx_vnni"),
    ("avx2", "avx2"),
)


def measured_isa(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The widest instruction set that oneDNN uses here, by its own names; ONEDNN_MAX_CPU_ISA lowers it."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    flags = set(line.split())
    names = [name for name, flag in _ISA_LEVELS if flag in flags]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()
    known = [name for name, _ in _ISA_LEVELS]
    if limit in known:
        names = [name for name in names if known.index(name) >= known.index(limit)]
    return names[0] if names else platform.machine()
