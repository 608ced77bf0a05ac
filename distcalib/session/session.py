"""What every run does first: open the net, its weights and its data, then start the actors."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from distcalib.actors import Enough, Job, JobResult, OnRows, Progress
from distcalib.actors.cancellation import Cancellation
from distcalib.actors.compatibility import refuse_mixed
from distcalib.actors.isa import Isa
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.pool import ActorPool
from distcalib.actors.ray_cluster import RaySource
from distcalib.actors.timeline import Timeline
from distcalib.data import Shipment, Shipped, Watched, advising
from distcalib.data.limits import VARIABLE
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import Setting
from distcalib.journal import Journal
from distcalib.journal.keys import Keys
from distcalib.journal.resume import Resuming
from distcalib.report import BadRecords
from distcalib.session.backend import Backend, open_backend
from distcalib.session.bad_records import LeftOutRecords, look_for_images
from distcalib.session.checks import fork_warnings, net_notes, refuse_unrunnable
from distcalib.session.guard import Guard
from distcalib.session.inputs import open_inputs
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Reporter, Watcher
from distcalib.session.protocol import images_a_row
from distcalib.session.shipping import cargo_of, refuse_too_large, refuse_unshippable
from distcalib.session.versions import versions


class Session:
    """A net with weights and data, and the actors that run it; a context manager."""

    def __init__(
        self,
        net: Net,
        weights: Path,
        reporter: Reporter,
        options: SessionOptions | None = None,
        *,
        backend: Backend | None = None,
        open_journal: Callable[[], Journal] | None = None,
        cancellation: Cancellation | None = None,
        at_least: int = 1,
    ) -> None:
        """`backend`: what measures, None: what `options` name.  `open_journal`: opens that of the run, once the inputs
        were found to be readable; the session closes it.  `cancellation`: ends what the actors do.  `at_least`: so many
        iterations are read, though fewer are scored.

        Raises what reading the inputs and starting the actors raise.
        """
        options = options or SessionOptions()
        self.net, self.reporter, self._options = net, reporter, options
        self.backend = backend or open_backend(options.root, options.isa)
        self._cancellation = cancellation or Cancellation()
        self._refuse_or_note()
        self._guard = Guard(net, weights, options.data)  # before anything is opened
        self._left_out, self._resuming, self.journal = LeftOutRecords(), None, None
        self._batches: dict[str, int] = {}
        with advising(self.backend.may_skip):
            self.inputs = open_inputs(
                net,
                weights,
                data=options.data,
                n_iterations=options.iterations,
                at_least=at_least,
                skips=options.skip_bad_records,
            )
            shipment, setting = self._setting()
            reporter.note(f"{net.name}: {len(net.graph.nodes)} layers, batch {self.batch}; starting actors")
            try:
                if open_journal is not None:
                    self.journal = open_journal()
                self._pool = self._started(shipment, setting, weights)
            except BaseException:
                self._let_go()
                raise
        try:
            self.isa: Isa = self.backend.isa(self._pool.nodes)
            self._resuming = self._resumed()
        except BaseException:
            self.close()
            raise
        self._note_nodes()

    def _refuse_or_note(self) -> None:
        """What a look at the net tells."""
        refuse_unrunnable(self.net, fed=self._options.data is not None)
        self.backend.refuse(self.net)
        if self._options.ship_data:
            refuse_unshippable(self.net)
        for note in (*net_notes(self.net), *fork_warnings(self.net)):
            self.reporter.note(note)

    def _setting(self) -> tuple[Shipment | None, Setting]:
        """What is sent of the data, if they are, and what every worker shares."""
        inputs, ships = self.inputs, self._options.ship_data
        watched = self._guard.opened(inputs.indexes)
        shipment = inputs.shipment() if ships else None
        looks = inputs.skips and not ships
        layers, n_iterations = inputs.data_layers, inputs.n_iterations
        return shipment, Setting(
            self.net.path.resolve(),
            inputs.weights,
            inputs.weights_name,
            inputs.indexes,
            inputs.arrays,
            inputs.skips,
            None if shipment is None else Shipped(shipment.files()),
            look_for_images(layers, self.net, inputs.indexes, n_iterations, self.reporter) if looks else {},
            watched,
            self._options.plugins,
        )

    def _started(self, shipment: Shipment | None, setting: Setting, weights: Path) -> ActorPool:
        options, watched = self._options, setting.watched

        def agree(nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
            return agreed(self.backend, nodes, shipment, self.inputs.weight_bytes, watched)

        return ActorPool(
            self.backend.factory,
            RaySource(options.address),
            n_actors=options.n_actors,
            cores_per_actor=options.cores_per_actor,
            actor_bytes=self.inputs.actor_bytes,
            shared_bytes=0 if shipment is None else shipment.n_bytes,
            env=agree,
            shared=self.backend.open(self.inputs, setting, weights),
            cargo=None if shipment is None else cargo_of(shipment, self.batch, self.reporter, self._guard.rest),
            in_flight=self.backend.in_flight,
            still=self._guard.look,
        )

    def _resumed(self) -> Resuming | None:
        if self.journal is None:
            return None
        inputs = self.inputs
        identity = [inputs.indexes, self._guard.identity(), inputs.arrays]
        keys = Keys(inputs.weights, identity, self.isa, self.versions)
        return Resuming(self.journal, keys, inputs.skips, self._guard.glance)

    def _note_nodes(self) -> None:
        nodes, note = self._pool.nodes, self.reporter.note
        if len(nodes) > 1:
            note(f"{len(nodes)} nodes, {self.n_actors} actors, {self.isa} ({self.isa.kernels} kernels)")
        if (backend_note := self.backend.note(self.isa, nodes)) is not None:
            note(backend_note)
        if (cores := self.cores_per_actor) > 1 and self._pool.narrowed:
            note(f"memory is short: {self.n_actors} actors, of up to {cores} cores each")
        if self._pool.oversubscribed:
            note(f"{self.n_actors} actors share fewer cores: results hold, times do not")

    @property
    def versions(self) -> dict[str, str]:
        """What a score depends on beside its inputs."""
        return versions(self.backend.versions, self._options.plugins)

    @property
    def batch(self) -> int:
        """Images per iteration."""
        return self.inputs.batch

    def batch_of(self, phase: str) -> int:
        """Images per iteration of a phase: a ranking may take fewer than the net's batch has."""
        return self._batches.get(phase, self.batch)

    @property
    def n_iterations(self) -> int:
        """Of a score: as many as were asked for, or as the data have."""
        return self.inputs.n_scored

    @property
    def n_actors(self) -> int:
        """How many they are; more when nodes join."""
        return self._pool.n_actors

    @property
    def cpus(self) -> dict[str, int]:
        """How many of the machines have which CPU, as it calls itself."""
        return dict(Counter(node.cpu or "unknown CPU" for node in self._pool.nodes))

    @property
    def timeline(self) -> Timeline:
        """What the actors did when."""
        return self._pool.timeline

    @property
    def n_retired(self) -> int:
        """Actors that were given up because their nodes ran out of memory."""
        return self._pool.n_retired

    @property
    def cores_per_actor(self) -> int:
        """Physical cores of the widest actor."""
        return max(placement.n_threads for placement in self._pool.placements)

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many rows (those that score: iterations); results in the order of `work`."""
        return self.run(phase, self.jobs(phase, work))

    def jobs(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[Job]:
        """A job for each program, of so many rows."""
        return [self._job(f"{phase}/{i}", spec, n, phase) for i, (spec, n) in enumerate(work)]

    def _job(self, key: str, spec: NetSpec, n_rows: int, phase: str) -> Job:
        if spec.scores:
            return self.backend.scoring(key, spec, n_rows, None, phase, self.n_actors)
        return Job(key, spec, n_rows, phase, spec.sampling.row_sizes if spec.sampling else None)

    def scoring(self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int], phase: str) -> Job:
        """A job that scores the iterations `wanted` of `n_iterations`, in that order; it may fail by itself.

        An engine that works slice by slice scores all slices that have one of them.
        """
        job = self.backend.scoring(key, spec, n_iterations, wanted, phase, self.n_actors)
        return replace(job, may_fail=True)

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a scoring job by iteration, from those by the numbers that stand in its `order`."""
        return self.backend.by_iteration(job, found)

    def run(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs, showing how far they are; results in their order.  What the journal has is not run again."""

        def run_missing(
            missing: Sequence[Job], enough: Enough | None = None, on_rows: OnRows | None = None
        ) -> list[JobResult]:
            self.reporter.phase(phase, sum(job.size for job in missing), self.batch_of(phase))

            def advance(progress: Progress) -> None:
                self.reporter.advance(progress.n_done, progress.n_total)
                if isinstance(self.reporter, Watcher):
                    self.reporter.busy(progress.n_busy, progress.n_actors)

            return self._pool.run(missing, advance, enough, on_rows, self._cancellation.check)

        for job in jobs:
            self._batches[phase] = self._batches[job.label] = images_a_row(job, self.batch)
        with advising(self.backend.may_skip):
            if self._resuming is None:
                results = run_missing(jobs, enough)
            else:
                results = self._resuming.run(run_missing, jobs, enough)
        self._left_out.take(jobs, results)
        return results

    def bad_records(self, iterations: Iterable[int]) -> BadRecords | None:
        """Which records of `iterations`, all that were asked for, were left out; None if none could be."""
        if not self.inputs.skips:
            return None
        return self._left_out.report(self.net, self.inputs.indexes, self.batch, iterations)

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
        return self.inputs.work(layers)

    def end_measuring(self) -> None:
        """Stop the actors, which nothing will be asked any more, while the caller goes on."""
        self._pool.begin_close()

    def close(self) -> None:
        """Stop the actors and remove what only they needed."""
        try:
            self._pool.close()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self.backend.close()
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def agreed(
    backend: Backend,
    nodes: Sequence[NodeInfo],
    shipment: Shipment | None = None,
    weight_bytes: int = 0,
    watched: Watched | None = None,
) -> Mapping[str, str]:
    """The environment in which all nodes compute alike; refuses nodes that cannot, or that cannot hold the records.

    The files that are `watched` are compared before anything of them is sent."""
    refuse_mixed(nodes)
    if watched is not None:
        watched.check_all()
    if shipment is not None:
        refuse_too_large(shipment, nodes, weight_bytes)
    limit = {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}
    return {**backend.environment(nodes), **limit}
