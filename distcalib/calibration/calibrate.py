"""`distcalib calibrate`: from a Caffe model to an INT8 prototxt whose accuracy was measured.

The candidate that is measured is the net that is delivered: nothing is rewritten between a score and its file, and
before the file is written its text is read back and compared with what was measured.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distcalib.actors.cancellation import Cancellation, Cancelled
from distcalib.actors.isa import Isa, isa_here
from distcalib.actors.signals import ended_by
from distcalib.caffe import Weights, caffe_pb2, resolve_sources, write_atomically
from distcalib.caffe.phase import State
from distcalib.calibration.algorithms import score_inputs
from distcalib.calibration.candidate_net import (
    Deliverable,
    deliver,
    deliver_plain,
    engines_written,
    mended,
    mended_base,
    with_params,
)
from distcalib.calibration.changes import changed_images
from distcalib.calibration.commands import with_commands
from distcalib.calibration.export_files import with_files
from distcalib.calibration.framing import frame_note
from distcalib.calibration.image_order import order_text, why_natural
from distcalib.calibration.measuring import Measuring, Results
from distcalib.calibration.observation import Observing, verdict_warnings
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.output_files import Target
from distcalib.calibration.pareto import layer_times, measure_curve
from distcalib.calibration.programs import NetPrograms
from distcalib.calibration.run_record import Interrupted, RunRecord, note_lost_journal, signal_name
from distcalib.calibration.savings import Saved, count_saved
from distcalib.calibration.search_driver import Searching
from distcalib.calibration.search_price import better_calibration, price_warnings
from distcalib.calibration.speeds import core_speeds
from distcalib.data import advising
from distcalib.data.limits import limited
from distcalib.engine.net import Net, open_net
from distcalib.errors import OptionError, UnsupportedError
from distcalib.journal import Journal
from distcalib.metrics import (
    absent_classes,
    average_precisions,
    choose_score,
    detections_of,
    is_map,
    is_mean,
    lower_is_better,
)
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.force_u8 import refuse_unforceable
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration, Quantizer
from distcalib.report import CalibrationReport, CandidateRecord, PlainRecord
from distcalib.search import Measurement, Verdict
from distcalib.session.backend import open_backend
from distcalib.session.checks import net_problems, refuse_in_place
from distcalib.session.progress import Logged, Reporter
from distcalib.session.session import Session
from distcalib.session.versions import versions


def calibrate(
    model: str | Path,
    weights: str | Path,
    options: CalibrationOptions | None = None,
    *,
    reporter: Reporter | None = None,
    cancellation: Cancellation | None = None,
) -> CalibrationReport:
    """Quantize `model`, find the layers that must fall back, write `MODEL_quantized.prototxt` and the report of it.

    Returns what report.json holds, and report.html shows.  The best file is written even if the tolerance is not met;
    `met` tells.  Raises the errors of distcalib.errors, and then has written nothing but the journal, from which the
    same call continues.
    After Ctrl-C, or once `cancellation` was cancelled in another thread, the best that was measured is written and
    Interrupted raised, a KeyboardInterrupt that has the report.

        report = distcalib.calibrate("net.prototxt", "net.caffemodel", distcalib.CalibrationOptions(iterations=100))
    """
    options = options or CalibrationOptions()
    model = Path(model)
    kind = "dummy" if options.performance_model else "quantized"
    is_new = options.first_conv_force_u8 or options.bias_correction or options.equalize
    target = Target(model, options.out, kind, Path(weights) if is_new else None)
    run = _Run(model, Path(weights), options, target, reporter or Logged(), cancellation)
    try:
        with limited(options.largest_mb):
            report = run.execute()
            return with_files(report, run.weights, options, target, run.reporter) if options.export else report
    except KeyboardInterrupt as interrupt:
        if run.written is None:
            raise
        raise Interrupted(run.written) from interrupt  # it may come while the actors are ended


@dataclass(frozen=True)
class _Found:
    """What is to be delivered."""

    calibration: Calibration
    winner: Candidate
    made: Deliverable
    plain: Measurement | None = None
    """With -fu: the same net without it."""
    saved: Saved = field(default_factory=Saved)
    pairs: Mapping[str, str] = field(default_factory=dict)
    """The layers that --equalize scaled."""
    interrupted: bool = False

    def is_forced(self, options: CalibrationOptions) -> bool:
        """Whether the first convolution reads u8 with weights of its own."""
        return options.first_conv_force_u8 and bool(self.made.changed)


@dataclass
class _Run:
    """One calibration, step by step."""

    model: Path
    weights: Path
    options: CalibrationOptions
    target: Target
    reporter: Reporter
    cancellation: Cancellation | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    written: CalibrationReport | None = None
    """Once all files are there."""

    def execute(self) -> CalibrationReport:
        begin = time.perf_counter()
        options = self.options
        data = None if options.data is None else Path(options.data)
        base = _for_folder(open_net(self.model, data, State(options.stages, options.level)), self.target.folder)
        _refuse_quantized(base)
        metric = _checked(base, options)
        base = mended_base(base, self.reporter.note)
        quantizer = Quantizer(base.graph, options)
        backend = open_backend(options.root, options.isa)
        self.versions = versions(backend.versions, options.plugins)
        if options.first_conv_force_u8:
            refuse_unforceable(quantizer, base.name)
            with advising(backend.may_skip):
                found = frame_note(base, quantizer, self.weights, options.skip_bad_records)
            if found:
                self.reporter.note(found)
        self.target.check()
        if options.performance_model:
            return self._write_dummy(base, quantizer, metric)
        with (
            Session(
                base,
                self.weights,
                self.reporter,
                options.session,
                backend=backend,
                open_journal=lambda: Journal(self.target.folder),
                cancellation=self.cancellation,
            ) as session,
            RunRecord(session, f"calibrate {self.model}", options) as record,
        ):
            measuring = Measuring(session, metric, _lower_is_better(base, metric), options)
            measuring.image_bytes = session.inputs.image_bytes(score_inputs(base, metric))
            measuring.natural = why_natural(base, metric, session.inputs.shapes, options)
            delivered = replace(self._find(base, metric, quantizer, session, measuring), pairs=measuring.pairs)
            report = self._report(
                delivered.made.text(), base, metric, quantizer, delivered.winner, measuring, session.isa
            )
            report = replace(
                report,
                all_int8_score_given=delivered.saved.all_int8_score,
                layers_saved=delivered.saved.layers,
                batch=session.batch,
                bad_records=session.bad_records(options.iterations_read),
                n_actors=session.n_actors,
                n_retired=session.n_retired,
                cores_per_actor=session.cores_per_actor,
                seconds=time.perf_counter() - begin,
                n_rows_from_journal=session.n_rows_from_journal,
                warnings=verdict_warnings(session, measuring),
            )
            if report.n_rows_from_journal:
                self.reporter.note(f"{report.n_rows_from_journal} rows of results were in {session.journal_name}")
            session.check_files()
            note_lost_journal(session)
            report = self.written = self._write(base, session.inputs.weights, delivered, report)
            record.verdict = report.verdict
            engines = engines_written(base, delivered.made.net)
            if engines:
                self.reporter.note(f"written with engine {engines}: else Intel Caffe could not run the file rightly")
            if delivered.interrupted:
                raise Interrupted(report)
        return report

    def _find(self, base: Net, metric: str, quantizer: Quantizer, session: Session, measuring: Measuring) -> "_Found":
        """Measure until the winner is known; after Ctrl-C the best that was measured, if anything was."""
        options = self.options
        calibration = Observing(measuring, session, base).observe(quantizer)
        if options.quantize_model:
            winner = calibration.quantizer.space.all_int8
            return _Found(calibration, winner, deliver(base, calibration, winner))
        programs = NetPrograms(base, calibration, metric)
        searching = Searching(measuring, programs)
        better = better_calibration(searching, calibration)
        if better is not calibration:
            calibration = better
            searching = Searching(measuring, programs.of(calibration))
        best: Candidate | None = None
        try:
            times = None
            if options.by_time or options.pareto:
                times = layer_times(measuring, base.spec(), programs.spec(programs.start), session.cores_per_actor)
            if times is not None and options.by_time:
                searching.saved = {name: round(1e9 * times.saved(name)) for name in programs.start.space.order}
            winner = best = searching.run()
            measuring.price = price_warnings(searching, winner)
            measuring.speeds = core_speeds(searching, base.spec(), winner, session.cores_per_actor)
            if times is not None and options.pareto:
                measuring.curve = measure_curve(searching, winner, times)
            found = _Found(calibration, winner, deliver(base, calibration, winner))
            if found.is_forced(options):
                return replace(found, plain=searching.measure_plain(winner))
            if found.made.changed:
                return replace(found, saved=count_saved(searching, measuring.without, winner))
            return found
        except KeyboardInterrupt as interrupt:
            by = "cancellation" if isinstance(interrupt, Cancelled) else signal_name(ended_by())
            winner_so_far = searching.interrupted(best, by=by)
            if winner_so_far is None:
                raise
            made = deliver(base, calibration, winner_so_far)
            return _Found(calibration, winner_so_far, made, interrupted=True)

    def _write(self, base: Net, weights: Weights, found: "_Found", report: CalibrationReport) -> CalibrationReport:
        """Write all files; returns the report with what it says of them."""
        made, calibration, winner = found.made, found.calibration, found.winner
        if found.is_forced(self.options):
            text = deliver_plain(base, calibration, winner).text()
            return self._write_forced(made, weights, text, found.plain, report)
        if made.changed:
            report = self._write_weights(made, weights, report)
            corrected = tuple(name for name in winner.int8_layers if name in calibration.corrected)
            report = replace(report, corrected_layers=corrected, equalized_layers=found.pairs)
        report = with_commands(report, self.options)
        self.target.write(made.text(), report)
        return report

    def _write_weights(self, made: Deliverable, weights: Weights, report: CalibrationReport) -> CalibrationReport:
        """Write the caffemodel of the net; returns the report with it."""
        target = self.target
        target.make_folder()
        made.write_weights(target.caffemodel, weights)
        return replace(
            report,
            output_weights=str(target.caffemodel),
            output_weights_sha256=_sha256(target.caffemodel),
        )

    def _write_forced(
        self, made: Deliverable, weights: Weights, plain: str, measured: Measurement | None, report: CalibrationReport
    ) -> CalibrationReport:
        """-fu: write the net on u8 input with its caffemodel, and the net on s8 input, `plain`; returns the report."""
        target = self.target
        report = replace(
            self._write_weights(made, weights, report),
            output=str(target.forced_prototxt),
            plain=PlainRecord(
                output=str(target.prototxt),
                sha256=hashlib.sha256(plain.encode()).hexdigest(),
                score=None if measured is None else measured.score,
                drop=None if measured is None else measured.drop,
            ),
        )
        report = with_commands(report, self.options)
        write_atomically(target.forced_prototxt, made.text())
        target.write(plain, report)
        return report

    def _write_dummy(self, base: Net, quantizer: Quantizer, metric: str) -> CalibrationReport:
        """-p: every layer INT8 with all scales 1.0, for speed runs; nothing is sampled or measured."""
        ends = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
        calibration = Calibration(quantizer, ends, base.weights(self.weights))
        winner = quantizer.space.all_int8
        params = calibration.params(winner)
        for param in params.values():
            for scales in (param.scale_in, param.scale_out, param.scale_params):
                scales[:] = [1.0] * len(scales)
        text = Deliverable(mended(with_params(base, params))).text()
        report = self._report(text, base, metric, quantizer, winner, Results(), isa_here(self.options.isa))
        report = with_commands(report, self.options)
        self.target.write(text, report)
        return report

    def _report(
        self,
        text: str,
        base: Net,
        metric: str,
        quantizer: Quantizer,
        winner: Candidate,
        measuring: Results,
        isa: Isa,
    ) -> CalibrationReport:
        """Sum up; `text` is the file to be delivered."""
        options = self.options
        measured, first = measuring.measured(winner), measuring.measured(quantizer.space.all_int8)
        chosen = measuring.chosen
        return CalibrationReport(
            model=str(self.model),
            weights=str(self.weights),
            output=str(self.target.prototxt),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            output_weights=None,
            output_weights_sha256=None,
            plain=None,
            equalized_layers={},
            corrected_layers=(),
            all_int8_score_given=None,
            layers_saved={},
            metric=metric,
            lower_is_better=_lower_is_better(base, metric),
            tolerance=options.accuracy_loss,
            met=None if measured is None else measured.drop <= options.accuracy_loss,
            ap_version=options.ap_version if detections_of(measuring.fp32_values[:1]) else None,
            fp32_average_precisions=average_precisions(detections_of(measuring.fp32_values), options.ap_version),
            average_precisions=average_precisions(detections_of(measuring.winner_values), options.ap_version),
            classes_without_objects=absent_classes(detections_of(measuring.fp32_values)),
            class_names=base.class_names,
            fp32_score=measuring.fp32_score,
            all_int8_score=None if first is None else first.score,
            score=None if measured is None else measured.score,
            drop=None if measured is None else measured.drop,
            quantizable_layers=quantizer.space.order,
            int8_layers=winner.int8_layers,
            fp32_layers=winner.fp32_layers,
            refused_layers=quantizer.refused,
            without_int8_kernel=measuring.without_int8_kernel.get(winner, ()),
            strategy=options.strategy,
            confidence=options.confidence,
            minimal=measuring.is_minimal(winner, options.accuracy_loss),
            stopped_by=measuring.stopped_by,
            weights_channel=options.weights_channel,
            flags=options.flags,
            calibration_algo=options.calibration_algos,
            algorithms={} if chosen is None else chosen.algorithms,
            output_errors={} if chosen is None else chosen.errors,
            n_iterations=options.iterations,
            n_sampled=options.sampling_iterations,
            batch=0,
            candidates=tuple(
                _record(said, options.accuracy_loss, measuring.failed.get(candidate))
                for candidate, said in measuring.answered.items()
            ),
            distances=measuring.distances,
            isa=isa.target,
            way=isa.way,
            kernels=isa.kernels,
            versions=self.versions,
            n_actors=0,
            cores_per_actor=options.cores_per_actor or 1,
            seconds=0.0,
            cost_passes=measuring.cost.passes,
            images_per_second=measuring.images_per_second,
            core_images_per_second=measuring.speeds,
            changes=changed_images(measuring, winner),
            pareto=measuring.curve,
            image_order=order_text(measuring),
            candidate_shares=tuple(
                1.0 if isinstance(said, Measurement) else measuring.shares.get(candidate, 0.0)
                for candidate, said in measuring.answered.items()
            ),
        )


def _record(said: Measurement | Verdict, tolerance: float, failed: str | None) -> CandidateRecord:
    """What the report says of a candidate."""
    candidate = said.candidate
    if isinstance(said, Verdict):
        likely = said.likely_drop if math.isfinite(said.likely_drop) else None
        return CandidateRecord(candidate.fp32_layers, len(candidate.int8), said.meets, None, None, failed, likely)
    meets = said.drop <= tolerance
    return CandidateRecord(candidate.fp32_layers, len(candidate.int8), meets, said.score, said.drop, failed)


def _for_folder(net: Net, folder: Path) -> Net:
    """The net as it can be written to `folder`: its relative paths are made absolute if that is not its own folder."""
    if folder.resolve() == net.path.parent.resolve():
        return net
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    resolve_sources(full, net.path)
    return net.remade(full)


def _sha256(path: Path) -> str:
    """The hash of a file, read piece by piece."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()


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


def _checked(net: Net, options: CalibrationOptions) -> str:
    """The score to go by.  Raises UnsupportedError or OptionError with all that keeps the net from being run by it."""
    # -p runs nothing, so that an Input layer needs no data.
    found = net_problems(net, fed=options.data is not None or options.performance_model)
    try:
        metric = _metric(net, options)
    except (OptionError, UnsupportedError) as error:
        if not found:
            raise
        if isinstance(error, OptionError):  # the other is among those found
            found.append(str(error))
        raise UnsupportedError("; ".join(found)) from None
    if found:
        raise UnsupportedError("; ".join(found))
    if not options.allow_overwritten:
        refuse_in_place(net)
    return metric


def _metric(net: Net, options: CalibrationOptions) -> str:
    """The score to go by; what choose_score raises, with the file's name.

    Where nothing is measured (-q, -p) a net needs no score: "" then.  Raises OptionError too for a tolerance of more
    than an accuracy can lose.
    """
    try:
        metric = choose_score(net.test, options.blob_name, options.detection)
    except OptionError as error:
        if options.blob_name is None and (options.quantize_model or options.performance_model):
            return ""
        raise OptionError(f"{net.name}: {error}") from None
    if options.confidence is not None and not is_mean(net.test, metric):
        what = "an mAP" if is_map(net.test, metric) else "a mean IoU"
        raise OptionError(
            f"{net.name}: --confidence {options.confidence:g}: compares iterations, and '{metric}' is {what}, "
            "which is not a mean of them; leave it out"
        )
    if options.accuracy_loss > 1.0 and not lower_is_better(net.test, metric):
        raise OptionError(
            f"-l {options.accuracy_loss:g}: is more than the accuracy '{metric}' can lose, which is at most 1; 0.01 "
            "tolerates one point"
        )
    return metric


def _lower_is_better(net: Net, metric: str) -> bool:
    return metric != "" and lower_is_better(net.test, metric)
