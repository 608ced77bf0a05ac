"""--skip-bad-records: what the rows of a run say of records that could not be read.

Which these are is known after the FP32 pass and the ranges, which look at all iterations that anything else looks at;
so the list is the same on any number of actors.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from distcalib.actors import Job, JobResult
from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import Blob
from distcalib.data import FLAG, Index, LeftOut, find_missing
from distcalib.engine.net import Net
from distcalib.engine.spec import ElsewhereSpec, NetSpec, Row
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError, OptionError, UnsupportedError
from distcalib.metrics import HOST_TYPES
from distcalib.report import BadRecords, bad_records
from distcalib.session.by_record import has_row_a_record, mixes
from distcalib.session.progress import Reporter

_LOOK_SECONDS = 5.0  # as often as a log has a line of a phase
_SKIPPING = frozenset({"AnnotatedData", "Data", "ImageData"})
"""The data layers whose records are left out if they are bad."""


@dataclass
class LeftOutRecords:
    """Those of one run."""

    by_iteration: dict[int, tuple[LeftOut, ...]] = field(default_factory=dict)
    found: set[LeftOut] = field(default_factory=set)

    def take(self, jobs: Sequence[Job], results: Sequence[JobResult]) -> None:
        """Note what rows say.  Raises DataError where an iteration was scored with other records than before.

        Batches of images have none that is bad: a source that finds one raises.
        """
        for job, result in zip(jobs, results, strict=True):
            scores = isinstance(job.spec, (NetSpec, ElsewhereSpec)) and job.spec.scores
            first = 0
            if isinstance(job.spec, NetSpec):
                if job.spec.images is not None:
                    continue
                if job.spec.sampling is not None and job.spec.sampling.scored:
                    scores, first = True, job.spec.sampling.first
            for number, row in zip(result.iterations, result.rows, strict=True):
                if isinstance(row, Row):
                    self.found.update(row.left_out)
                    if scores:
                        self._compare(first + number, row.left_out)

    def report(
        self, net: Net, indexes: Mapping[str, Index | None], batch: int, iterations: Iterable[int]
    ) -> BadRecords:
        """The bad records among all that `iterations` read."""
        read = set(iterations)
        sizes = [i.n_records for n in data_nodes(net.graph) if n.type in _SKIPPING and (i := indexes[n.name])]
        n_records = sum(_n_read(read, batch, size) for size in sizes)
        return bad_records(self.found, n_records)

    def _compare(self, iteration: int, left_out: tuple[LeftOut, ...]) -> None:
        known = self.by_iteration.setdefault(iteration, left_out)
        if known != left_out:
            one = min(set(known) ^ set(left_out))
            raise DataError(
                f"layer '{one.layer}': {one.key} {one.reason} for one actor, and another read it; every machine must "
                f"see the same data, and nothing may write to it during a run with {FLAG}"
            )


def _n_read(iterations: set[int], batch: int, n_records: int) -> int:
    """How many of the records are read by any of `iterations`."""
    if len(iterations) * batch >= n_records and iterations == set(range(len(iterations))):
        return n_records
    return len({(i * batch + row) % n_records for i in iterations for row in range(batch)})


def refuse_unskippable(
    net: Net, data_shapes: Mapping[str, tuple[int, ...]], shapes: Mapping[Blob, tuple[int, ...]], batch: int
) -> None:
    """Raise OptionError or UnsupportedError where it is not known which part of a score is of which record.

    `data_shapes`: of the tops of the data layers; `shapes`: of every value.
    """
    odd = [
        f"'{node.name}' ({data_shapes[top][0]})"
        for node in data_nodes(net.graph)
        if node.type in _SKIPPING
        for top in node.layer.top[:1]
        if data_shapes[top][0] != batch
    ]
    if odd:
        raise OptionError(
            f"{net.name}: {FLAG}: the data layers have different batch sizes: {batch}, and of {', '.join(odd)}; give "
            "them one, or take bad records out of the data"
        )
    wrong = [blob for blob in _scored(net) if blob in shapes and not has_row_a_record(shapes[blob], batch)]
    if wrong:
        told = ", ".join(f"'{blob.name}' ({' x '.join(map(str, shapes[blob]))})" for blob in dict.fromkeys(wrong))
        raise UnsupportedError(
            f"{net.name}: {FLAG}: blob {told} has no row for each of the {batch} records of an iteration, so none can "
            "be left out of it; take bad records out of the data"
        )
    mixing = [] if batch == 1 else [f"'{node.name}' ({node.type})" for node in net.graph if mixes(node, shapes, batch)]
    if mixing:
        raise UnsupportedError(
            f"{net.name}: {FLAG}: layer {', '.join(mixing)} makes something of several records together, so the place "
            "of a bad one would change others; take bad records out of the data"
        )


def look_for_images(
    layers: Iterable[LayerParameter],
    net: Net,
    indexes: Mapping[str, Index | None],
    n_iterations: int,
    reporter: Reporter,
) -> Mapping[str, Mapping[int, str]]:
    """What actors take for missing, as find_missing has it; a look that takes long, as on a network drive, is shown."""
    begun = last_note = time.monotonic()

    def looked(n_done: int, n_total: int) -> None:
        nonlocal last_note
        now = time.monotonic()
        if now - last_note >= _LOOK_SECONDS:
            last_note = now
            reporter.note(f"looking for the images: {n_done:,} of {n_total:,} in {now - begun:.0f} s")

    return find_missing(layers, net.path, indexes, n_iterations, looked)


def _scored(net: Net) -> list[Blob]:
    """What scores are made of: what layers on the host read, priors aside, and all that the net hands out."""
    scored: list[Blob] = []
    for node in net.graph:
        if node.type in HOST_TYPES:
            scored += node.bottoms[:2] if node.type == "DetectionOutput" else node.bottoms
    ends = [blob for blob in net.graph.outputs if net.graph.producer[blob].type not in HOST_TYPES]
    return scored + ends
