"""The report of a calibration, from the values of its stages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distcalib.actors.isa import Isa
from distcalib.calibration.actor_times import ActorTimes
from distcalib.calibration.commands import commands_of
from distcalib.calibration.delivery import Delivery, text_sha256
from distcalib.calibration.goal import Goal
from distcalib.calibration.image_order import order_text
from distcalib.calibration.layer_details import layer_details
from distcalib.calibration.lost_images import ShownImages, with_lost
from distcalib.calibration.output_files import Target
from distcalib.calibration.results import Afterwards, Observed, SearchResult
from distcalib.engine.net import Net
from distcalib.metrics import (
    absent_classes,
    average_precisions,
    class_accuracies,
    class_counts,
    detections_of,
    without_labels,
)
from distcalib.report import BadRecords, CalibrationReport, CandidateRecord, ExportedFile, PlainRecord
from distcalib.search import Measurement, Verdict


@dataclass(frozen=True)
class RunInfo:
    """How a calibration was run; the defaults are those of one that measures nothing."""

    isa: Isa
    versions: Mapping[str, str]
    cores_per_actor: int
    seconds: float
    batch: int = 0
    bad_records: BadRecords | None = None
    n_actors: int = 0
    n_retired: int = 0
    n_rows_from_journal: int = 0
    cost_passes: float | None = None
    images_per_second: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    cpus: Mapping[str, int] = field(default_factory=dict)
    times: ActorTimes = field(default_factory=ActorTimes)


@dataclass(frozen=True)
class Exported:
    """With --export: the files of the delivered net, and images/s of one core, by runtime and FP32 or INT8."""

    files: tuple[ExportedFile, ...] = ()
    speeds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """The stages of a calibration of the net `base` with the caffemodel `weights`."""

    base: Net
    weights: Path
    target: Target
    goal: Goal
    observed: Observed
    result: SearchResult
    delivery: Delivery
    run: RunInfo
    after: Afterwards = field(default_factory=Afterwards)
    lost: ShownImages = field(default_factory=ShownImages)
    exported: Exported = field(default_factory=Exported)


def build_report(finished: Finished) -> CalibrationReport:
    """Sum up."""
    parts = (_files, _score, _precisions, _class_accuracies, _layers, _calibration, _search, _run)
    return CalibrationReport(**{name: value for part in parts for name, value in part(finished).items()})


def _files(finished: Finished) -> dict[str, Any]:
    target, delivery, plain = finished.target, finished.delivery, finished.after.plain
    model, weights, options = str(target.model), str(finished.weights), finished.goal.options
    output = str(target.prototxt if delivery.plain is None else target.forced_prototxt)
    new_weights = None if delivery.weights_sha256 is None else str(target.caffemodel)
    without_fu = None
    if delivery.plain is not None:
        without_fu = PlainRecord(
            output=str(target.prototxt),
            sha256=text_sha256(delivery.plain_text),
            score=None if plain is None else plain.score,
            drop=None if plain is None else plain.drop,
        )
    return {
        "model": model,
        "weights": weights,
        "output": output,
        "sha256": delivery.sha256,
        "output_weights": new_weights,
        "output_weights_sha256": delivery.weights_sha256,
        "plain": without_fu,
        "commands": commands_of(model, weights, output, new_weights, options),
        "exported": finished.exported.files,
        "exported_images_per_second": finished.exported.speeds,
    }


def _score(finished: Finished) -> dict[str, Any]:
    goal, result, fp32 = finished.goal, finished.result, finished.observed.fp32
    measured = result.measured(result.winner)
    first = result.measured(finished.observed.calibration.quantizer.space.all_int8)
    return {
        "metric": goal.metric,
        "lower_is_better": goal.lower_is_better,
        "tolerance": goal.options.accuracy_loss,
        "met": None if measured is None else goal.is_met(measured.drop),
        "fp32_score": None if fp32 is None else fp32.score,
        "all_int8_score": None if first is None else first.score,
        "all_int8_score_given": finished.after.savings.all_int8_score,
        "score": None if measured is None else measured.score,
        "drop": None if measured is None else measured.drop,
        "changes": with_lost(finished.after.changes, finished.after.lost, finished.lost),
        "thumbnails": finished.lost.pictures,
        "core_images_per_second": finished.after.speeds,
        "warnings": finished.run.warnings,
    }


def _precisions(finished: Finished) -> dict[str, Any]:
    """Of detections."""
    fp32, version = finished.observed.fp32, finished.goal.options.ap_version
    before = detections_of(() if fp32 is None else fp32.values)
    return {
        "ap_version": version if before else None,
        "fp32_average_precisions": average_precisions(before, version),
        "average_precisions": average_precisions(detections_of(finished.result.values), version),
        "classes_without_objects": absent_classes(before),
        "class_names": finished.base.class_names,
    }


def _class_accuracies(finished: Finished) -> dict[str, Any]:
    """Of an Accuracy with a second top, which has that of each class."""
    fp32 = finished.observed.fp32
    before, after = (class_counts(values) for values in (() if fp32 is None else fp32.values, finished.result.values))
    return {
        "fp32_class_accuracies": class_accuracies(before),
        "class_accuracies": class_accuracies(after),
        "classes_without_labels": without_labels(before),
    }


def _layers(finished: Finished) -> dict[str, Any]:
    calibration, result, made = finished.observed.calibration, finished.result, finished.delivery.made.net
    quantizer = calibration.quantizer
    is_observed = not finished.goal.options.performance_model
    return {
        "quantizable_layers": quantizer.space.order,
        "int8_layers": result.winner.int8_layers,
        "fp32_layers": result.winner.fp32_layers,
        "refused_layers": quantizer.refused,
        "without_int8_kernel": result.without_int8_kernel,
        "equalized_layers": finished.delivery.equalized,
        "corrected_layers": finished.delivery.corrected,
        "distances": result.distances,
        "layer_details": layer_details(calibration, made, finished.after.inputs) if is_observed else {},
        "layer_seconds": finished.after.layer_seconds,
    }


def _calibration(finished: Finished) -> dict[str, Any]:
    options, chosen = finished.goal.options, finished.observed.chosen
    return {
        "weights_channel": options.weights_channel,
        "flags": options.flags,
        "recover": "auto" if options.may_recover else "off",
        "calibration_algo": options.calibration_algos,
        "algorithms": {} if chosen is None else chosen.algorithms,
        "output_errors": {} if chosen is None else chosen.errors,
        "n_sampled": options.sampling_iterations,
        "n_iterations": options.n_scored,
    }


def _search(finished: Finished) -> dict[str, Any]:
    goal, result, fp32 = finished.goal, finished.result, finished.observed.fp32
    shares = (
        1.0 if isinstance(said, Measurement) else result.shares[candidate]
        for candidate, said in result.answered.items()
    )
    return {
        "strategy": goal.options.strategy,
        "confidence": goal.options.confidence,
        "minimal": result.minimal,
        "stopped_by": result.stopped_by,
        "image_order": "" if fp32 is None else order_text(fp32.order, goal.natural),
        "candidates": tuple(
            _record(said, goal, result.failed.get(candidate)) for candidate, said in result.answered.items()
        ),
        "candidate_shares": tuple(shares),
        "layers_saved": finished.after.savings.layers,
        "pareto": finished.after.curve,
    }


def _record(said: Measurement | Verdict, goal: Goal, failed: str | None) -> CandidateRecord:
    """What the report says of a candidate."""
    candidate = said.candidate
    if isinstance(said, Verdict):
        likely = said.likely_drop if math.isfinite(said.likely_drop) else None
        return CandidateRecord(candidate.fp32_layers, len(candidate.int8), said.meets, None, None, failed, likely)
    meets = goal.is_met(said.drop)
    return CandidateRecord(candidate.fp32_layers, len(candidate.int8), meets, said.score, said.drop, failed)


def _run(finished: Finished) -> dict[str, Any]:
    run = finished.run
    return {
        "isa": run.isa.target,
        "way": run.isa.way,
        "kernels": run.isa.kernels,
        "versions": run.versions,
        "batch": run.batch,
        "bad_records": run.bad_records,
        "n_actors": run.n_actors,
        "n_retired": run.n_retired,
        "cores_per_actor": run.cores_per_actor,
        "seconds": run.seconds,
        "cost_passes": run.cost_passes,
        "images_per_second": run.images_per_second,
        "n_rows_from_journal": run.n_rows_from_journal,
        "cpus": run.cpus,
        "phases": run.times.phases,
        "actor_spans": run.times.spans,
        "utilisation": run.times.utilisation,
    }
