"""What a calibration measures before it quantizes anything: ranges and the FP32 net."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.algorithms import MAX_HELD_BYTES, Chosen, choose
from distcalib.calibration.candidate_net import with_params
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.calibration.meter import Meter
from distcalib.calibration.results import Observed
from distcalib.engine.net import Net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import Kept, NetSpec, Outputs, Sampling
from distcalib.errors import EngineError, MeasureError, UnsupportedError, WeightsError
from distcalib.quantize.bias_correction import correctable, corrected
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.equalization import Equalized, equalize
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range, merge_ranges
from distcalib.quantize.scales import Calibration
from distcalib.quantize.thresholds import AUTO, DIRECT, NEED_VALUES
from distcalib.session.backend import rows
from distcalib.session.in_place import in_place_warnings
from distcalib.session.lengths import length_warnings
from distcalib.session.meaning import Rests
from distcalib.session.session import Session

Blobs = tuple[NDArray[np.float32], ...]
# Rows of ranges that the driver holds at the most: its memory does not grow with -s.
MAX_ROWS = 64
# Values that one program hands out for an algorithm that looks at all of them: more are observed in several passes.
MAX_TAP_BYTES = 512 * 2**20
# Iterations on which the equalized net is compared with the one given, and by what it may differ.
MAX_CHECKED, MAX_RELATIVE_ERROR = 10, 1e-4
UNEVEN = 8.0
"""Channels are of many sizes if equalization multiplies or divides one by at least this."""


def rests_of(session: Session, goal: Goal, fp32: Fp32Pass) -> Rests:
    """What the FP32 score rests on."""
    return Rests(session.net, goal.metric, fp32.values, session.inputs.shapes, session.inputs.indexes)


def verdict_warnings(session: Session, goal: Goal, fp32: Fp32Pass | None, price: Sequence[str]) -> tuple[str, ...]:
    """What makes a verdict worth less than it seems, the `price` of its FP32 layers among it; nothing of a net that was
    not measured.
    """
    if fp32 is None:
        return ()
    options = goal.options
    # The flag lets such a net pass; its score is still not that of the file in Caffe.
    overwritten = in_place_warnings(session.net) if options.root is None else []
    return (
        *overwritten,
        *rests_of(session, goal, fp32).warnings(fp32.score, options.accuracy_loss),
        *price,
        *length_warnings(session.inputs.lengths, options.n_scored, session.net.name),
    )


@dataclass(frozen=True)
class Observing:
    """Observes the net `base` on the actors of its session."""

    session: Session
    meter: Meter
    base: Net
    goal: Goal

    def observe(self, quantizer: Quantizer) -> Observed:
        """The FP32 pass and, over the first `-s` iterations, the ranges of what the scales are made from."""
        taps, options, weights = quantizer.observed, self.goal.options, self.session.inputs.weights
        if not taps:
            self.session.reporter.note("no layer can run INT8; `distcalib inspect` tells why")
        equalized = equalize(quantizer.graph, quantizer.groups, weights) if options.equalize else None
        versions: list[Mapping[str, Blobs]] = [{}] if equalized is None else [{}, equalized.blobs]
        phase = "ranges" if options.quantize_model else "FP32 and ranges"
        found, fp32 = self._passes(phase, taps, versions, scored=not options.quantize_model)
        calibration, chosen = self._choose(Calibration(quantizer, found[0], weights))
        pairs: Mapping[str, str] = {}
        without: dict[str, Calibration] = {}
        if equalized is not None:
            without["--equalize"], pairs = calibration, equalized.pairs
            self._check_equalized(equalized, fp32)
            weights = {**weights, **equalized.blobs}
            calibration, chosen = self._choose(Calibration(quantizer, found[1], weights, equalized=equalized.blobs))
        if options.bias_correction:
            without["--bias-correction"] = calibration
            calibration = self._correct(calibration)
        return Observed(calibration, fp32, chosen, pairs, without)

    def recovered(self, observed: Observed, is_far: bool) -> Iterator[tuple[str, Observed]]:
        """`observed` with weights that fit INT8 better, and what was done: corrected biases; scaled channels too, which
        come first if all INT8 `is_far` from what is tolerated and channels are of many sizes.

        What cannot be done is left out with a note.
        """
        equalized = cache(partial(_equalized, observed))  # not before it is needed: it takes seconds of a large net
        steps: list[tuple[str, Callable[[], Observed | None]]] = [
            ("corrected biases", lambda: self._with_biases(observed)),
            ("scaled channels and corrected biases", lambda: self._with_channels(observed, equalized())),
        ]
        for name, make in reversed(steps) if is_far and _is_uneven(equalized) else steps:
            try:
                recovered = make()
            except (EngineError, MeasureError, UnsupportedError, WeightsError) as error:
                said = str(error)
                self.session.reporter.note(f"{name} cannot be made: {said.rpartition('; ')[0] or said}")
                continue
            if recovered is not None:
                yield name, recovered

    def _with_biases(self, observed: Observed) -> Observed | None:
        given = observed.calibration
        corrected = self._correct(given)
        if corrected is given:
            return None
        return replace(observed, calibration=corrected, without={"--bias-correction": given})

    def _with_channels(self, observed: Observed, equalized: Equalized) -> Observed | None:
        given, chosen = observed.calibration, observed.chosen
        quantizer, weights = given.quantizer, given.weights
        self._check_equalized(equalized, observed.fp32)
        if not equalized.pairs:
            return None
        [ranges], _ = self._passes("ranges, equalized", quantizer.observed, [equalized.blobs], scored=False)
        blobs = {**weights, **equalized.blobs}
        scaled = Calibration(quantizer, ranges, blobs, choice=given.choice, equalized=equalized.blobs)
        if chosen is not None and set(chosen.algorithms.values()) != {DIRECT}:  # which was kept by score, maybe
            scaled, chosen = self._choose(scaled)
        without = {"--equalize": given, "--bias-correction": scaled}
        return Observed(self._correct(scaled), observed.fp32, chosen, equalized.pairs, without)

    def _passes(
        self, phase: str, taps: Sequence[Blob], versions: Sequence[Mapping[str, Blobs]], scored: bool
    ) -> tuple[list[dict[Blob, Range]], Fp32Pass | None]:
        """The ranges of `taps` in the FP32 net with the blobs of each of `versions`; and if it is to be `scored`, the
        scores of the net as given."""
        samplings, options, goal = self._samplings(taps), self.goal.options, self.goal
        work = [(self.base.spec(part, blobs), part.n_rows) for blobs in versions for part in samplings]
        n_parts = len(work)
        if scored:
            kept = Kept(score_inputs(self.base, goal.metric), goal.ranked)
            by_image = "" if goal.natural else goal.metric
            work.append((self.base.spec(kept=kept, by_image=by_image), options.n_scored))
        results = self.measure(phase, work) if work else []
        ranges: list[dict[Blob, Range]] = [{} for _ in versions]
        for place, result in enumerate(results[:n_parts]):
            observed = samplings[place % len(samplings)].taps
            ends = merge_ranges(observed, [row.ranges for row in rows(result)])
            ranges[place // len(samplings)].update(ends)
        return ranges, self._fp32(results[-1]) if scored else None

    def _fp32(self, result: JobResult) -> Fp32Pass:
        """What the FP32 pass says; refused if it says nothing."""
        fp32 = Fp32Pass.of(result, self.goal, self.session.batch, self.base.name)
        self.meter.count_unavoidable(fp32.seconds)
        self.meter.note(fp32.told(self.goal))
        rests_of(self.session, self.goal, fp32).refuse_nothing()
        return fp32

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many rows, and count what it costs."""
        return self.meter.run(phase, self.session.jobs(phase, work))

    def _check_equalized(self, equalized: Equalized, fp32: Fp32Pass | None) -> None:
        """Raise EngineError if the equalized net is not the one given, in FP32 on iterations whose values the FP32 pass
        has kept, or on sampled ones."""
        self.session.reporter.note(f"equalization: {len(equalized.pairs)} pairs of layers")
        if not equalized.pairs:
            return
        blobs = score_inputs(self.base, self.goal.metric)
        n_bytes = 2 * self.session.batch * self.session.inputs.image_bytes(blobs)
        kept = {} if fp32 is None else fp32.kept
        order = (sorted(kept) or self._sampled)[: max(1, min(MAX_CHECKED, MAX_HELD_BYTES // max(n_bytes, 1)))]
        phase, versions = "equalized in FP32", [equalized.blobs] if kept else [equalized.blobs, {}]
        specs = [self.base.spec(changed=changed, outputs=Outputs(blobs)) for changed in versions]
        jobs = [Job(f"{phase}/{i}", spec, len(order), phase, order=tuple(order)) for i, spec in enumerate(specs)]
        found = [[row.values for row in rows(result)] for result in self.meter.run(phase, jobs)]
        before = [kept[i] for i in order] if kept else found[1]
        for blob in blobs:
            size = max(float(np.abs(values[blob]).max()) for values in before)
            off = max(float(np.abs(a[blob] - b[blob]).max()) for a, b in zip(before, found[0], strict=True))
            if not off <= MAX_RELATIVE_ERROR * size:
                raise EngineError(
                    f"{self.base.name}: --equalize: blob '{blob.name}' of the FP32 net would change by {off:.3g} (of "
                    f"{size:.3g}); leave out --equalize"
                )

    def _correct(self, calibration: Calibration) -> Calibration:
        """`calibration` with the biases that take out the mean error of each INT8 layer on the sampled iterations.

        A layer's error is that of the all-INT8 net's parameters, whatever other layers fall back later.
        """
        quantizer, start = calibration.quantizer, calibration.quantizer.space.all_int8
        groups = {name: quantizer.groups[name] for name in start.int8_layers}
        names = correctable(quantizer.graph, groups)
        if not names:
            return calibration
        taps = tuple(groups[name].node.tops[0] for name in names)
        sampled = self._sampled
        sampling = Sampling(taps, True, sampled.start, sampled.stop, self._block, errors=True)
        net = with_params(self.base, calibration.params(start))
        [result] = self.measure("mean errors", [(net.spec(sampling, calibration.equalized), sampling.n_rows)])
        batch = self.session.batch
        # In iterations; one that records were left out of counts as the part of one that it is.
        sizes = [n - row.n_missing / batch for row, n in zip(rows(result), sampling.row_sizes, strict=True)]
        sized = list(zip(rows(result), sizes, strict=True))
        errors = {
            name: np.asarray(sum(row.values[tap].astype(np.float64) * size for row, size in sized)) / sum(sizes)
            for name, tap in zip(names, taps, strict=True)
        }
        wrong = [name for name in names if not np.isfinite(errors[name]).all()]
        if wrong:
            raise EngineError(
                f"{self.base.name}: layer '{wrong[0]}': its INT8 error is not finite on the sampled iterations; leave "
                "out --bias-correction"
            )
        biases = {name: corrected(groups[name], calibration.weights, errors[name]) for name in names}
        self.session.reporter.note(f"bias correction: {len(names)} layers")
        return replace(calibration, corrected=biases)

    def _choose(self, calibration: Calibration) -> tuple[Calibration, Chosen | None]:
        """`calibration` with the algorithm that was asked for, or with `-a auto` with those of least error."""
        if self.goal.options.calibration_algos != AUTO:
            return replace(calibration, choice=Choice(self.goal.options.calibration_algos)), None
        chosen = choose(self.base, calibration, self.goal.metric, self._sampled, self.measure)
        self.session.reporter.note(str(chosen))
        return replace(calibration, choice=chosen.choice), chosen

    @property
    def _sampled(self) -> range:
        """The iterations that ranges are taken from."""
        return self.goal.options.sampled

    @property
    def _block(self) -> int:
        """Iterations a row."""
        return -(-len(self._sampled) // MAX_ROWS)

    def _samplings(self, taps: Sequence[Blob]) -> list[Sampling]:
        """How the values are observed: all at once where their ends are enough, else as many as fit into memory."""
        sampled = self._sampled
        first, end, block = sampled.start, sampled.stop, self._block
        options = self.goal.options
        sound = options.quantize_model or options.root is not None  # no FP32 pass of the embedded engine looks
        if options.calibration_algos not in NEED_VALUES:
            return [Sampling(tuple(taps), False, first, end, block, sound=sound)] if taps else []
        parts = self.session.inputs.in_parts(taps, MAX_TAP_BYTES)
        return [Sampling(part, True, first, end, block, sound=sound and not i) for i, part in enumerate(parts)]


def _equalized(observed: Observed) -> Equalized:
    quantizer, weights = observed.calibration.quantizer, observed.calibration.weights
    return equalize(quantizer.graph, quantizer.groups, weights)


def _is_uneven(equalized: Callable[[], Equalized]) -> bool:
    """Whether channels are of many sizes; not, where they cannot be scaled at all."""
    try:
        return equalized().largest >= UNEVEN
    except (UnsupportedError, WeightsError):  # told when it is their turn
        return False
