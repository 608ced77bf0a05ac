"""A program that an actor has loaded, and the rows that it makes of batches: scores, ranges, errors or values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import LeftOut
from distcalib.engine.batch import Batch
from distcalib.engine.program import ElsewhereProgram, Header, Program
from distcalib.engine.soundness import Soundness, is_fp32, is_small, unsound
from distcalib.engine.spec import NetSpec, Outputs, Row, Sampling
from distcalib.errors import DataError, EngineError, UnsupportedError
from distcalib.metrics import SCORE_TYPES, ByImage, Partial, PartialScore, by_image, make_layer, score_layer
from distcalib.quantize.ranges import Range, merged_ends, observe, observe_ends

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """Looks at all of an FP32 net where what is watched of it does not prove that it makes numbers."""

    make: Callable[[], Soundness]

    @cached_property
    def _soundness(self) -> Soundness:
        return self.make()

    def refuse(self, header: Header, batch: Batch, sums: Array) -> None:
        """Raise EngineError if a layer makes NaN or infinity of the batch."""
        if not (header.is_proven and is_small({name: batch.tops[name] for name in header.inputs}, sums)):
            self._soundness.refuse(batch.tops, batch.first // max(1, batch.size))


@dataclass(frozen=True)
class Loaded:
    """A program with what of its net runs outside of it, on the host, and how its rows are made."""

    program: Program | ElsewhereProgram
    graph: Graph
    on_host: Sequence[Node]
    files: Mapping[str, bytes]
    sound: Sound | None = None
    named: Callable[[Blob, int], str] | None = None
    """Where the record of a number is found that a value is of."""

    @property
    def takes_images(self) -> bool:
        """Whether the program begins with images, not with what the data layers make of them."""
        return isinstance(self.program, ElsewhereProgram) and self.program.takes_images

    def score(self, batch: Batch, kept: Sequence[Blob], sampling: Sampling | None = None) -> Row:
        """The partial scores of one iteration, the values that come along, and what is observed of it."""
        values, ends = self._values(batch)
        self._refuse_unsound(values, batch)
        ranges, channels = ((), {}) if sampling is None or ends is None else self._split(ends, sampling)
        scores: dict[str, PartialScore] = {}
        of_images: ByImage | None = None
        for node in self.on_host:
            bottoms = [values[blob] for blob in node.bottoms]
            if node.type in SCORE_TYPES:
                score = self._scored(node, bottoms, batch)
                scores[node.tops[0].name] = score
                values[node.tops[0]] = np.array(score.value if isinstance(score, Partial) else 0.0)
                if node.tops[0].name == self.program.header.spec.by_image:
                    of_images = by_image(node.layer, bottoms, batch.good)
            else:
                values[node.tops[0]] = make_layer(node.layer, bottoms)
        for blob in self.graph.outputs:
            if self.graph.producer[blob].type not in SCORE_TYPES:
                scores[blob.name] = _mean_of(values[blob], len(batch.good))
        along = {blob: values[blob] for blob in kept} | channels
        named = {name: scores[name] for name in sorted(scores)}
        kernels = self.program.header.int8_kernels
        return Row(named, ranges, kernels, along, left_out=batch.left_out, by_image=of_images)

    def _refuse_unsound(self, values: Mapping[Blob, Array], batch: Batch) -> None:
        """Raise EngineError where the FP32 net has handed out what is no number; INT8 that does loses everything."""
        if not is_fp32(self.graph):
            return
        for blob, array in values.items():
            if not np.isfinite(array).all():
                number = batch.first // max(1, batch.size)
                raise EngineError(unsound(self.program.header.spec.where, self.graph.producer[blob], number))

    def _scored(self, node: Node, bottoms: Sequence[Array], batch: Batch) -> PartialScore:
        """What a layer scores; a DataError, such as of a label that is not a class, names the record that it is of."""
        try:
            return score_layer(node.layer, bottoms, batch.records, batch.size, self.files)
        except DataError as error:
            for row, record in enumerate(batch.records):
                try:
                    score_layer(node.layer, [values[row : row + 1] for values in bottoms], [record], 1, self.files)
                except DataError:
                    first = self.named(node.bottoms[-1], record) if self.named else f"record {record}"
                    raise DataError(f"{self.program.header.spec.where}: {error} (the first: {first})") from error
                except UnsupportedError:
                    break
            raise

    def hand_out(self, outputs: Outputs, batch: Batch) -> Row:
        """The values of one iteration that were asked for."""
        values, _ = self._values(batch)
        asked = {blob: values[blob] for blob in outputs.blobs}
        return Row({}, (), self.program.header.int8_kernels, asked, left_out=batch.left_out)

    def _values(self, batch: Batch) -> tuple[dict[Blob, Array], Array | None]:
        """What the data layers and the program make of the records of one iteration, and the ends of the taps."""
        outputs, ends = self._run(batch)
        tops = {Blob(name, 0): batch.kept(array, name) for name, array in batch.tops.items()}
        rows = {blob for blob in outputs if self.graph.producer[blob].type == "DetectionOutput"}
        made = {b: batch.kept_boxes(array) if b in rows else batch.kept(array) for b, array in outputs.items()}
        return {**tops, **made}, ends

    def _run(self, batch: Batch) -> tuple[dict[Blob, Array], Array | None]:
        """The program's outputs and ranges; raises EngineError where the FP32 net makes what is no number."""
        if isinstance(self.program, ElsewhereProgram):
            return self.program.run(batch.tops, batch.images)
        outputs, ends, sums = self.program.run_watched(batch.tops)
        if self.sound is not None:
            self.sound.refuse(self.program.header, batch, sums)
        return outputs, ends

    def observe(self, sampling: Sampling, batches: Iterable[Batch]) -> Row:
        """The merged ranges of the taps over a block of iterations."""
        parts: list[Sequence[Range]] = []
        left_out: list[LeftOut] = []
        channels: dict[Blob, Array] = {}
        for batch in batches:
            outputs, ends = self._run(batch)
            left_out += batch.left_out
            if ends is not None:  # a copy of a record is within its range
                ranges, found = self._split(ends, sampling)
                channels = {tap: merged_ends(one, channels.get(tap)) for tap, one in found.items()}
            else:
                ranges = tuple(observe(batch.kept(outputs[tap])) for tap in sampling.taps)
            parts = [[a + b for a, b in zip(parts[0], ranges, strict=True)]] if parts else [ranges]
        return Row({}, tuple(parts[0]), self.program.header.int8_kernels, channels, left_out=tuple(left_out))

    def _split(self, ends: Array, sampling: Sampling) -> tuple[tuple[Range, ...], dict[Blob, Array]]:
        """The range of each tap, and the ends by channel of those that are observed so."""
        by_tap = np.split(ends, np.cumsum(self.program.header.tap_sizes)[:-1])
        ranges = tuple(observe_ends(float(one[:, 0].min()), float(one[:, 1].max())) for one in by_tap)
        named = zip(sampling.taps, by_tap, strict=True)
        return ranges, {tap: one for tap, one in named if tap in sampling.by_channel}

    def observe_errors(self, sampling: Sampling, batches: Iterable[Batch]) -> Row:
        """The mean error (M,) of each tap over the records of a block of iterations; sums are f64."""
        sums: dict[Blob, NDArray[np.float64]] = {}
        left_out: list[LeftOut] = []
        count, n_missing = 0.0, 0
        for batch in batches:
            outputs, _ = self.program.run(batch.tops)
            share = len(batch.good) / batch.size
            iteration_means = {
                tap: batch.kept(outputs[tap]).mean(axis=0, dtype=np.float64) * share for tap in sampling.taps
            }
            sums = {tap: sums[tap] + mean if sums else mean for tap, mean in iteration_means.items()}
            left_out += batch.left_out
            count += share
            n_missing += len(batch.bad)
        means = {tap: (total / count).astype(np.float32) for tap, total in sums.items()}
        return Row({}, (), self.program.header.int8_kernels, means, left_out=tuple(left_out), n_missing=n_missing)


def _mean_of(values: Array, n_records: int) -> Partial:
    return Partial(float(np.sum(values, dtype=np.float64)), int(values.size), n_records)


def kept_of(spec: NetSpec, iteration: int) -> Sequence[Blob]:
    """The values that come along with the scores of an iteration."""
    return spec.kept.blobs if spec.kept is not None and iteration in spec.kept.iterations else ()
