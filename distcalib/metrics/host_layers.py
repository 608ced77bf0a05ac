"""The layers that run on the host: Caffe's accuracy and loss layers on arrays, which say something of one iteration,
and what detections are made and scored by.

They are not in the compiled net: a score must be exact and is a few thousand operations. The formulas are
those of the layers' .cpp files; sums are in float64, where Caffe's float32 wanders in the sixth digit. loss_weight is
not applied, since `caffe test` prints the unweighted value (and the weighted one beside it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import HingeLossParameter, LayerParameter, LossParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics.classes import where as _where
from distcalib.metrics.detection_evaluate import check_detection_evaluate, check_rows, detection_evaluate
from distcalib.metrics.detection_output import check_detection_output, check_sizes, detection_output
from distcalib.metrics.eval_detection import check_eval_detection, check_map, eval_detection
from distcalib.metrics.frcnn_output import FRCNN, check_frcnn_output, check_frcnn_shapes, frcnn_output
from distcalib.metrics.infogain import INFOGAIN, check_infogain, check_infogain_shapes, infogain_loss
from distcalib.metrics.labelled import (
    check_labels,
    check_records,
    normalized,
    records_of,
    rows_of,
    without_ignored,
)
from distcalib.metrics.of_losses import OF_LOSSES, eltwise_of_losses, power_of_losses
from distcalib.metrics.pair_losses import check_as_many, check_one_shape, check_pairs, contrastive_loss, smooth_l1_loss
from distcalib.metrics.partial import Partial, PartialScore
from distcalib.metrics.segmentation import SEGMENTATION, check_maps_of_classes, seg_accuracy
from distcalib.metrics.yolo_v3 import (
    YOLO_V2,
    YOLO_V3,
    check_maps,
    check_v2_maps,
    check_yolo_v2_output,
    check_yolo_v3_output,
    yolo_v2_output,
    yolo_v3_output,
)

Array = npt.NDArray[Any]

FLT_MIN = float(np.finfo(np.float32).tiny)
"""Caffe's least probability in a SoftmaxWithLoss: the smallest normal float32."""

LOG_THRESHOLD = float(np.float32(1e-20))
"""Its least probability in a MultinomialLogisticLoss."""


def score_layer(
    layer: LayerParameter,
    bottoms: Sequence[Array],
    records: Sequence[int],
    batch_size: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> PartialScore:
    """What `layer`, one of SCORE_TYPES, makes of one iteration's bottoms (f32).

    `records`: the numbers in the data of the records that the bottoms are of; `batch_size`: how many there would be if
    none were left out; `files`: contents of files that it would read otherwise, by path.  Raises UnsupportedError and
    DataError.
    """
    if layer.type == SEGMENTATION:
        check_layer(layer)
        return seg_accuracy(layer, bottoms[0], bottoms[1])
    if layer.type in MAP_TYPES:
        check_layer(layer)
        if layer.type == YOLO_DETECTION:
            return eval_detection(layer, bottoms[0], bottoms[1])
        image_sizes = bottoms[2] if len(bottoms) == 3 else None
        return detection_evaluate(layer, bottoms[0], bottoms[1], records, files, image_sizes)
    made = replace(evaluate_layer(layer, bottoms), n_records=max(1, len(records)))
    if batch_size is None or len(records) == batch_size or not _is_sum(layer):
        return made
    return replace(made, numerator=made.numerator * batch_size / len(records))


def evaluate_layer(layer: LayerParameter, bottoms: Sequence[Array]) -> Partial:
    """What `layer` makes of one iteration's bottoms (f32): the value of its first top.

    Raises UnsupportedError for another type, for a parameter or a second top that is not evaluated and for shapes that
    do not fit, DataError for labels outside the classes; all name the layer.
    """
    check_layer(layer)
    _require_bottoms(layer, len(bottoms))
    if layer.type in _BY_BOTTOMS:
        return _BY_BOTTOMS[layer.type](layer, bottoms)
    return _EVALUATORS[layer.type](layer, bottoms[0], bottoms[1])


def make_layer(layer: LayerParameter, bottoms: Sequence[Array]) -> Array:
    """The top of `layer`, one of HOST_TYPES without a score.  Raises UnsupportedError."""
    return _MAKERS[layer.type][0](layer, bottoms)


def check_layer(layer: LayerParameter) -> None:
    """UnsupportedError for what evaluate_layer and make_layer refuse whatever the bottoms are: to be called before
    hours of work.
    """
    if layer.type not in HOST_TYPES:
        raise UnsupportedError(f"{_where(layer)}: is not a layer with a score; {', '.join(sorted(SCORE_TYPES))} are")
    if layer.type in SCORE_TYPES - MAP_TYPES and layer.bottom:
        _require_bottoms(layer, len(layer.bottom))
    if layer.type in _MAKERS:
        _MAKERS[layer.type][1](layer)
    if layer.type == DETECTION:
        if len(layer.bottom) not in (2, 3):
            raise UnsupportedError(f"{_where(layer)}: has {len(layer.bottom)} bottoms; it takes detections and labels")
        check_detection_evaluate(layer)
    if layer.type == YOLO_DETECTION:
        check_eval_detection(layer)
    if len(layer.top) > (2 if layer.type in _TWO_TOPS else 1):
        said = f"its {'third' if layer.type in _TWO_TOPS else 'second'} top is not evaluated; remove '{layer.top[-1]}'"
        raise UnsupportedError(f"{_where(layer)}: {said}")
    if layer.type == INFOGAIN:
        check_infogain(layer)
    if layer.type == "Accuracy" and layer.accuracy_param.top_k < 1:
        raise UnsupportedError(f"{_where(layer)}: top_k=0; it must be at least 1")
    if layer.type == "SoftmaxWithLoss" and layer.softmax_param.normalize_type != "Softmax":
        raise UnsupportedError(
            f'{_where(layer)}: normalize_type="{layer.softmax_param.normalize_type}" of another Caffe is not evaluated'
        )
    if layer.type == "SoftmaxWithLoss" and layer.loss_param.label_smoothing != 0.0:
        raise UnsupportedError(
            f"{_where(layer)}: label_smoothing={layer.loss_param.label_smoothing:g} is not evaluated; only 0 is"
        )


def check_shapes(layer: LayerParameter, shapes: Sequence[tuple[int, ...] | None]) -> None:
    """UnsupportedError if bottoms of these shapes are nothing for `layer`, as far as its parameters tell.

    None: not known, and then none of them is looked at.
    """
    n_read, check = _SHAPE_CHECKS.get(layer.type, (_ALL, None))
    count = len(shapes) if n_read == _ALL else n_read
    known = [shape for shape in shapes[:count] if shape is not None]
    if check is not None and len(known) == count and len(shapes) in _BOTTOMS.get(layer.type, (len(shapes),)):
        check(layer, *known)


def accuracy(layer: LayerParameter, scores: Array, labels: Array) -> Partial:
    """The part of labels among the top_k scores along `axis`:  scores (N, C, ...), labels (N, ...).

    Caffe sorts (score, class) pairs in descending order, so that of equal scores the larger class stands first. A NaN
    is above everything and never a hit: where Caffe's sort is undefined, a broken net must not score.  With a second
    top, labels and hits are counted by class, too.
    """
    rows, labels, hits = score_rows(layer, scores, labels)
    by_class: tuple[tuple[int, int], ...] = ()
    if len(layer.top) == 2:
        counts = (np.bincount(of, minlength=rows.shape[1]).tolist() for of in (labels, labels[hits]))
        by_class = tuple(zip(*counts, strict=True))
    return Partial(int(np.count_nonzero(hits)), len(labels), by_class=by_class)


def score_rows(
    layer: LayerParameter, scores: Array, labels: Array
) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of an Accuracy layer the class scores (n, C) of each label that counts, the labels (n,), and which are hits."""
    p = layer.accuracy_param
    _check_accuracy(layer, scores.shape, labels.shape)
    rows, labels = rows_of(layer, scores, labels, p.axis)
    n_classes = rows.shape[1]
    rows, labels = without_ignored(layer, rows, labels, p)
    own = rows[np.arange(len(labels)), labels][:, None]
    before = ~(rows <= own) | ((rows == own) & (np.arange(n_classes) > labels[:, None]))
    return rows, labels, np.asarray(before.sum(axis=1) < p.top_k)


def softmax_loss(layer: LayerParameter, scores: Array, labels: Array) -> Partial:
    """-Σ log(max(softmax(scores)[label], FLT_MIN)) / normalizer:  scores (N, C, ...), labels (N, ...).

    The softmax is along softmax_param.axis. The normalizer is at least 1: the count of labels that are not ignored
    (VALID, the default), of all labels (FULL), the batch (BATCH_SIZE), 1 (NONE) or pre_fixed_normalizer. The older
    `normalize` means VALID or BATCH_SIZE.  With weight_by_label_freqs each label's part is multiplied by the
    class_weighting of its class (caffe-segnet, softmax_loss_layer.cpp).
    """
    p = layer.loss_param
    rows, labels = rows_of(layer, scores, labels, layer.softmax_param.axis)
    n_all = len(labels)
    axis = layer.softmax_param.axis % scores.ndim
    rows, labels = without_ignored(layer, rows, labels, p)
    with np.errstate(invalid="ignore"):  # a net that overflows gives a loss of NaN, as in Caffe
        exponentials = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
    chosen = exponentials[np.arange(len(labels)), labels] / exponentials.sum(axis=1)
    losses = -np.log(np.maximum(chosen, FLT_MIN))
    if p.weight_by_label_freqs:
        losses = losses * _class_weights(layer, rows.shape[1])[labels]
    return normalized(p, float(losses.sum()), n_all, len(labels), prod(scores.shape[:axis]), LossParameter.VALID)


def _class_weights(layer: LayerParameter, n_classes: int) -> Array:
    """SegNet's weight of each class (C,)."""
    weights = layer.loss_param.class_weighting
    if len(weights) != n_classes:
        raise UnsupportedError(
            f"{_where(layer)}: weight_by_label_freqs with {len(weights)} class_weighting; {n_classes} are needed, "
            "one a class"
        )
    return np.array(weights, np.float64)


def sigmoid_cross_entropy_loss(layer: LayerParameter, x: Array, targets: Array) -> Partial:
    """-Σ t·log(sigmoid(x)) + (1 - t)·log(1 - sigmoid(x)) / normalizer, over two bottoms of as many elements.

    The normalizer is that of a SoftmaxWithLoss, but BATCH_SIZE (the first axis) by default.  Targets whose integer part
    is ignore_label are left out.
    """
    p = layer.loss_param
    check_as_many(layer, x.shape, targets.shape)
    values, wanted = x.astype(np.float64).ravel(), targets.astype(np.float64).ravel()
    if p.HasField("ignore_label"):
        counts = np.trunc(wanted) != p.ignore_label
        values, wanted = values[counts], wanted[counts]
    with np.errstate(invalid="ignore"):  # a net that overflows gives a loss of NaN
        losses = np.log1p(np.exp(-np.abs(values))) - values * (wanted - (values >= 0.0))
    return normalized(p, float(losses.sum()), x.size, len(values), x.shape[0], LossParameter.BATCH_SIZE)


def multinomial_logistic_loss(layer: LayerParameter, probabilities: Array, labels: Array) -> Partial:
    """-Σ log(max(p[label], 1e-20)) / N:  probabilities (N, ...) as C a record, labels (N)."""
    rows, labels = records_of(layer, probabilities, labels)
    chosen = np.maximum(rows[np.arange(len(labels)), labels].astype(np.float64), LOG_THRESHOLD)
    return Partial(float(-np.log(chosen).sum()), len(labels))


def hinge_loss(layer: LayerParameter, scores: Array, labels: Array) -> Partial:
    """Σ max(0, 1 ± s) / N, minus at the label; of the squares with norm L2:  scores (N, ...) as C a record."""
    rows, labels = records_of(layer, scores, labels)
    margins = rows.astype(np.float64)
    margins[np.arange(len(labels)), labels] *= -1.0
    margins = np.maximum(0.0, 1.0 + margins)
    squared = layer.hinge_loss_param.norm == HingeLossParameter.L2
    return Partial(float((margins**2 if squared else margins).sum()), len(labels))


def euclidean_loss(layer: LayerParameter, x: Array, y: Array) -> Partial:
    """Σ (x - y)² / 2N over two bottoms of N records and as many elements."""
    check_one_shape(layer, x.shape, y.shape)
    difference = x.astype(np.float64).ravel() - y.astype(np.float64).ravel()
    return Partial(float(difference @ difference), 2 * x.shape[0])


_BY_BOTTOMS: dict[str, Callable[[LayerParameter, Sequence[Array]], Partial]] = {
    "ContrastiveLoss": contrastive_loss,
    INFOGAIN: infogain_loss,
    OF_LOSSES["Eltwise"]: eltwise_of_losses,
    OF_LOSSES["Power"]: power_of_losses,
    "SmoothL1Loss": smooth_l1_loss,
}

SECOND_TOPS: Mapping[str, str] = {"InfogainLoss": "the probabilities", "SoftmaxWithLoss": "the probabilities"}
"""What the second top of a score has, by type, where it is not evaluated; nothing may read it."""
_TWO_TOPS = frozenset({"Accuracy", *SECOND_TOPS})
"""The scores that may have a second top; an Accuracy's has the accuracy of each class, and nothing may read it."""

_BOTTOMS: dict[str, tuple[int, ...]] = {
    "ContrastiveLoss": (3,),
    INFOGAIN: (2, 3),
    OF_LOSSES["Eltwise"]: tuple(range(2, 1000)),
    OF_LOSSES["Power"]: (1,),
    "SmoothL1Loss": (2, 3, 4),
}
"""How many bottoms a score takes, where it is not predictions and labels."""

_EVALUATORS: dict[str, Callable[[LayerParameter, Array, Array], Partial]] = {
    "Accuracy": accuracy,
    "SoftmaxWithLoss": softmax_loss,
    "EuclideanLoss": euclidean_loss,
    "HingeLoss": hinge_loss,
    "MultinomialLogisticLoss": multinomial_logistic_loss,
    "SigmoidCrossEntropyLoss": sigmoid_cross_entropy_loss,
}

DETECTION, YOLO_DETECTION = "DetectionEvaluate", "EvalDetection"

MAP_TYPES = frozenset({DETECTION, YOLO_DETECTION})
"""The layer types whose score is an mAP."""

SCORE_TYPES: set[str] = {*_EVALUATORS, *_BY_BOTTOMS, *MAP_TYPES, SEGMENTATION}
"""The layer types that evaluate_layer takes: ends of a net. `scores` adds to them."""

Check = Callable[[LayerParameter], None]
_MAKERS: Mapping[str, tuple[Callable[[LayerParameter, Sequence[Array]], Array], Check]] = {
    "DetectionOutput": (lambda layer, bottoms: detection_output(layer, list(bottoms)), check_detection_output),
    YOLO_V3: (yolo_v3_output, check_yolo_v3_output),
    YOLO_V2: (yolo_v2_output, check_yolo_v2_output),
    FRCNN: (frcnn_output, check_frcnn_output),
}
"""By type what makes detections, and what it refuses."""

HOST_TYPES: set[str] = {*SCORE_TYPES, *_MAKERS}
"""What the engine leaves out of the compiled net; what is no score makes a blob that only these read."""

LOSS_TYPES: set[str] = SCORE_TYPES - MAP_TYPES - {"Accuracy", SEGMENTATION, *OF_LOSSES.values()}
"""Those of them where a lower value is better."""

Evaluator = Callable[[LayerParameter, Sequence[Array]], Partial]
"""evaluator(layer, bottoms) -> the part that an iteration has of the score; bottoms are float32."""


def scores(
    layer_type: str, *, lower_is_better: bool, bottoms: Sequence[int] = (2,)
) -> Callable[[Evaluator], Evaluator]:
    """Register the function of a score layer, for plugins; `bottoms`: how many it may have.

    The score is the mean over the iterations, sums of numerators over sums of denominators; where higher is better it
    lies between 0 and 1.  Raises ValueError for a type that has a score already.
    """

    def register(evaluator: Evaluator) -> Evaluator:
        if layer_type in HOST_TYPES:
            raise ValueError(f"layer type {layer_type} has a score already")
        _BY_BOTTOMS[layer_type], _BOTTOMS[layer_type] = evaluator, tuple(bottoms)
        SCORE_TYPES.add(layer_type)
        HOST_TYPES.add(layer_type)
        if lower_is_better:
            LOSS_TYPES.add(layer_type)
        return evaluator

    return register


def _require_bottoms(layer: LayerParameter, n: int) -> None:
    """UnsupportedError for a number of bottoms that a score does not take."""
    counts = _BOTTOMS.get(layer.type, (2,))
    if n not in counts:
        wanted = " or ".join(map(str, counts)) if layer.type in _BOTTOMS else "predictions and labels"
        raise UnsupportedError(f"{_where(layer)}: {n} bottoms are given; it takes {wanted}")


def _is_sum(layer: LayerParameter) -> bool:
    """Whether the loss is a sum over the records, which grows with their number, and not a mean."""
    if layer.type not in ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss", INFOGAIN):
        return False  # Caffe divides by the records, whatever loss_param says
    p = layer.loss_param
    return p.HasField("normalization") and p.normalization in (LossParameter.NONE, LossParameter.PRE_FIXED)


def _check_accuracy(layer: LayerParameter, scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """UnsupportedError for shapes that Accuracy does not take."""
    p = layer.accuracy_param
    check_labels(layer, scores, labels, p.axis)
    if p.top_k > scores[p.axis]:
        raise UnsupportedError(f"{_where(layer)}: top_k={p.top_k} of {scores[p.axis]} classes; lower it")


def _check_softmax_loss(layer: LayerParameter, scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """UnsupportedError for shapes that SoftmaxWithLoss does not take."""
    check_labels(layer, scores, labels, layer.softmax_param.axis)
    if layer.loss_param.weight_by_label_freqs:
        _class_weights(layer, scores[layer.softmax_param.axis])


_ALL = 0
_SHAPE_CHECKS: Mapping[str, tuple[int, Callable[..., None]]] = {
    YOLO_DETECTION: (1, check_map),
    "DetectionOutput": (3, check_sizes),
    FRCNN: (4, check_frcnn_shapes),
    DETECTION: (2, check_rows),
    "Accuracy": (2, _check_accuracy),
    "SoftmaxWithLoss": (2, _check_softmax_loss),
    "ContrastiveLoss": (3, check_pairs),
    "EuclideanLoss": (2, check_one_shape),
    "HingeLoss": (2, check_records),
    INFOGAIN: (_ALL, check_infogain_shapes),
    "MultinomialLogisticLoss": (2, check_records),
    "SigmoidCrossEntropyLoss": (2, check_as_many),
    "SmoothL1Loss": (_ALL, check_one_shape),
    SEGMENTATION: (2, check_maps_of_classes),
    YOLO_V2: (_ALL, check_v2_maps),
    YOLO_V3: (_ALL, check_maps),
}
"""By type how many bottoms are looked at, and by what."""
