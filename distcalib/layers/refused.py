"""Layer types that Caffe or Intel Caffe knows and that are not converted, each with its reason.

A type that stands neither here nor in the registry is a typing error or another fork's; the two get different messages.
The reason completes the sentence "layer 'x' (Type): ...".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.needed import KNOWN_CODE
from distcalib.data import ABSENT, DATA_TYPES, REFUSED_DATA, absent_reason, makes_data

_LOSS = "is a training loss and is not evaluated; leave it out of the TEST phase with `include { phase: TRAIN }`"
_PROPOSAL = (
    "is of other forks, each with parameters of its own; write it as Intel Caffe 1.1.6's models do, "
    '`type: "Python"` with rpn.proposal_layer and ProposalLayer'
)
_TRAINING = "exists for training only; leave it out of the TEST phase with `include { phase: TRAIN }`"
_SEQUENCE = "is a recurrent layer of other forks; LSTM and RNN are converted"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        # detection: R-CNN family
        "SimplerNMS": _PROPOSAL,
        "BoxAnnotatorOHEM": _TRAINING,
        "HardMining": _TRAINING,
        "Smooth_L1": _LOSS,
        "SmoothL1LossOHEM": _LOSS,
        "SoftmaxWithLossOHEM": _LOSS,
        # recurrent
        "Recurrent": _SEQUENCE,
        "ContinuationIndicator": _SEQUENCE,
        # operators
        "BatchReindex": "picks records by value, so its output has no fixed shape",
        "Filter": "picks records by value, so its output has no fixed shape",
        # code, outputs, multi-node training
        "MnActivation": _TRAINING,
        "MnParamGradCompress": _TRAINING,
        # sources
        "BoxData": REFUSED_DATA["BoxData"],
        "MemoryData": REFUSED_DATA["MemoryData"],
        "VideoData": REFUSED_DATA["VideoData"],
        "WindowData": REFUSED_DATA["WindowData"],
    }
)


def refused_source(layer: LayerParameter) -> str | None:
    """Why a layer that makes data in a way of its own is not opened; None if it is none."""
    if not makes_data(layer) or layer.type in DATA_TYPES or layer.type in REFUSED:
        return None
    if layer.type == ABSENT:
        return absent_reason(layer)
    p = layer.python_param
    code = f" ({p.module}.{p.layer})" if layer.type == "Python" else ""
    tops = ", ".join(map(repr, layer.top))
    return f"makes data in a way of its own{code}; give arrays of its tops ({tops}) with --data FILE.npz"


def refused_code(layer: LayerParameter) -> str | None:
    """Why a Python layer is not converted; None if it is, or is no Python layer."""
    p = layer.python_param
    if layer.type != "Python" or (p.module, p.layer) in KNOWN_CODE:
        return None
    known = ", ".join(map(".".join, KNOWN_CODE))
    return (
        f"runs {p.module}.{p.layer}, code from outside the prototxt, which cannot be compiled; "
        f"of Python layers {known} alone is known"
    )
