"""What a calibration measures before it quantizes anything: ranges and the FP32 net."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial, reduce

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.algorithms import MAX_HELD_BYTES, Chosen, choose
from distcalib.calibration.correction import correct
from distcalib.calibration.first_pass import FirstPass
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.calibration.meter import Meter
from distcalib.calibration.results import Observed
from distcalib.engine.net import Net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec, Outputs, Row, Sampling
from distcalib.errors import EngineError, MeasureError, UnsupportedError, WeightsError
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.equalization import Equalized, between_pairs, equalize
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range, merge_ranges, merged_ends, scaled_ends
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
class Sampled:
    """What was observed of values: their ranges, and of some the ends of each channel, (C, 2)."""

    ranges: Mapping[Blob, Range] = field(default_factory=dict)
    ends: Mapping[Blob, NDArray[np.float32]] = field(default_factory=dict)

    def with_rows(self, part: Sampling, made: Sequence[Row]) -> "Sampled":
        """And what the rows of `part` show."""
        merged = merge_ranges(part.taps, [row.ranges for row in made])
        ends = {tap: reduce(merged_ends, [row.values[tap] for row in made]) for tap in part.by_channel}
        return Sampled({**self.ranges, **merged}, {**self.ends, **ends})

    def scaled(self, equalized: Equalized) -> Mapping[Blob, Range]:
        """The ranges in the equalized net: its factors are powers of two, so that they are what a pass would find."""
        there = equalized.factors.keys() & self.ranges.keys()
        return {**self.ranges, **{blob: scaled_ends(self.ends[blob], equalized.factors[blob]) for blob in there}}


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
        by_channel = self._by_channel(quantizer)
        versions: list[Mapping[str, Blobs]] = [{}]
        if equalized is not None and not by_channel:
            versions.append(equalized.blobs)
        phase = "ranges" if options.quantize_model else "FP32 and ranges"
        found, fp32 = self._passes(phase, taps, versions, by_channel, scored=not options.quantize_model)
        calibration, chosen = self._choose(Calibration(quantizer, found[0].ranges, weights))
        pairs: Mapping[str, str] = {}
        without: dict[str, Calibration] = {}
        if equalized is not None:
            without["--equalize"], pairs = calibration, equalized.pairs
            self._check_equalized(equalized, fp32)
            weights = {**weights, **equalized.blobs}
            ranges = found[0].scaled(equalized) if by_channel else found[1].ranges
            calibration, chosen = self._choose(Calibration(quantizer, ranges, weights, equalized=equalized.blobs))
        if options.bias_correction:
            without["--bias-correction"] = calibration
            calibration = correct(self.meter, self.base, self.goal, calibration)
        return Observed(calibration, fp32, chosen, pairs, without, found[0].ends)

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
        corrected = correct(self.meter, self.base, self.goal, given)
        if corrected is given:
            return None
        return replace(observed, calibration=corrected, without={"--bias-correction": given})

    def _with_channels(self, observed: Observed, equalized: Equalized) -> Observed | None:
        given, chosen = observed.calibration, observed.chosen
        quantizer, weights = given.quantizer, given.weights
        self._check_equalized(equalized, observed.fp32)
        if not equalized.pairs:
            return None
        if observed.ends:
            ranges = Sampled(given.ranges, observed.ends).scaled(equalized)
        else:
            [found], _ = self._passes("ranges, equalized", quantizer.observed, [equalized.blobs], scored=False)
            ranges = found.ranges
        blobs = {**weights, **equalized.blobs}
        scaled = Calibration(quantizer, ranges, blobs, choice=given.choice, equalized=equalized.blobs)
        if chosen is not None and set(chosen.algorithms.values()) != {DIRECT}:  # which was kept by score, maybe
            scaled, chosen = self._choose(scaled)
        without = {"--equalize": given, "--bias-correction": scaled}
        return Observed(
            correct(self.meter, self.base, self.goal, scaled), observed.fp32, chosen, equalized.pairs, without
        )

    def _by_channel(self, quantizer: Quantizer) -> tuple[Blob, ...]:
        """The values whose channels may be scaled, where no more than the ends of channels is asked of them then."""
        options = self.goal.options
        if options.calibration_algos != DIRECT or not (options.equalize or options.may_recover):
            return ()
        between = between_pairs(quantizer.graph, quantizer.groups)
        return tuple(blob for blob in quantizer.observed if blob in between)

    def _passes(
        self,
        phase: str,
        taps: Sequence[Blob],
        versions: Sequence[Mapping[str, Blobs]],
        by_channel: tuple[Blob, ...] = (),
        *,
        scored: bool,
    ) -> tuple[list[Sampled], Fp32Pass | None]:
        """What is observed of `taps` in the FP32 net with the blobs of each of `versions`, of those in `by_channel`
        each channel; and if it is to be `scored`, the scores of the net as given."""
        samplings = self._samplings(taps, by_channel)
        first = FirstPass(self.session, self.base, self.goal)
        if scored and len(versions) == 1:
            first = first.sharing(samplings)
        pairs = [(blobs, part) for blobs in versions for part in samplings]
        work = [(self.base.spec(part, blobs) if blobs else first.observing(part), part.n_rows) for blobs, part in pairs]
        jobs = self.session.jobs(phase, work)
        if scored:
            jobs.append(first.job(f"{phase}/{len(jobs)}", phase))
        results = self.meter.run(phase, jobs) if jobs else []
        sampled: list[Sampled] = [Sampled() for _ in versions]
        for place, ((_, part), result) in enumerate(zip(pairs, results, strict=False)):
            sampled[place // len(samplings)] = sampled[place // len(samplings)].with_rows(part, rows(result))
        return sampled, self._fp32(first, phase, jobs, results) if scored else None

    def _fp32(self, first: FirstPass, phase: str, jobs: Sequence[Job], results: Sequence[JobResult]) -> Fp32Pass:
        """What the FP32 pass says, which is the last of `jobs`; refused if it says nothing."""
        plain = [(jobs[-1], results[-1])]
        rest = first.rest(f"{phase}/{len(jobs)}", phase, plain[0], results[0])
        if rest is not None:
            [result] = self.meter.run(phase, [rest])
            plain.append((rest, result))
        fp32 = first.scored(plain, results[0])
        self.meter.count_fp32(fp32.seconds)
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

    def _samplings(self, taps: Sequence[Blob], by_channel: tuple[Blob, ...]) -> list[Sampling]:
        """How the values are observed: all at once where their ends are enough, else as many as fit into memory."""
        sampled = self._sampled
        first, end, block = sampled.start, sampled.stop, self._block
        options = self.goal.options
        sound = options.quantize_model or options.root is not None  # no FP32 pass of the embedded engine looks
        if options.calibration_algos not in NEED_VALUES:
            whole = Sampling(tuple(taps), False, first, end, block, by_channel=by_channel, sound=sound)
            return [whole] if taps else []
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
