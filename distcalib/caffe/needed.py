"""Which layers of a TEST net are left out because nothing that a test is about needs them.

Training nets are tested as they are: with losses that `caffe test` would compute and nobody looks at, with the layers
that choose hard examples, and with Python layers that make their labels.  What is evaluated, and what a converted layer
reads, stays; a layer is left out only if none of its tops is read by one that stays.  Each is named in a note, because
Caffe would compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distcalib.caffe import caffe_pb2

Layer = caffe_pb2.LayerParameter

EVALUATED = frozenset(
    {
        "ContrastiveLoss",
        "EuclideanLoss",
        "HingeLoss",
        "InfogainLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "SmoothL1Loss",
        "SoftmaxWithLoss",
    }
)
"""The losses that have a value in TEST here: distcalib.metrics.LOSS_TYPES."""
_SCORES = EVALUATED | {"Accuracy", "SegAccuracy", "DetectionEvaluate", "EvalDetection"}
_TRAINING = frozenset(
    {
        "BboxAccuracy",
        "BoxAnnotatorOHEM",
        "DetectionAccuracy",
        "DetectionGroupAccuracy",
        "HardMining",
        "MarginInnerProduct",
        "SmoothL1LossOHEM",
        "SoftmaxWithLossOHEM",
        "Smooth_L1",
        "Smooth_L1_Loss",
        "Yolov3",
        "YoloSeg",
    }
)
"""Losses, choosers of examples, and what mscnn and cascade-rcnn print of their training (the error of boxes matched
with objects), of forks that give them names that do not end in "Loss"; sphereface's product that reads labels."""

KNOWN_CODE = (("rpn.proposal_layer", "ProposalLayer"),)
"""Module and class of the Python layers that are converted: see layers/proposal.py."""


class LeftOut(NamedTuple):
    """A layer that is left out of the TEST net, and the reason, which completes "layer 'x' (Type) is left out: "."""

    layer: Layer
    reason: str


_LOSS = "it is a loss of training, no score of a test"
_CODE = "it is code from outside the prototxt, and nothing that is measured reads what it makes"
_OF_TRAINING = "what it reads is made for training only"
_FOR_TRAINING = "only layers of training read what it makes"
_SILENCED = "its value is silenced"
_MOST_TOPS = {"SmoothL1Loss": 1, "SoftmaxWithLoss": 2}
"""How many tops a loss has in Caffe and its SSD branch."""
_MOST_BOTTOMS = {"SigmoidCrossEntropyLoss": 2}
"""How many bottoms a loss has in Caffe: with more, weights of each value, it is one of MNC's training."""
_WRITERS = frozenset({"HDF5Output", "MatWrite"})
_WRITES = "it writes a file, and makes nothing that is measured"
_SHAPERS = frozenset(
    {"Concat", "Crop", "Eltwise", "Flatten", "Permute", "Power", "Reshape", "Slice", "Split", "Squeeze"}
)
"""Types that make labels of labels."""


def is_training(layer: Layer) -> bool:
    """Whether the layer does nothing but train: a loss that is not evaluated here, or a chooser of examples."""
    if len(layer.top) > _MOST_TOPS.get(layer.type, len(layer.top)):
        return True  # the loss of each roi, by which the OHEM forks choose
    if len(layer.bottom) > _MOST_BOTTOMS.get(layer.type, len(layer.bottom)):
        return True
    return layer.type in _TRAINING or (layer.type.endswith("Loss") and layer.type not in EVALUATED)


def is_foreign_code(layer: Layer) -> bool:
    """Whether the layer is Python code that is not known, in the middle of the net or at its end."""
    p = layer.python_param
    return layer.type == "Python" and bool(layer.bottom) and (p.module, p.layer) not in KNOWN_CODE


def needed(layers: Sequence[Layer]) -> tuple[list[Layer], list[LeftOut]]:
    """The layers that a test needs, in their order, and those that are left out; Silence layers are cut to fit.

    `layers` are those of the TEST phase."""
    suspect = {top for layer in layers if is_training(layer) or is_foreign_code(layer) for top in layer.top}
    silenced = _silenced(layers)
    kept: list[Layer] = []
    left: list[LeftOut] = []
    read: set[str] = set()
    read_in_vain: set[str] = set()
    trained, labels = _after_training(layers), _of_labels(layers)
    for layer in reversed(layers):
        reason = _reason(layer, suspect, silenced) or (_OF_TRAINING if trained.intersection(layer.top) else "")
        if not reason and layer.top and labels.issuperset(layer.top) and not read_in_vain.isdisjoint(layer.top):
            reason = _FOR_TRAINING
        if reason and read.isdisjoint(layer.top):
            left.append(LeftOut(layer, reason))
            read_in_vain.update(layer.bottom)
            continue
        kept.append(layer)
        if layer.type != "Silence":
            read.update(layer.bottom)
    kept.reverse()
    left.reverse()
    gone = {top for one in left for top in one.layer.top} - {top for layer in kept for top in layer.top}
    return [fitted for layer in kept if (fitted := _without(layer, gone)) is not None], left


def _reason(layer: Layer, suspect: set[str], silenced: set[str]) -> str:
    """Why the layer may be left out if nothing reads it; "" if it must stay."""
    if is_training(layer):
        return _LOSS
    if layer.type in _WRITERS:
        return _WRITES
    if is_foreign_code(layer):
        return _CODE
    if layer.type in _SCORES:
        if not suspect.isdisjoint(layer.bottom):
            return _OF_TRAINING
        if layer.top and silenced.issuperset(layer.top):
            return _SILENCED
    return ""


def _after_training(layers: Sequence[Layer]) -> set[str]:
    """The blobs that are worked out from what training layers make, and that something reads again.

    The sum of the losses by which hard examples are chosen is one.
    """
    derived: set[str] = set()
    read = {blob for layer in layers for blob in layer.bottom}
    for layer in layers:
        if is_training(layer) or not derived.isdisjoint(layer.bottom):
            derived.update(layer.top)
    return derived & read


def _of_labels(layers: Sequence[Layer]) -> set[str]:
    """The blobs that are rearranged data."""
    read = {blob for layer in layers for blob in layer.bottom}
    made = {top for layer in layers if layer.bottom for top in layer.top}
    rearranged = {top for layer in layers if not layer.bottom for top in layer.top} | (read - made)
    data = set(rearranged)
    for layer in layers:
        if layer.type in _SHAPERS and layer.bottom and rearranged.issuperset(layer.bottom):
            rearranged.update(layer.top)
    return rearranged - data


def _silenced(layers: Sequence[Layer]) -> set[str]:
    """The blobs that Silence layers read."""
    return {blob for layer in layers if layer.type == "Silence" for blob in layer.bottom}


def _without(layer: Layer, gone: set[str]) -> Layer | None:
    """A Silence layer without the blobs that are not made any more, None if none remains; others as they are."""
    if layer.type != "Silence" or gone.isdisjoint(layer.bottom):
        return layer
    remaining = [blob for blob in layer.bottom if blob not in gone]
    if not remaining:
        return None
    fitted = Layer()
    fitted.CopyFrom(layer)
    fitted.bottom[:] = remaining
    return fitted
