"""`distcalib evaluate`: the scores of any prototxt, quantized or not, over N iterations; the `caffe test` of this
tool.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from distcalib.actors import JobResult
from distcalib.caffe.graph import Graph
from distcalib.caffe.phase import State
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Row
from distcalib.errors import OptionError
from distcalib.metrics import (
    DEFAULT_AP,
    LOSS_TYPES,
    SCORE_TYPES,
    Confusion,
    Detections,
    absent_classes,
    average_precisions,
    choose_score,
    confusions_of,
    detections_of,
    merged,
)
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.storage import params_of, runs_int8, storage
from distcalib.report import Evaluation
from distcalib.session.checks import (
    check_ap_version,
    check_iterations,
    check_skipping,
    in_place_warnings,
    load_warnings,
)
from distcalib.session.intel_caffe import CaffeBuild, open_build
from distcalib.session.lengths import length_warnings
from distcalib.session.meaning import Rests
from distcalib.session.progress import Reporter, Silent
from distcalib.session.protocol import Actors
from distcalib.session.session import Session, rows, versions
from distcalib.session.shipping import check_ship_data


def evaluate(
    model: str | Path,
    weights: str | Path,
    iterations: int = 10,
    *,
    n_actors: int | None = None,
    cores_per_actor: int | None = None,
    isa: str = "native",
    data: str | Path | None = None,
    stages: Iterable[str] = (),
    level: int = 0,
    detection: bool = False,
    ap_version: str = DEFAULT_AP,
    root: str | Path | None = None,
    address: str | None = None,
    skip_bad_records: bool = False,
    ship_data: bool = False,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Mean over `iterations` batches of every output blob of the TEST net in `model`, run with `weights`.

    Layers with a quantization_param run INT8.  `n_actors` None: one for each `cores_per_actor` physical cores, which
    None sets by the memory.  `root`: a build folder of Intel Caffe, which measures in place of the embedded engine.
    `detection`: the net must have a layer that is scored by mAP.  `ap_version`: how detections become an AP.
    `address`: of a Ray cluster, all nodes of which measure.
    `skip_bad_records`: a record that cannot be read is left out.  `ship_data`: actors are sent the data and open none.
    Raises the errors of distcalib.errors.
    """
    begin = time.perf_counter()
    check_iterations(iterations)
    check_ap_version(ap_version, root)
    check_skipping(skip_bad_records, root)
    check_ship_data(ship_data, root)
    build = open_build(root, isa)
    net = open_net(Path(model), None if data is None else Path(data), State(tuple(stages), level))
    if detection:
        _refuse_without_map(net)
    reporter = reporter or Silent()
    with Session(
        net,
        Path(weights),
        reporter,
        n_actors=n_actors,
        cores_per_actor=cores_per_actor,
        isa=isa,
        data=None if data is None else Path(data),
        build=build,
        address=address,
        skip_bad=skip_bad_records,
        n_iterations=iterations,
        ship_data=ship_data,
    ) as session:
        started = time.perf_counter()
        [result] = session.measure("evaluate", [(net.spec(), iterations)])
        images_per_second = rate(result, session, time.perf_counter() - started)
        found = rows(result)
        session.check_files()
        int8 = running_int8(net.graph)
        means, weights_of = scores(found, ap_version), loss_weights(net)
        return Evaluation(
            model=str(model),
            scores=means,
            average_precisions=class_scores(found, ap_version),
            classes_without_objects={name: absent_classes(parts) for name, parts in detections(found).items()},
            ap_version=ap_version,
            class_names=net.class_names,
            n_values={name: partial.denominator for name, partial in _whole(found).scores.items()},
            loss_weights=weights_of,
            loss=math.fsum(weight * means[name] for name, weight in weights_of.items()),
            n_iterations=iterations,
            batch=session.batch,
            int8_layers=int8,
            without_int8_kernel=without_kernel(int8, found),
            isa=session.isa.target,
            way=session.isa.way,
            kernels=session.isa.kernels,
            versions=versions(build),
            n_actors=session.n_actors,
            bad_records=session.bad_records(range(iterations)),
            n_retired=session.n_retired,
            seconds=time.perf_counter() - begin,
            images_per_second=images_per_second,
            warnings=(*_elsewhere(net, build), *_warnings(session, found, means)),
            segmentations=segmentations(found),
        )


def _refuse_without_map(net: Net) -> None:
    try:
        choose_score(net.test, detection=True)
    except OptionError as error:
        raise OptionError(f"{net.name}: {error}") from None


def _elsewhere(net: Net, build: CaffeBuild | None) -> list[str]:
    """What Caffe computes otherwise or ends at; nothing where it is Caffe that measured."""
    return [] if build is not None else [*in_place_warnings(net), *load_warnings(net)]


def _warnings(session: Session, found: Sequence[Row], means: Mapping[str, float]) -> Iterator[str]:
    """What makes the scores worth less than they seem."""
    scored = [node.tops[0].name for node in session.net.graph if node.type in SCORE_TYPES and node.tops]
    for name in scored:
        values = [row.scores[name] for row in found]
        rests = Rests(session.net, name, values, session.data_shapes, session.indexes)
        if rests.n_counted == 0:
            yield rests.nothing
        else:
            yield from rests.warnings(means[name])
    yield from length_warnings(session.lengths, len(found), session.net.name)


def _whole(found: Sequence[Row]) -> Row:
    """A row without records left out, if there is one."""
    return next((row for row in found if not row.left_out), found[0])


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
    """What is told of each output blob that is a mean IoU."""
    parts = {name: confusions_of([row.scores[name] for row in found]) for name in found[0].scores}
    sums = {name: Confusion.summed(of_blob) for name, of_blob in parts.items() if of_blob}
    return {
        name: {"mean_iou": one.mean_iou, "pixel_accuracy": one.pixel_accuracy, "mean_recall": one.mean_recall}
        for name, one in sums.items()
    }


def loss_weights(net: Net) -> dict[str, float]:
    """The weight of each loss that is one: 1 unless the layer says otherwise."""
    losses = [node for node in net.graph if node.type in LOSS_TYPES]
    weights = {n.tops[0].name: n.layer.loss_weight[0] if n.layer.loss_weight else 1.0 for n in losses}
    return {name: weight for name, weight in weights.items() if weight != 0.0}


def rate(result: JobResult, session: Actors, wall_seconds: float) -> float:
    """Images/s of all actors together, from the wall time less compiling and importing the program."""
    busy = wall_seconds - result.compile_seconds - result.load_seconds / session.n_actors
    return result.size * session.batch / max(busy, 1e-9)


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
    return tuple(name for name in int8 if not kernels.get(name, "").endswith("I8"))
