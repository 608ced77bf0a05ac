"""Whether a verdict says anything: what its score rests on, and whether the tolerance can be told from chance.

A net that is scored by nothing meets every tolerance: all labels ignored, boxes in pixels that lie outside every image.
That is refused, since there is nothing to compare.  Where there is something, and it is little, the verdict stands and
says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Node
from distcalib.data import Index, look_at_objects
from distcalib.engine.net import Net
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError
from distcalib.metrics import LOSS_TYPES, MAP_TYPES, SEGMENTATION, Confusion, Partial, PartialScore, detections_of

LARGE_TOLERANCE = 0.5
"""Of an accuracy or mAP: from here on somebody is likely to have meant points."""


@dataclass(frozen=True)
class Rests:
    """What a score of `net`, the blob `metric`, rests on: `values` by iteration, of FP32.

    `shapes`: of every value; `indexes`: of the sources of its data layers, by layer.
    """

    net: Net
    metric: str
    values: Sequence[PartialScore]
    shapes: Mapping[Blob, tuple[int, ...]]
    indexes: Mapping[str, Index | None]

    @property
    def _node(self) -> Node:
        return next(node for node in self.net.graph if node.tops and node.tops[0].name == self.metric)

    @property
    def n_counted(self) -> int | None:
        """The labels or objects that count; None where that is not known: of a loss, or from `caffe test`."""
        detections = detections_of(self.values)
        if detections:
            return sum(n for part in detections for n in part.positives.values())
        parts = [part for part in self.values if isinstance(part, Partial | Confusion)]
        if all(isinstance(part.numerator, int) for part in parts) or not any(part.denominator for part in parts):
            return sum(part.denominator for part in parts)
        return None

    def refuse_nothing(self) -> None:
        """Raise DataError if no label and no object counts."""
        if self.n_counted == 0:
            raise DataError(self.nothing)

    @property
    def nothing(self) -> str:
        """That nothing counts, and why."""
        return f"{self.net.name}: nothing counts for '{self.metric}', so its score says nothing: {self._why()}"

    def _why(self) -> str:
        """Why nothing counts, and what would do."""
        layer = self._node.layer
        if layer.type not in MAP_TYPES:
            if layer.type == SEGMENTATION:
                labels = ", ".join(map(str, layer.seg_accuracy_param.ignore_label))
                return f"all labels are of ignore_label {labels}; correct the labels, or take ignore_label out"
            ignored = layer.accuracy_param if layer.type == "Accuracy" else layer.loss_param
            return f"all labels are ignore_label {ignored.ignore_label}; correct the labels, or take ignore_label out"
        reasons = [look_at_objects(n.layer, self.net.path, self.indexes.get(n.name)).reason for n in self._annotated]
        reason = next(filter(None, reasons), "")
        return reason or "the data has no object that counts; give a database with boxes in 0 to 1"

    @property
    def _annotated(self) -> list[Node]:
        return [node for node in data_nodes(self.net.graph) if node.type == "AnnotatedData" and len(node.tops) > 1]

    def warnings(self, score: float, tolerance: float | None = None) -> list[str]:
        """What makes a verdict on `score`, that of FP32, worth little; `tolerance` None: there is no verdict."""
        layer = self._node.layer
        shown = f"'{self.metric}' is {score:.6g}" + (" in FP32" if tolerance is not None else "")
        warnings = []
        if layer.type in MAP_TYPES:
            looks = (
                look_at_objects(node.layer, self.net.path, self.indexes.get(node.name)) for node in self._annotated
            )
            warnings += [look.pixels for look in looks if look.pixels]
        if layer.type in LOSS_TYPES:
            warnings += self._loss_warnings(layer, score, shown)
        elif score == 0.0:
            warnings.append(f"{shown}: a net that finds nothing loses nothing; see labels and weights")
        elif layer.type == "Accuracy":
            warnings += self._chance_warnings(layer, score, shown)
        if tolerance is not None and layer.type not in LOSS_TYPES:
            warnings += self._tolerance_warnings(score, tolerance)
        return warnings

    def _loss_warnings(self, layer: caffe_pb2.LayerParameter, score: float, shown: str) -> list[str]:
        if score == 0.0:
            return [f"{shown}: probably no label counts; check the labels and ignore_label"]
        n_classes = self._n_classes(layer.softmax_param.axis) if layer.type == "SoftmaxWithLoss" else 0
        if n_classes > 1 and score >= math.log(n_classes):
            return [
                f"{shown}, no better than guessing among {n_classes} classes "
                f"({math.log(n_classes):.6g}); see labels, weights and transform_param"
            ]
        return []

    def _chance_warnings(self, layer: caffe_pb2.LayerParameter, score: float, shown: str) -> list[str]:
        n_classes, n = self._n_classes(layer.accuracy_param.axis), self.n_counted
        chance = layer.accuracy_param.top_k / n_classes if n_classes else 0.0
        if not n or chance >= 1.0:
            return []
        # as far as guessing comes by itself, one time in six
        if score > chance + math.sqrt(chance * (1.0 - chance) / n) or score == 1.0:
            return []
        return [
            f"{shown}, no better than guessing among {n_classes} classes "
            f"({chance:.6g}); see labels, weights and transform_param"
        ]

    def _tolerance_warnings(self, score: float, tolerance: float) -> list[str]:
        if tolerance >= LARGE_TOLERANCE:
            return [f"-l {tolerance:g} tolerates a loss of {100 * tolerance:g} points; 0.01 is one point"]
        if tolerance >= score > 0.0:
            return [f"-l {tolerance:g} is all that the FP32 net has ({score:.6g}), so any net meets it"]
        n = self.n_counted
        if n and 0.0 < tolerance < 1.0 / n:
            what = "object" if self._node.type in MAP_TYPES else "label"
            doubt = f"{n} {what}s cannot tell a loss of {tolerance:g}: one of them is {1.0 / n:.3g}"
            if n == 1:
                doubt = f"1 {what} cannot tell a loss of {tolerance:g}: it is all of the score"
            return [f"{doubt}; give more data, or all there are (without -i)"]
        return []

    def _n_classes(self, axis: int) -> int:
        """The size of the first bottom of the score along `axis`; 0 where that is not known."""
        shape = self.shapes.get(self._node.bottoms[0], ())
        if self._node.type != "Accuracy" and prod(shape) == 0:
            return 0
        return shape[axis] if -len(shape) <= axis < len(shape) else 0
