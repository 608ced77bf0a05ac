"""`distcalib calibrate`: from a Caffe model to an INT8 prototxt whose accuracy was measured.

The candidate that is measured is the net that is delivered: nothing is rewritten between a score and its file, and
before the file is written its text is read back and compared with what was measured.
"""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, net_text, read_weights, resolve_sources
from distcalib.caffe.graph import Blob
from distcalib.engine.spec import NetSpec, Sampling
from distcalib.errors import EngineError, OptionError, UnsupportedError
from distcalib.measure import JobResult
from distcalib.metrics import choose_score, lower_is_better
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.fusion import QUANTIZABLE
from distcalib.quantize.ranges import Range, merge_ranges
from distcalib.quantize.scales import Calibration, Quantizer
from distcalib.quantize.thresholds import NEED_VALUES
from distcalib.report import CalibrationReport, CandidateRecord, drop_text
from distcalib.run.checks import refuse_unrunnable
from distcalib.run.evaluation import rate, running_int8, scores, without_kernel
from distcalib.run.isa import isa_environment, measured_isa
from distcalib.run.net import Net, make_net, open_net
from distcalib.run.options import CalibrationOptions
from distcalib.run.reporter import Reporter, Silent
from distcalib.run.session import Session, rows, versions
from distcalib.run.target import Target
from distcalib.search import Measurement, make_strategy

# Rows of ranges that the driver holds at the most: its memory does not grow with -s.
MAX_ROWS = 64
# Values that one program hands out for an algorithm that looks at all of them: more are observed in several passes.
MAX_TAP_BYTES = 512 * 2**20


def calibrate(
    model: str | Path,
    weights: str | Path,
    options: CalibrationOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> CalibrationReport:
    """Quantize `model`, find the layers that must fall back, write `MODEL_quantized.prototxt` and report.json.

    Returns what report.json holds.  The best file is written even if the tolerance is not met; `met` tells.  Raises
    the errors of distcalib.errors, and then has written nothing.
    """
    options = options or CalibrationOptions()
    model = Path(model)
    target = Target(model, options.out, "dummy" if options.performance_model else "quantized")
    run = _Run(model, Path(weights), options, target, reporter or Silent())
    return run.execute()


@dataclass
class _Cost:
    """Actor-seconds of the run."""

    total: float = 0.0
    passes: float = 0.0

    def add(self, results: Sequence[JobResult]) -> None:
        self.total += sum(r.run_seconds + r.compile_seconds + r.load_seconds for r in results)


@dataclass
class _Run:
    """One calibration, step by step."""

    model: Path
    weights: Path
    options: CalibrationOptions
    target: Target
    reporter: Reporter
    cost: _Cost = field(default_factory=_Cost)

    def execute(self) -> CalibrationReport:
        begin = time.perf_counter()
        options = self.options
        base = _for_folder(open_net(self.model), self.target.folder)
        refuse_unrunnable(base, fed=options.data is not None)
        _refuse_quantized(base)
        metric = _metric(base, options.blob_name)
        quantizer = Quantizer(base.graph, options)
        isa_environment(options.isa)
        self.target.check()
        if options.performance_model:
            return self._write_dummy(base, quantizer, metric)
        with Session(
            base,
            self.weights,
            self.reporter,
            n_actors=options.n_actors,
            cores_per_actor=options.cores_per_actor,
            isa=options.isa,
            data=options.data,
            address=options.address,
        ) as session:
            measuring = _Measuring(session, base, metric, lower_is_better(base.test, metric), options, self.cost)
            calibration = measuring.observe(quantizer)
            if options.quantize_model:
                winner = calibration.quantizer.space.all_int8
            else:
                winner = measuring.search(calibration)
        delivered = with_params(base, calibration.params(winner))
        text = net_text(delivered.full)
        if text_format.Parse(text, caffe_pb2.NetParameter()) != delivered.full:
            raise AssertionError("the text to be written is not the net that was measured")
        report = self._report(text, base, metric, quantizer, winner, measuring)
        report = replace(report, batch=session.batch, n_actors=session.n_actors, seconds=time.perf_counter() - begin)
        self.target.write(text, report.to_json())
        return report

    def _write_dummy(self, base: Net, quantizer: Quantizer, metric: str) -> CalibrationReport:
        """-p: every layer INT8 with all scales 1.0, for speed runs; nothing is sampled or measured."""
        ends = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
        calibration = Calibration(quantizer, ends, read_weights(self.weights))
        winner = quantizer.space.all_int8
        params = calibration.params(winner)
        for param in params.values():
            for scales in (param.scale_in, param.scale_out, param.scale_params):
                scales[:] = [1.0] * len(scales)
        text = net_text(with_params(base, params).full)
        report = self._report(text, base, metric, quantizer, winner, _Results())
        self.target.write(text, report.to_json())
        return report

    def _report(
        self, text: str, base: Net, metric: str, quantizer: Quantizer, winner: Candidate, measuring: "_Results"
    ) -> CalibrationReport:
        """Sum up; `text` is the file to be delivered."""
        options = self.options
        measured = measuring.measured.get(winner)
        first = next(iter(measuring.measured.values()), None)
        return CalibrationReport(
            model=str(self.model),
            weights=str(self.weights),
            output=str(self.target.prototxt),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            metric=metric,
            lower_is_better=lower_is_better(base.test, metric),
            tolerance=options.accuracy_loss,
            met=None if measured is None else measured.drop <= options.accuracy_loss,
            fp32_score=measuring.fp32_score,
            all_int8_score=None if first is None else first.score,
            score=None if measured is None else measured.score,
            drop=None if measured is None else measured.drop,
            int8_layers=winner.int8_layers,
            fp32_layers=winner.fp32_layers,
            refused_layers=quantizer.refused,
            without_int8_kernel=measuring.without_int8_kernel.get(winner, ()),
            strategy=options.strategy,
            weights_channel=options.weights_channel,
            flags=options.flags,
            calibration_algo=options.calibration_algos,
            n_iterations=options.iterations,
            n_sampled=min(options.sampling_iterations, options.iterations),
            batch=0,
            candidates=tuple(
                CandidateRecord(c.fp32_layers, len(c.int8), m.score, m.drop) for c, m in measuring.measured.items()
            ),
            isa=measured_isa(options.isa),
            versions=versions(),
            n_actors=0,
            cores_per_actor=options.cores_per_actor,
            seconds=0.0,
            cost_passes=self.cost.total / self.cost.passes if self.cost.passes else None,
            images_per_second=measuring.images_per_second,
        )


@dataclass(kw_only=True)
class _Results:
    """The measurements of one run, by candidate."""

    fp32_score: float | None = None
    n_rounds: int = 0
    measured: dict[Candidate, Measurement] = field(default_factory=dict)
    without_int8_kernel: dict[Candidate, tuple[str, ...]] = field(default_factory=dict)
    images_per_second: dict[str, float] = field(default_factory=dict)


@dataclass
class _Measuring(_Results):
    """Measures on the actors of a session."""

    session: Session
    base: Net
    metric: str
    lower_is_better: bool
    options: CalibrationOptions
    cost: _Cost

    def observe(self, quantizer: Quantizer) -> Calibration:
        """The FP32 pass and, over the first `-s` iterations, the ranges of what the scales are made from."""
        n_sampled = min(self.options.sampling_iterations, self.options.iterations)
        taps = quantizer.observed
        if not taps:
            self.session.reporter.note("no layer can run INT8; `distcalib inspect` tells why")
        work = [(self.base.spec(part), part.n_rows) for part in self._samplings(taps, n_sampled)]
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
            self.cost.passes += results[-1].run_seconds
            if not math.isfinite(self.fp32_score):
                raise EngineError(
                    f"{self.base.name}: '{self.metric}' is {self.fp32_score} in FP32 already; "
                    "correct the weights or the data, `distcalib evaluate` shows all scores"
                )
            self.session.reporter.note(f"FP32: {self.metric} = {self.fp32_score:.6g}")
        return Calibration(quantizer, ranges, self.session.weights, self.options.calibration_algos)

    def _samplings(self, taps: Sequence[Blob], n_sampled: int) -> list[Sampling]:
        """How the values are observed: all at once where their ends are enough, else as many as fit into memory."""
        first = n_sampled - 1 if self.options.sampling_single else 0
        block = -(-(n_sampled - first) // MAX_ROWS)
        if self.options.calibration_algos not in NEED_VALUES:
            return [Sampling(tuple(taps), False, first, n_sampled, block)] if taps else []
        parts = self.session.in_parts(taps, MAX_TAP_BYTES)
        return [Sampling(part, True, first, n_sampled, block) for part in parts]

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
            nets = [with_params(self.base, calibration.params(candidate)) for candidate in new]
            self.n_rounds += 1
            counted = f"{len(new)} candidate{'s' if len(new) > 1 else ''}"
            phase = "all INT8" if is_first else f"round {self.n_rounds - 1}, {counted}"
            results = self._timed(phase, [(net.spec(), self.options.iterations) for net in nets])
            for candidate, net, result in zip(new, nets, results, strict=True):
                found = rows(result)
                self.without_int8_kernel[candidate] = without_kernel(running_int8(net), found)
                self.measured[candidate] = self._measurement(candidate, scores(found)[self.metric])
            if is_first:
                self.cost.passes += results[0].run_seconds
            best = min((self.measured[candidate] for candidate in new), key=lambda m: m.drop)
            self.session.reporter.note(f"{phase}: {self.metric} = {best.score:.6g}, {_drop_and_layers(best)}")
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


def _for_folder(net: Net, folder: Path) -> Net:
    """The net as it can be written to `folder`: its relative paths are made absolute if that is not its own folder."""
    if folder.resolve() == net.path.parent.resolve():
        return net
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    resolve_sources(full, net.path)
    return make_net(net.path, full)


def _refuse_quantized(net: Net) -> None:
    """Raise UnsupportedError for a net that is quantized already: its scores would be taken for those of FP32."""
    names = [layer.name for layer in net.full.layer if layer.HasField("quantization_param")]
    if names:
        shown = ", ".join(f"'{name}'" for name in names[:3])
        others = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise UnsupportedError(
            f"{net.name}: is quantized already (quantization_param in {shown}{others}); "
            "give the FP32 prototxt that it was made from"
        )


def _metric(net: Net, blob_name: str | None) -> str:
    """The score to go by; what choose_score raises, with the file's name."""
    try:
        return choose_score(net.test, blob_name)
    except OptionError as error:
        raise OptionError(f"{net.name}: {error}") from None


def _drop_and_layers(measurement: Measurement) -> str:
    """The drop, and the layers in FP32 as far as a line has room for them."""
    fallen = measurement.candidate.fp32_layers
    if not fallen:
        return f"{drop_text(measurement.drop)}, no layer in FP32"
    names = ", ".join(fallen[:4]) + (", ..." if len(fallen) > 4 else "")
    return f"{drop_text(measurement.drop)}, {len(fallen)} layer{'s' if len(fallen) > 1 else ''} in FP32: {names}"


def with_params(base: Net, params: Mapping[str, caffe_pb2.QuantizationParameter]) -> Net:
    """The net with these quantization_params, by layer name: what is compiled, and what is written."""
    full = caffe_pb2.NetParameter()
    full.CopyFrom(base.full)
    for layer in full.layer:
        if layer.name in params and layer.type in QUANTIZABLE:
            layer.quantization_param.CopyFrom(params[layer.name])
    return make_net(base.path, full)
