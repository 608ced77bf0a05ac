"""What every run does first: open the net, its weights and its data, then start the actors.

What can be wrong with the input is found here, before any actor starts: a wrong path costs a second, not an hour. Blobs
that do not fit and records that cannot be decoded are met by the actors.
"""

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import ActorPool, Enough, Job, JobResult, OnRows, Placement, Progress
from distcalib.actors.compatibility import agreed_environment, agreed_isa, emulation_note, refuse_mixed
from distcalib.actors.isa import Isa, arithmetic_of
from distcalib.actors.memory import actor_bytes, refuse_large_blobs
from distcalib.actors.nodes import NodeInfo
from distcalib.caffe import Weights
from distcalib.caffe.graph import Blob
from distcalib.data import Chunk, Index, Shipment, Shipped, Source, load_arrays, open_source
from distcalib.data.limits import VARIABLE
from distcalib.engine.batch import records_an_iteration
from distcalib.engine.builder import multiply_adds
from distcalib.engine.checking import checked_shapes
from distcalib.engine.intel_caffe import CaffeSetting, CaffeSpec, CaffeWorker
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.errors import OptionError
from distcalib.journal import Journal
from distcalib.journal.keys import Keys
from distcalib.journal.resume import Resuming
from distcalib.quantize.fusion import find_fused
from distcalib.report import BadRecords
from distcalib.session.bad_records import LeftOutRecords, look_for_images, refuse_unskippable
from distcalib.session.checks import fork_warnings, net_notes, refuse_no_numbers, refuse_other_images, refuse_unrunnable
from distcalib.session.guard import Guard
from distcalib.session.intel_caffe import CaffeBuild, CaffeRun, flat, refuse_for_caffe
from distcalib.session.lengths import Length, lengths_of, refuse_unequal
from distcalib.session.progress import Reporter
from distcalib.session.shipping import cargo_of, refuse_too_large, refuse_unshippable
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
        cores_per_actor: int | None = None,
        isa: str = "native",
        data: Path | None = None,
        build: CaffeBuild | None = None,
        address: str | None = None,
        n_iterations: int = 1,
        ship_data: bool = False,
        open_journal: Callable[[], Journal] | None = None,
        skip_bad: bool = False,
    ) -> None:
        """`build`: what scores in place of the embedded engine. `cores_per_actor` None: as memory allows.
        `ship_data`: send the records of the first `n_iterations` to the actors, which open no data then.
        `open_journal`: opens that of the run, once the inputs were found to be readable; the session closes it.
        `skip_bad`: leave out records that cannot be read, of as many iterations.

        Raises what reading the inputs and starting the actors raise.
        """
        refuse_unrunnable(net, fed=data is not None)
        if build is not None:
            refuse_for_caffe(net)
        if ship_data:
            refuse_unshippable(net)
        for said in (*net_notes(net), *fork_warnings(net)):
            reporter.note(said)
        self.net = net
        self.reporter = reporter
        self._guard = Guard(net, weights, data)  # before anything is opened
        self.weights: Weights = net.weights(weights)
        refuse_no_numbers(self.weights, weights, net)
        layers = [node.layer for node in data_nodes(net.graph)]
        arrays = None if data is None else load_arrays(data, layers, net.path)
        skips = None if build is not None else skip_bad
        self.batch, indexes, self._data_shapes, self.lengths = _open_data(net, arrays, skips)
        refuse_unequal(self.lengths, n_iterations, net.name)
        self._shapes = checked_shapes(net.graph, self._data_shapes, net.name)
        refuse_large_blobs(net.name, self._data_shapes, self._shapes)
        refuse_other_images(net, self._data_shapes, self._shapes, self.weights)
        if skip_bad:
            refuse_unskippable(net, self._data_shapes, self.batch)
        self._indexes, self._skips, self._left_out = indexes, skip_bad, LeftOutRecords()
        watched = self._guard.opened(indexes)
        if ship_data:
            self._guard.rest()
        read = [node.layer for node in net.graph]  # scores read files, too: the sizes of images
        shipment = Shipment(read, net.path, indexes, n_iterations) if ship_data else None
        shipped = None if shipment is None else Shipped(shipment.files())
        missing = look_for_images(layers, net, indexes, n_iterations, reporter) if skips and not ship_data else {}
        setting = Setting(net.path.resolve(), self.weights, weights.name, indexes, arrays, skips, shipped, missing)
        setting = replace(setting, watched=watched)
        reporter.note(f"{net.name}: {len(net.graph.nodes)} layers, batch {self.batch}; starting actors")
        self._resuming: Resuming | None = None
        start = partial(
            ActorPool,
            n_actors=n_actors,
            cores_per_actor=cores_per_actor,
            actor_bytes=self._actor_bytes(),
            shared_bytes=0 if shipment is None else shipment.n_bytes,
            address=address,
        )
        self.journal = None if open_journal is None else open_journal()
        self._caffe = None
        try:
            self._caffe = None if build is None else CaffeRun(build, net, setting, weights, self._data_shapes)
            if build is None or self._caffe is None:
                cargo = None if shipment is None else cargo_of(shipment, self.batch, reporter)
                env = partial(agree, isa, shipment=shipment, weight_bytes=self._weight_bytes, still=watched.check_all)
                self._pool = start(make_worker, env=env, shared=setting, cargo=cargo)
            else:
                env = partial(agree_on_caffe, build.environment)
                self._pool = start(make_caffe_worker, env=env, shared=self._caffe.setting, in_flight=1)
        except BaseException:
            self._let_go()
            raise
        try:
            self.isa: Isa = agreed_isa(isa, self._pool.nodes) if build is None else build.isa
            if self.journal is not None:
                identity = [indexes, self._guard.identity(), arrays]
                keys = Keys(self.weights, identity, self.isa, versions(build))
                self._resuming = Resuming(self.journal, keys, skip_bad, self._guard.glance)
        except BaseException:
            self.close()
            raise
        self._tell_of_nodes()
        if self._pool.oversubscribed:
            reporter.note(f"{self.n_actors} actors share fewer cores: results hold, times do not")

    @property
    def data_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the tops of the data layers."""
        return self._data_shapes

    @property
    def indexes(self) -> Mapping[str, Index | None]:
        """Of the sources of the data layers, by layer."""
        return self._indexes

    @property
    def n_actors(self) -> int:
        """How many they are; more when nodes join."""
        return self._pool.n_actors

    @property
    def n_retired(self) -> int:
        """Actors that were given up because their nodes ran out of memory."""
        return self._pool.n_retired

    @property
    def cores_per_actor(self) -> int:
        """Physical cores of the widest actor."""
        return max(placement.n_threads for placement in self._pool.placements)

    def _tell_of_nodes(self) -> None:
        nodes = self._pool.nodes
        if len(nodes) > 1:
            self.reporter.note(f"{len(nodes)} nodes, {self.n_actors} actors, {self.isa} ({self.isa.kernels} kernels)")
        if self._caffe is None and (said := emulation_note(self.isa, nodes)) is not None:
            self.reporter.note(said)
        if (cores := self.cores_per_actor) > 1 and self._pool.narrowed:
            self.reporter.note(f"memory is short: {self.n_actors} actors, of up to {cores} cores each")

    @property
    def _weight_bytes(self) -> int:
        return sum(blob.nbytes for blobs in self.weights.values() for blob in blobs)

    def _actor_bytes(self) -> int:
        """What an actor is likely to need."""
        return actor_bytes(self._weight_bytes, (4 * prod(shape) for shape in self._shapes.values()))

    def image_bytes(self, blobs: Sequence[Blob]) -> int:
        """What `blobs` take of an image."""
        return sum(4 * prod(self._shapes[blob]) for blob in blobs) // self.batch

    def in_parts(self, blobs: Sequence[Blob], n_bytes: int) -> list[tuple[Blob, ...]]:
        """`blobs` in their order, in groups whose values take `n_bytes` a batch at the most, or are alone."""
        parts: list[list[Blob]] = []
        left = 0
        for blob in blobs:
            size = 4 * prod(self._shapes[blob])
            if not parts or size > left:
                parts.append([])
                left = n_bytes
            parts[-1].append(blob)
            left -= size
        return [tuple(part) for part in parts]

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many rows (those that score: iterations); results in the order of `work`."""
        return [replace(result, rows=flat(result)) for result in self.run(phase, self.jobs(phase, work))]

    def jobs(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[Job]:
        """A job for each program, of so many rows."""
        return [self._job(f"{phase}/{i}", spec, n, phase) for i, (spec, n) in enumerate(work)]

    def scoring(self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int], phase: str) -> Job:
        """A job that scores the iterations `wanted` of `n_iterations`, in that order; it may fail by itself.

        An engine that works slice by slice scores all slices that have one of them.
        """
        if self._caffe is None:
            return Job(key, spec, len(wanted), phase, order=tuple(wanted), may_fail=True)
        job = self._caffe.job(key, spec, n_iterations, phase, self.n_actors)
        parts, missing = self._slices(job), set(wanted)
        order = tuple(i for i, part in enumerate(parts) if not missing.isdisjoint(part))
        sizes = tuple(len(parts[i]) for i in order)
        return replace(job, n_iterations=len(order), order=order, row_sizes=sizes, may_fail=True)

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a scoring job by iteration, from those by the numbers that stand in its `order`."""
        if self._caffe is None:
            return {i: row for i, row in found.items() if isinstance(row, Row)}
        parts = self._slices(job)
        pairs = [(parts[i], unit) for i, unit in found.items() if isinstance(unit, tuple)]
        return {i: row for part, unit in pairs for i, row in zip(part, unit, strict=True)}

    @staticmethod
    def _slices(job: Job) -> Sequence[range]:
        assert isinstance(job.spec, CaffeSpec), "a scoring job of Caffe is made of slices"
        return job.spec.slices.parts

    def run(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs, showing how far they are; results in their order.  What the journal has is not run again."""

        def run_missing(
            missing: Sequence[Job], enough: Enough | None = None, on_rows: OnRows | None = None
        ) -> list[JobResult]:
            self.reporter.phase(phase, sum(job.size for job in missing), self.batch)

            def advance(progress: Progress) -> None:
                self.reporter.advance(progress.n_done, progress.n_total)

            return self._pool.run(missing, advance, enough, on_rows)

        results = run_missing(jobs, enough) if self._resuming is None else self._resuming.run(run_missing, jobs, enough)
        self._left_out.take(jobs, results)
        return results

    def bad_records(self, iterations: Iterable[int]) -> BadRecords | None:
        """Which records of `iterations`, all that were asked for, were left out; None if none could be."""
        return self._left_out.report(self.net, self._indexes, self.batch, iterations) if self._skips else None

    def recorded(self, job: Job) -> JobResult | None:
        """What the journal has of a job; None without a journal."""
        return None if self._resuming is None else self._resuming.recorded(job)

    @property
    def n_rows_from_journal(self) -> int:
        """Rows that were measured by an earlier run."""
        return 0 if self._resuming is None else self._resuming.n_recorded

    def check_files(self) -> None:
        """Raise DataError if data or weights are not what they were when the run began."""
        self._guard.finish(self._resuming)

    @property
    def journal_name(self) -> str:
        """The journal's file, as it was named."""
        return "" if self.journal is None else str(self.journal.path)

    @property
    def n_rows_measured(self) -> int:
        """Rows that this run added to the journal."""
        return 0 if self._resuming is None else self._resuming.n_measured

    def settle(self) -> float:
        """Wait for what stopped jobs left under way; the actor-seconds of it, which no result has."""
        return self._pool.settle()

    def work(self, layers: Sequence[str]) -> dict[str, int]:
        """The multiply-adds of one image in each of `layers`."""
        groups = find_fused(self.net.graph)
        return {name: multiply_adds(groups[name].node, self._shapes) for name in layers}

    def close(self) -> None:
        """Stop the actors and remove what only they needed."""
        try:
            self._pool.close()
        finally:
            self._let_go()

    def _job(self, key: str, spec: NetSpec, n_rows: int, phase: str) -> Job:
        if self._caffe is not None and spec.scores:
            return self._caffe.job(key, spec, n_rows, phase, self.n_actors)
        return Job(key, spec, n_rows, phase, spec.sampling.row_sizes if spec.sampling else None)

    def _let_go(self) -> None:
        if self._caffe is not None:
            self._caffe.close()
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def agree(
    isa: str,
    nodes: Sequence[NodeInfo],
    shipment: Shipment | None = None,
    weight_bytes: int = 0,
    still: Callable[[], None] = lambda: None,
) -> Mapping[str, str]:
    """The environment in which all nodes compute alike; refuses nodes that cannot, or that cannot hold the records.

    `still` is called before anything is sent to them."""
    refuse_mixed(nodes)
    still()
    if shipment is not None:
        refuse_too_large(shipment, nodes, weight_bytes)
    limit = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return {**agreed_environment(isa, nodes), **limit}


def agree_on_caffe(environment: Mapping[str, str], nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
    """The same for Intel Caffe, whose kernels are its own; its files are on one machine.  Raises OptionError too."""
    refuse_mixed(nodes)
    if len(nodes) > 1:
        raise OptionError(f"-r: works on one machine, and the cluster has {len(nodes)} nodes; leave out --address")
    return environment


def make_worker(setting: Setting, placement: Placement, chunks: Sequence[Chunk] = ()) -> NetWorker:
    """The pool's factory; `chunks`: what was sent of the data, if they were sent."""
    if setting.shipped is not None:
        setting = replace(setting, shipped=replace(setting.shipped, chunks=chunks))
    return NetWorker(setting, placement.n_threads, placement.spare_bytes, arithmetic_of(os.environ))


def make_caffe_worker(setting: CaffeSetting, placement: Placement) -> CaffeWorker:
    """The pool's factory for -r."""
    return CaffeWorker(setting, placement.n_threads, arithmetic_of(os.environ))


def rows(result: JobResult) -> list[Row]:
    """The rows of a job that ran a net."""
    return [row for row in result.rows if isinstance(row, Row)]


def _open_data(
    net: Net, arrays: Mapping[str, NDArray[np.generic]] | None, skip_bad: bool | None
) -> tuple[int, Mapping[str, Index | None], Mapping[str, tuple[int, ...]], tuple[Length, ...]]:
    """Batch size, index of each data layer, shapes of their tops and their lengths; everything wrong with the data that
    can be seen at once is raised here.
    """
    indexes: dict[str, Index | None] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    sources: list[Source] = []
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path, arrays=arrays, skip_bad=skip_bad)
        sources.append(source)
        indexes[node.name] = source.index
        shapes.update(source.shapes)
        source.close()
    named = [(node.name, source) for node, source in zip(data_nodes(net.graph), sources, strict=True)]
    return records_an_iteration(sources), indexes, shapes, lengths_of(named, arrays)


def versions(build: CaffeBuild | None = None) -> dict[str, str]:
    """What a score depends on beside its inputs; `intel_caffe`: see caffe_version."""
    caffe = {} if build is None else {"intel_caffe": build.version}
    return {
        "distcalib": __version__,
        "openvino": version("openvino"),
        "ray": version("ray"),
        "numpy": version("numpy"),
        "opencv": version("opencv-python-headless"),
        "python": platform.python_version(),
        **caffe,
    }
