"""`distcalib evaluate`: the scores of any prototxt, quantized or not, over N iterations; the `caffe test` of this
tool.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distcalib.actors import JobResult
from distcalib.actors.cancellation import Cancellation
from distcalib.caffe.belonging import belonging_warnings
from distcalib.caffe.graph import Graph
from distcalib.data.limits import limited
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Row, is_int8_kernel
from distcalib.errors import OptionError
from distcalib.metrics import (
    DEFAULT_AP,
    LOSS_TYPES,
    OF_LOSSES,
    SCORE_TYPES,
    Confusion,
    Detections,
    absent_classes,
    average_precisions,
    choose_score,
    class_accuracies,
    class_counts,
    confusions_of,
    detections_of,
    merged,
    without_labels,
)
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import params_of, runs_int8, storage
from distcalib.report import Evaluation
from distcalib.session.backend import open_backend, rows
from distcalib.session.checks import load_warnings
from distcalib.session.in_place import in_place_warnings
from distcalib.session.lengths import length_warnings
from distcalib.session.meaning import Rests
from distcalib.session.options import EvaluationOptions
from distcalib.session.progress import Logged, Reporter
from distcalib.session.session import Session


def evaluate(
    model: str | Path,
    weights: str | Path,
    options: EvaluationOptions | None = None,
    *,
    reporter: Reporter | None = None,
    cancellation: Cancellation | None = None,
) -> Evaluation:
    """Mean over the iterations of every output blob of the TEST net in `model`, run with `weights`.

    Layers with a quantization_param run INT8.  `cancellation` ends it from another thread, by Cancelled, which is a
    KeyboardInterrupt.  Raises the errors of distcalib.errors.

        distcalib.evaluate("net.prototxt", "net.caffemodel", distcalib.EvaluationOptions(n_actors=4))
    """
    options = EvaluationOptions() if options is None else options
    if not isinstance(options, EvaluationOptions):
        raise OptionError(f"options={options!r}: must be EvaluationOptions, such as EvaluationOptions(iterations=100)")
    with limited(options.largest_mb):
        return _evaluate(Path(model), Path(weights), options, reporter or Logged(), cancellation)


def _evaluate(
    model: Path, weights: Path, options: EvaluationOptions, reporter: Reporter, cancellation: Cancellation | None
) -> Evaluation:
    """As evaluate has it."""
    begin = time.perf_counter()
    backend = open_backend(options.root, options.isa)
    net = open_net(model, options.data, options.state)
    if options.detection:
        _refuse_without_map(net)
    ap_version = options.ap_version
    with Session(net, weights, reporter, options, backend=backend, cancellation=cancellation) as session:
        iterations = session.n_iterations
        started = time.perf_counter()
        [result] = session.measure("evaluate", [(net.spec(), iterations)])
        images_per_second = rate(result, session.n_actors, session.batch, time.perf_counter() - started)
        measured = rows(result)
        session.check_files()
        int8 = running_int8(net.graph)
        means, weights_of = scores(measured, ap_version), loss_weights(net)
        by_class = counts_by_class(net.graph, measured)
        return Evaluation(
            model=str(model),
            scores=means,
            average_precisions=class_scores(measured, ap_version),
            classes_without_objects={name: absent_classes(parts) for name, parts in detections(measured).items()},
            ap_version=ap_version,
            class_names=net.class_names,
            n_values={name: partial.denominator for name, partial in _whole(measured).scores.items()},
            loss_weights=weights_of,
            loss=math.fsum(weight * means[name] for name, weight in weights_of.items()),
            n_iterations=iterations,
            batch=session.batch,
            int8_layers=int8,
            without_int8_kernel=without_kernel(int8, measured),
            isa=session.isa.target,
            way=session.isa.way,
            kernels=session.isa.kernels,
            versions=session.versions,
            n_actors=session.n_actors,
            bad_records=session.bad_records(range(iterations)),
            n_retired=session.n_retired,
            seconds=time.perf_counter() - begin,
            images_per_second=images_per_second,
            warnings=(
                *belonging_warnings(net.path, Path(weights)),
                *_elsewhere(net, options),
                *_warnings(session, measured, means),
            ),
            segmentations=segmentations(measured),
            class_accuracies={top: class_accuracies(counts) for top, counts in by_class.items()},
            classes_without_labels={top: without_labels(counts) for top, counts in by_class.items()},
        )


def _refuse_without_map(net: Net) -> None:
    try:
        choose_score(net.test, detection=True)
    except OptionError as error:
        raise OptionError(f"{net.name}: {error}") from None


def _elsewhere(net: Net, options: EvaluationOptions) -> list[str]:
    """What Caffe computes otherwise or ends at; nothing where it is Caffe that measured."""
    return [] if options.root is not None else [*in_place_warnings(net), *load_warnings(net)]


def _warnings(session: Session, measured: Sequence[Row], means: Mapping[str, float]) -> Iterator[str]:
    """What makes the scores worth less than they seem."""
    scored = [node.tops[0].name for node in session.net.graph if node.type in SCORE_TYPES and node.tops]
    for name in scored:
        values = [row.scores[name] for row in measured]
        rests = Rests(session.net, name, values, session.inputs.shapes, session.inputs.indexes)
        if rests.n_counted == 0:
            yield rests.nothing
        else:
            yield from rests.warnings(means[name])
    yield from length_warnings(session.inputs.lengths, len(measured), session.net.name)


def _whole(measured: Sequence[Row]) -> Row:
    """A row without records left out, if there is one."""
    return next((row for row in measured if not row.left_out), measured[0])


def scores(found: Sequence[Row], ap_version: str = DEFAULT_AP) -> Mapping[str, float]:
    """The mean over all iterations of each output blob, or its mAP, exact whatever actor measured which."""
    return {name: merged([row.scores[name] for row in found], ap_version) for name in found[0].scores}


def class_scores(found: Sequence[Row], ap_version: str = DEFAULT_AP) -> dict[str, dict[int, float]]:
    """The AP of each class that has objects, of each output blob that has detections."""
    return {name: average_precisions(parts, ap_version) for name, parts in detections(found).items()}


def detections(found: Sequence[Row]) -> dict[str, list[Detections]]:
    """The detections of all iterations, of each output blob that has some."""
    parts = {name: detections_of(row.scores[name] for row in found) for name in found[0].scores}
    return {name: of_blob for name, of_blob in parts.items() if of_blob}


def segmentations(found: Sequence[Row]) -> dict[str, dict[str, float]]:
    """What is reported of each output blob that is a mean IoU."""
    parts = {name: confusions_of([row.scores[name] for row in found]) for name in found[0].scores}
    sums = {name: Confusion.summed(of_blob) for name, of_blob in parts.items() if of_blob}
    return {
        name: {"mean_iou": one.mean_iou, "pixel_accuracy": one.pixel_accuracy, "mean_recall": one.mean_recall}
        for name, one in sums.items()
    }


def counts_by_class(graph: Graph, found: Sequence[Row]) -> dict[str, tuple[tuple[int, int], ...]]:
    """Of each second top of an Accuracy: by class the labels of all iterations, and those of them that are found."""
    tops = {node.tops[1].name: node.tops[0].name for node in graph if node.type == "Accuracy" and len(node.tops) == 2}
    counts = {top: class_counts(row.scores[name] for row in found) for top, name in tops.items()}
    return {top: of_top for top, of_top in counts.items() if of_top}


def loss_weights(net: Net) -> dict[str, float]:
    """The weight of each loss that is one: 1 unless the layer says otherwise."""
    losses = [
        node
        for node in net.graph
        if node.type in LOSS_TYPES or (node.type in OF_LOSSES.values() and node.layer.loss_weight)
    ]
    weights = {n.tops[0].name: n.layer.loss_weight[0] if n.layer.loss_weight else 1.0 for n in losses}
    return {name: weight for name, weight in weights.items() if weight != 0.0}


def rate(result: JobResult, n_actors: int, batch: int, wall_seconds: float) -> float:
    """Images/s of all actors together, from the wall time less compiling and importing the program; `batch` images an
    iteration."""
    busy = wall_seconds - result.compile_seconds - result.load_seconds / n_actors
    return result.size * batch / max(busy, 1e-9)


def running_int8(graph: Graph) -> tuple[str, ...]:
    """The layers that multiply integers, in net order: those with a quantization_param and no FP32 residual."""
    groups, params = find_fused(graph), params_of(graph)
    stored = storage(graph, groups, params)
    return tuple(name for name, group in groups.items() if runs_int8(group, params, stored))


def without_kernel(int8: Sequence[str], found: Sequence[Row]) -> tuple[str, ...]:
    """INT8 layers for which the engine had no INT8 kernel here: same integers, but no faster than FP32.  None of them
    where the engine does not tell.
    """
    kernels = found[0].kernels
    if kernels is None:
        return ()
    return tuple(name for name in int8 if not is_int8_kernel(kernels.get(name, "")))
