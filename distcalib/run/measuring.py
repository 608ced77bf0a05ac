"""What a calibration measures on its actors: ranges, the FP32 net, and the candidates that a strategy asks for."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.engine.spec import Kept, NetSpec, Outputs, Row, Sampling
from distcalib.errors import EngineError
from distcalib.measure import Enough, Job, JobResult
from distcalib.metrics import Partial, mean
from distcalib.quantize.bias_correction import correctable, corrected
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.choice import Choice
from distcalib.quantize.equalization import Equalized, equalize
from distcalib.quantize.ranges import Range, merge_ranges
from distcalib.quantize.scales import Calibration, Quantizer
from distcalib.quantize.thresholds import AUTO, NEED_VALUES
from distcalib.report import score_name
from distcalib.run.build import flat
from distcalib.run.choosing import Chosen, choose, score_inputs
from distcalib.run.deliverable import with_params
from distcalib.run.evaluation import rate
from distcalib.run.net import Net
from distcalib.run.options import CalibrationOptions
from distcalib.run.session import Session, rows
from distcalib.search import Measurement, Verdict

# Rows of ranges that the driver holds at the most: its memory does not grow with -s.
MAX_ROWS = 64
# Images that a ranking looks at, in at least two iterations: 200 of 10,000 rank resnet20 as 1,000 do.
RANKED_IMAGES = 200
# Values that one program hands out for an algorithm that looks at all of them: more are observed in several passes.
MAX_TAP_BYTES = 512 * 2**20
# Iterations on which the equalized net is compared with the one given, and by what it may differ.
MAX_CHECKED, MAX_RELATIVE_ERROR = 10, 1e-4


@dataclass
class Cost:
    """Actor-seconds of the run."""

    total: float = 0.0
    unavoidable: float = 0.0
    """Those of one FP32 and one all-INT8 pass."""

    @property
    def passes(self) -> float | None:
        """The total in units of the unavoidable."""
        return self.total / self.unavoidable if self.unavoidable else None

    def add(self, results: Sequence[JobResult]) -> None:
        """Count what `results` took."""
        self.total += sum(r.run_seconds + r.compile_seconds + r.load_seconds for r in results)


def ranked_iterations(n_iterations: int, batch: int) -> tuple[int, ...]:
    """The iterations that a ranking looks at, spread evenly over the data, which may be sorted by class."""
    n = min(n_iterations, max(2, math.ceil(RANKED_IMAGES / batch)))
    return tuple(i * n_iterations // n for i in range(n))


@dataclass(kw_only=True)
class Results:
    """The measurements of one run, by candidate."""

    fp32_score: float | None = None
    fp32_values: Sequence[Partial] = ()
    """By iteration."""
    fp32_kept: Mapping[int, Mapping[Blob, NDArray[np.float32]]] = field(default_factory=dict)
    """By iteration, of those that a ranking looks at: what the score is made of."""
    answered: dict[Candidate, Measurement | Verdict] = field(default_factory=dict)
    """What the strategy was told, in its order: the winner follows from it."""
    failed: dict[Candidate, str] = field(default_factory=dict)
    """Candidates that could not be run, with the reason."""
    stopped_by: str | None = None
    """The flag that ended the search before its time."""
    without_int8_kernel: dict[Candidate, tuple[str, ...]] = field(default_factory=dict)
    images_per_second: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    chosen: Chosen | None = None
    """What `-a auto` chose."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """The layers that --equalize scaled, each with the one that reads it."""
    given: Calibration | None = None
    """With the weights given, in place of those that --equalize and --bias-correction made."""

    def measured(self, candidate: Candidate) -> Measurement | None:
        """The score of a candidate that was measured over all iterations."""
        said = self.answered.get(candidate)
        return said if isinstance(said, Measurement) else None

    def loses_too_much(self, candidate: Candidate, tolerance: float) -> bool:
        """Whether it is known that the candidate does not meet the tolerance."""
        said = self.answered.get(candidate)
        return not said.meets if isinstance(said, Verdict) else said is not None and said.drop > tolerance

    def is_minimal(self, winner: Candidate, tolerance: float) -> bool:
        """Whether it was checked that none of the FP32 layers of a winner that meets the tolerance can be INT8."""
        measured = self.measured(winner)
        met = measured is not None and measured.drop <= tolerance
        return met and all(self.loses_too_much(candidate, tolerance) for candidate in winner.returns.values())


@dataclass
class Measuring(Results):
    """Measures on the actors of a session."""

    session: Session
    base: Net
    metric: str
    lower_is_better: bool
    options: CalibrationOptions

    def observe(self, quantizer: Quantizer) -> Calibration:
        """The FP32 pass and, over the first `-s` iterations, the ranges of what the scales are made from."""
        taps = quantizer.observed
        if not taps:
            self.session.reporter.note("no layer can run INT8; `distcalib inspect` tells why")
        equalized = equalize(quantizer.graph, quantizer.groups, self.session.weights) if self.options.equalize else None
        versions = [{}] if equalized is None else [{}, equalized.blobs]
        samplings = self._samplings(taps)
        work = [(self.base.spec(part, blobs), part.n_rows) for blobs in versions for part in samplings]
        n_parts = len(work)
        if not self.options.quantize_model:
            work.append((self.base.spec(kept=self.kept), self.options.iterations))
        results = self.measure("ranges" if self.options.quantize_model else "FP32 and ranges", work) if work else []
        found: list[dict[Blob, Range]] = [{} for _ in versions]
        for place, result in enumerate(results[:n_parts]):
            observed = samplings[place % len(samplings)].taps
            ends = merge_ranges(observed, [row.ranges for row in rows(result)])
            found[place // len(samplings)].update(ends)
        if not self.options.quantize_model:
            self.fp32_values = [row.scores[self.metric] for row in rows(results[-1])]
            self.fp32_score = mean(self.fp32_values)
            kept = {i: row.values for i, row in enumerate(rows(results[-1])) if row.values}
            self.fp32_kept = kept
            self.cost.unavoidable += results[-1].run_seconds
            if not math.isfinite(self.fp32_score):
                raise EngineError(
                    f"{self.base.name}: '{self.metric}' is {self.fp32_score} in FP32 already; "
                    "correct the weights or the data, `distcalib evaluate` shows all scores"
                )
            self.session.reporter.note(f"FP32: {score_name(self.metric, self.lower_is_better)} = {self.fp32_score:.6g}")
        weights = self.session.weights
        self.given = calibration = self._choose(Calibration(quantizer, found[0], weights))
        if equalized is not None:
            self._check_equalized(equalized)
            weights = {**weights, **equalized.blobs}
            calibration = self._choose(Calibration(quantizer, found[1], weights, equalized=equalized.blobs))
        return self._correct(calibration) if self.options.bias_correction else calibration

    def _check_equalized(self, equalized: Equalized) -> None:
        """Raise EngineError if the equalized net is not the one given, in FP32 on the sampled iterations."""
        self.pairs = equalized.pairs
        self.session.reporter.note(f"equalization: {len(equalized.pairs)} pairs of layers")
        if not equalized.pairs:
            return
        outputs = Outputs(score_inputs(self.base, self.metric), self._sampled.start)
        n = min(len(self._sampled), MAX_CHECKED)
        specs = [self.base.spec(changed=blobs, outputs=outputs) for blobs in ({}, equalized.blobs)]
        before, after = (rows(result) for result in self.measure("equalized in FP32", [(spec, n) for spec in specs]))
        for blob in outputs.blobs:
            size = max(float(np.abs(row.values[blob]).max()) for row in before)
            off = max(float(np.abs(a.values[blob] - b.values[blob]).max()) for a, b in zip(before, after, strict=True))
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
        block = -(-len(sampled) // MAX_ROWS)
        sampling = Sampling(taps, True, sampled.start, sampled.stop, block, errors=True)
        net = with_params(self.base, calibration.params(start))
        [result] = self.measure("mean errors", [(net.spec(sampling, calibration.equalized), sampling.n_rows)])
        found = list(zip(rows(result), sampling.row_sizes, strict=True))
        errors = {
            name: np.asarray(sum(row.values[tap].astype(np.float64) * size for row, size in found)) / len(sampled)
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

    def _choose(self, calibration: Calibration) -> Calibration:
        """`calibration` with the algorithm that was asked for, or with `-a auto` with those of least error."""
        if self.options.calibration_algos != AUTO:
            return replace(calibration, choice=Choice(self.options.calibration_algos))
        sampled = self._sampled
        self.chosen = choose(self.base, calibration, self.metric, sampled, self.measure)
        self.session.reporter.note(str(self.chosen))
        return replace(calibration, choice=self.chosen.choice)

    @property
    def _sampled(self) -> range:
        """The iterations that ranges are taken from."""
        end = self.options.sampling_iterations
        return range(end - 1 if self.options.sampling_single else 0, end)

    def _samplings(self, taps: Sequence[Blob]) -> list[Sampling]:
        """How the values are observed: all at once where their ends are enough, else as many as fit into memory."""
        sampled = self._sampled
        first, end, block = sampled.start, sampled.stop, -(-len(sampled) // MAX_ROWS)
        if self.options.calibration_algos not in NEED_VALUES:
            return [Sampling(tuple(taps), False, first, end, block)] if taps else []
        parts = self.session.in_parts(taps, MAX_TAP_BYTES)
        return [Sampling(part, True, first, end, block) for part in parts]

    @cached_property
    def kept(self) -> Kept:
        """What a ranking compares with FP32, and on which iterations."""
        iterations = ranked_iterations(self.options.iterations, self.session.batch)
        return Kept(score_inputs(self.base, self.metric), iterations)

    def partials(self, found: Mapping[int, object]) -> dict[int, Partial]:
        """What rows say of the score, by iteration."""
        return {i: row.scores[self.metric] for i, row in found.items() if isinstance(row, Row)}

    def measure(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        """Run each program for so many rows, and count what it costs."""
        results = self.timed(phase, self.session.jobs(phase, work))
        return [replace(result, rows=flat(result)) for result in results]

    def timed(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs, and count what they cost."""
        begin = time.perf_counter()
        results = self.session.run(phase, jobs, enough)
        self.cost.add(results)
        if len(results) == 1 and results[0].rows and enough is None:
            self.images_per_second[phase] = rate(results[0], self.session, time.perf_counter() - begin)
        return results
