"""Which output of a net is its score, when the user does not say."""

from __future__ import annotations

from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter
from distcalib.errors import OptionError
from distcalib.metrics.host_layers import LOSS_TYPES, MAP_TYPES, SCORE_TYPES, check_layer
from distcalib.metrics.of_losses import OF_LOSSES
from distcalib.metrics.segmentation import SEGMENTATION


def choose_score(net: NetParameter, blob: str | None = None, detection: bool = False) -> str:
    """The blob to be scored by in a TEST net: `blob` if it is one, else the top of the Accuracy with the least top_k,
    of the SegAccuracy where there is no Accuracy, or, of a `detection` net, of the DetectionEvaluate or EvalDetection.

    The last of equals is taken, as the predecessor did: GoogLeNet's main classifier stands behind its auxiliary ones,
    loss1/top-1 and loss2/top-1. Raises OptionError naming all candidates if `blob` is none of
    them, or if none is given and the net has no such layer.
    """
    scores = score_layers(net)
    if detection:
        scores = {name: layer for name, layer in scores.items() if layer.type in MAP_TYPES}
        if not scores:
            kinds = " or ".join(sorted(MAP_TYPES))
            raise OptionError(f"-d 1: the net has no {kinds} layer to be scored by; add one, or leave out -d")
    named = ", ".join(f"'{name}' ({layer.type})" for name, layer in scores.items())
    remedy = f"choose one of {named}" if scores else "add an Accuracy layer to its TEST phase"
    if blob is not None:
        if blob not in scores:
            raise OptionError(f"-n {blob}: the net has no output blob '{blob}' to score by; {remedy}")
        check_layer(scores[blob])
        return blob
    if detection:
        last = next(reversed(scores))
        check_layer(scores[last])
        return last
    accuracies = [name for name, layer in scores.items() if layer.type == "Accuracy"]
    segmentations = [name for name, layer in scores.items() if layer.type == SEGMENTATION]
    if segmentations and not accuracies:
        check_layer(scores[segmentations[-1]])
        return segmentations[-1]
    if not accuracies:
        if any(layer.type in MAP_TYPES for layer in scores.values()):
            remedy += ", or give -d 1 for mAP"
        raise OptionError(f"the net has no Accuracy layer to be scored by; {remedy}")
    best = min(reversed(accuracies), key=lambda name: scores[name].accuracy_param.top_k)
    check_layer(scores[best])
    return best


def lower_is_better(net: NetParameter, blob: str) -> bool:
    """Whether the score `blob` of `net` is a loss."""
    return score_layers(net)[blob].type in LOSS_TYPES


def is_mean(net: NetParameter, blob: str) -> bool:
    """Whether the score `blob` of `net` is a mean of what its iterations say, and neither an mAP nor a mean IoU."""
    return score_layers(net)[blob].type not in MAP_TYPES | {SEGMENTATION}


def is_map(net: NetParameter, blob: str) -> bool:
    """Whether the score `blob` of `net` is an mAP."""
    return score_layers(net)[blob].type in MAP_TYPES


def score_layers(net: NetParameter) -> dict[str, LayerParameter]:
    """The layers whose value a net may be scored by: what is worked out of losses may fall where they rise."""
    types = SCORE_TYPES - set(OF_LOSSES.values())
    return {layer.top[0]: layer for layer in net.layer if layer.type in types and layer.top}
