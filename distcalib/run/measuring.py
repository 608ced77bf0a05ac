"""What a calibration measures on its actors: ranges, the FP32 net, and the candidates that a strategy asks for."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from distcalib.caffe.graph import Blob
from distcalib.engine.spec import NetSpec, Sampling
from distcalib.errors import EngineError
from distcalib.measure import JobResult
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.choice import Choice
from distcalib.quantize.ranges import Range, merge_ranges
from distcalib.quantize.scales import Calibration, Quantizer
from distcalib.quantize.thresholds import AUTO, NEED_VALUES
from distcalib.report import drop_text, score_name
from distcalib.run.choosing import Chosen, choose
from distcalib.run.deliverable import deliver
from distcalib.run.evaluation import rate, running_int8, scores, without_kernel
from distcalib.run.net import Net
from distcalib.run.options import CalibrationOptions
from distcalib.run.session import Session, rows
from distcalib.search import Measurement, make_strategy

# Rows of ranges that the driver holds at the most: its memory does not grow with -s.
MAX_ROWS = 64
# Values that one program hands out for an algorithm that looks at all of them: more are observed in several passes.
MAX_TAP_BYTES = 512 * 2**20


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


@dataclass(kw_only=True)
class Results:
    """The measurements of one run, by candidate."""

    fp32_score: float | None = None
    n_rounds: int = 0
    measured: dict[Candidate, Measurement] = field(default_factory=dict)
    without_int8_kernel: dict[Candidate, tuple[str, ...]] = field(default_factory=dict)
    images_per_second: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    chosen: Chosen | None = None
    """What `-a auto` chose."""


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
        work = [(self.base.spec(part), part.n_rows) for part in self._samplings(taps)]
        n_parts = len(work)
        if not self.options.quantize_model:
            work.append((self.base.spec(), self.options.iterations))
        results = self._timed("ranges" if self.options.quantize_model else "FP32 and ranges", work) if work else []
        ranges: dict[Blob, Range] = {}
        for (spec, _), result in zip(work[:n_parts], results, strict=False):
            observed = spec.sampling.taps if spec.sampling is not None else ()
            ranges.update(merge_ranges(observed, [row.ranges for row in rows(result)]))
        if not self.options.quantize_model:
            self.fp32_score = scores(rows(results[-1]))[self.metric]
            self.cost.unavoidable += results[-1].run_seconds
            if not math.isfinite(self.fp32_score):
                raise EngineError(
                    f"{self.base.name}: '{self.metric}' is {self.fp32_score} in FP32 already; "
                    "correct the weights or the data, `distcalib evaluate` shows all scores"
                )
            self.session.reporter.note(f"FP32: {score_name(self.metric, self.lower_is_better)} = {self.fp32_score:.6g}")
        return self._choose(Calibration(quantizer, ranges, self.session.weights))

    def _choose(self, calibration: Calibration) -> Calibration:
        """`calibration` with the algorithm that was asked for, or with `-a auto` with those of least error."""
        if self.options.calibration_algos != AUTO:
            return replace(calibration, choice=Choice(self.options.calibration_algos))
        sampled = self._sampled
        self.chosen = choose(self.base, calibration, self.metric, sampled, self._timed)
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

    def search(self, calibration: Calibration) -> Candidate:
        """Drive the strategy; it never sees anything but measurements."""
        start = calibration.quantizer.space.all_int8
        search = make_strategy(self.options.strategy, self.options.accuracy_loss).search(start)
        try:
            wanted = next(search)
            while True:
                wanted = search.send(self._measure(calibration, wanted))
        except StopIteration as stop:
            winner: Candidate = stop.value
        if winner not in self.measured:
            self._measure(calibration, [winner])
        return winner

    def _measure(self, calibration: Calibration, wanted: Sequence[Candidate]) -> list[Measurement]:
        new = [candidate for candidate in dict.fromkeys(wanted) if candidate not in self.measured]
        if new:
            is_first = not self.measured
            files = [deliver(self.base, calibration, candidate) for candidate in new]
            self.n_rounds += 1
            counted = f"{len(new)} candidate{'s' if len(new) > 1 else ''}"
            phase = "all INT8" if is_first else f"round {self.n_rounds - 1}, {counted}"
            results = self._timed(phase, [(made.spec(), self.options.iterations) for made in files])
            for candidate, made, result in zip(new, files, results, strict=True):
                found = rows(result)
                self.without_int8_kernel[candidate] = without_kernel(running_int8(made.net), found)
                self.measured[candidate] = self._measurement(candidate, scores(found)[self.metric])
            if is_first:
                self.cost.unavoidable += results[0].run_seconds
            best = min((self.measured[candidate] for candidate in new), key=lambda m: m.drop)
            self.session.reporter.note(f"{phase}: {self.metric} = {best.score:.6g}, {self._drop_and_layers(best)}")
        return [self.measured[candidate] for candidate in wanted]

    def _measurement(self, candidate: Candidate, score: float) -> Measurement:
        if self.fp32_score is None:
            raise AssertionError("a candidate is measured after FP32 only")
        loss = score - self.fp32_score if self.lower_is_better else self.fp32_score - score
        # Scores are fractions of a number of records; what differs below 1e-12 is the binary form of the decimals.
        drop = round(loss, 12)
        return Measurement(candidate, score, drop if drop == drop else float("inf"))

    def _timed(self, phase: str, work: Sequence[tuple[NetSpec, int]]) -> list[JobResult]:
        begin = time.perf_counter()
        results = self.session.measure(phase, work)
        self.cost.add(results)
        if len(results) == 1 and results[0].rows:
            self.images_per_second[phase] = rate(results[0], self.session, time.perf_counter() - begin)
        return results

    def _drop_and_layers(self, measurement: Measurement) -> str:
        """The drop, and the layers in FP32 as far as a line has room for them."""
        fallen, drop = measurement.candidate.fp32_layers, drop_text(measurement.drop, self.lower_is_better)
        if not fallen:
            return f"{drop}, no layer in FP32"
        names = ", ".join(fallen[:4]) + (", ..." if len(fallen) > 4 else "")
        return f"{drop}, {len(fallen)} layer{'s' if len(fallen) > 1 else ''} in FP32: {names}"
