"""`distcalib calibrate`: from a Caffe model to an INT8 prototxt whose accuracy was measured.

The candidate that is measured is the net that is delivered: nothing is rewritten between a score and its file, and
before the file is written its text is read back and compared with what was measured.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from distcalib.actors.cancellation import Cancellation
from distcalib.actors.isa import isa_here
from distcalib.caffe.phase import State
from distcalib.calibration.actor_times import actor_times
from distcalib.calibration.candidate_net import Deliverable, engines_written, mended_base, mended_with
from distcalib.calibration.checks import checked_metric, refuse_quantized
from distcalib.calibration.delivery import Delivery, for_folder
from distcalib.calibration.export_files import exported_files
from distcalib.calibration.framing import frame_note
from distcalib.calibration.goal import Goal, is_lower_better
from distcalib.calibration.lost_images import show_lost
from distcalib.calibration.meter import Meter
from distcalib.calibration.observation import Observing, verdict_warnings
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.output_files import Target
from distcalib.calibration.report_builder import Finished, RunInfo, build_report
from distcalib.calibration.results import Observed, SearchResult
from distcalib.calibration.run_record import Interrupted, RunRecord, note_lost_journal
from distcalib.calibration.search_driver import Switches
from distcalib.calibration.search_stage import Searched, SearchStage
from distcalib.data import advising
from distcalib.data.limits import limited
from distcalib.engine.net import Net, open_net
from distcalib.journal import Journal
from distcalib.quantize.force_u8 import refuse_unforceable
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from distcalib.report import CalibrationReport
from distcalib.session.backend import Backend, open_backend
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

        report = distcalib.calibrate("net.prototxt", "net.caffemodel", distcalib.CalibrationOptions(accuracy_loss=0.01))
    """
    return run_calibration(Path(model), Path(weights), options or CalibrationOptions(), reporter, cancellation)


def run_calibration(
    model: Path,
    weights: Path,
    options: CalibrationOptions,
    reporter: Reporter | None = None,
    cancellation: Cancellation | None = None,
    switches: Switches | None = None,
) -> CalibrationReport:
    """`calibrate`, with parts of the search left out as `switches` say."""
    kind = "dummy" if options.performance_model else "quantized"
    is_new = options.first_conv_force_u8 or options.makes_weights or options.may_recover
    target = Target(model, options.out, kind, weights if is_new else None)
    run = _Run(weights, options, target, reporter or Logged(), cancellation, switches or Switches())
    try:
        with limited(options.largest_mb):
            return run.execute()
    except KeyboardInterrupt as interrupt:
        if run.written is None:
            raise
        raise Interrupted(run.written) from interrupt  # it may come while the actors are ended


@dataclass
class _Run:
    """One calibration, stage by stage."""

    weights: Path
    options: CalibrationOptions
    target: Target
    reporter: Reporter
    cancellation: Cancellation | None
    switches: Switches
    written: CalibrationReport | None = None
    """Once all files are there."""

    def execute(self) -> CalibrationReport:
        """All of it."""
        begin = time.perf_counter()
        options, target = self.options, self.target
        data = None if options.data is None else Path(options.data)
        net = for_folder(open_net(target.model, data, State(options.stages, options.level)), target.folder)
        refuse_quantized(net)
        metric = checked_metric(net, options)
        base = mended_base(net, self.reporter.note)
        quantizer = Quantizer(base.graph, options)
        backend = open_backend(options.root, options.isa)
        if options.first_conv_force_u8:
            self._note_frame(base, quantizer, backend)
        target.check()
        if options.performance_model:
            used = versions(backend.versions, options.plugins)
            run = RunInfo(isa_here(options.isa), used, options.cores_per_actor or 1, 0.0)
            return self._delivered(self._dummy(base, quantizer, metric, run))
        finished = self._measured(base, quantizer, metric, backend, begin)
        report = self.written
        assert report is not None, "all files are written"
        if not options.export:
            return report
        weights = report.output_weights or self.weights
        files = exported_files(report.output, weights, options, target.folder, self.reporter)
        report = build_report(replace(finished, exported=files))
        target.write_reports(report)
        return report

    def _note_frame(self, base: Net, quantizer: Quantizer, backend: Backend) -> None:
        """-fu: refuse or note what stands in its way."""
        refuse_unforceable(quantizer, base.name)
        with advising(backend.may_skip):
            note = frame_note(base, quantizer, self.weights, self.options.skip_bad_records)
        if note:
            self.reporter.note(note)

    def _measured(self, base: Net, quantizer: Quantizer, metric: str, backend: Backend, begin: float) -> Finished:
        """Measure on actors, and write all files; Interrupted after that if the user ended it."""
        options = self.options
        session = Session(
            base,
            self.weights,
            self.reporter,
            options.session,
            backend=backend,
            open_journal=lambda: Journal(self.target.folder),
            cancellation=self.cancellation,
            at_least=options.sampling_iterations,
        )
        if not options.quantize_model:
            self.options = options = replace(options, iterations=session.n_iterations)
        with session, RunRecord(session, f"calibrate {self.target.model}", options) as record:
            meter, goal = Meter(session), Goal.of(base, metric, options, session.inputs)
            observing = Observing(session, meter, base, goal)
            searched = SearchStage(base, session, meter, goal, self.switches, observing).search(quantizer)
            observed, result = searched.observed, searched.result
            delivery = Delivery.of(base, observed, result.winner, options)
            run = self._run_info(session, meter, goal, searched, begin)
            session.end_measuring()
            lost = show_lost(session, searched.after.changes, with_pictures=not options.no_thumbnails)
            finished = Finished(
                base, self.weights, self.target, goal, observed, result, delivery, run, searched.after, lost
            )
            session.check_files()
            note_lost_journal(session)
            delivery = delivery.with_weights(self.target, self.weights, session.inputs.weights)
            finished = replace(finished, delivery=delivery)
            report = self._delivered(finished)
            record.verdict = report.verdict
            engines = engines_written(base, delivery.made.net)
            if engines:
                self.reporter.note(f"written with engine {engines}: else Intel Caffe could not run the file rightly")
            if searched.interrupted:
                raise Interrupted(report)
        return finished

    def _run_info(self, session: Session, meter: Meter, goal: Goal, searched: Searched, begin: float) -> RunInfo:
        if session.n_rows_from_journal:
            self.reporter.note(f"{session.n_rows_from_journal} rows of results were in {session.journal_name}")
        return RunInfo(
            session.isa,
            session.versions,
            session.cores_per_actor,
            time.perf_counter() - begin,
            session.batch,
            session.bad_records(self.options.iterations_read),
            session.n_actors,
            session.n_retired,
            session.n_rows_from_journal,
            meter.passes,
            meter.images_per_second,
            verdict_warnings(session, goal, searched.observed.fp32, searched.after.price),
            session.cpus,
            actor_times(session, meter),
        )

    def _delivered(self, finished: Finished) -> CalibrationReport:
        """Write all files; returns what report.json holds."""
        report = build_report(finished)
        finished.delivery.write(self.target, report)
        self.written = report
        return report

    def _dummy(self, base: Net, quantizer: Quantizer, metric: str, run: RunInfo) -> Finished:
        """-p: every layer INT8 with all scales 1.0, for speed runs; nothing is sampled or measured."""
        ends = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
        calibration = Calibration(quantizer, ends, base.weights(self.weights))
        winner = quantizer.space.all_int8
        params = calibration.params(winner)
        for param in params.values():
            for scales in (param.scale_in, param.scale_out, param.scale_params):
                scales[:] = [1.0] * len(scales)
        delivery = Delivery(Deliverable(mended_with(base, params)))
        goal = Goal(metric, is_lower_better(base, metric), self.options)
        return Finished(
            base, self.weights, self.target, goal, Observed(calibration), SearchResult(winner), delivery, run
        )
