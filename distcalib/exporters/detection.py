"""Caffe's DetectionOutput as OpenVINO's operator of that name, where the answers of both are the same boxes.

Measured on the host everywhere else (metrics/detection_output.py), because the operator gives a fixed number of rows,
the last of them marked by an item of -1, and has neither `eta` nor CORNER_SIZE. A file must carry its detections, so it
is used here; the rows behind the mark are dropped by who reads them, and what it cannot do is refused before anything
is written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset8 as ops8
from openvino import Output

from distcalib.caffe.caffe_pb2 import LayerParameter, PriorBoxParameter
from distcalib.caffe.graph import Blob, Graph
from distcalib.errors import UnsupportedError
from distcalib.exporters.folding import folded
from distcalib.layers.shapes import reshape, shape_of
from distcalib.metrics import FRCNN, YOLO_V2, YOLO_V3

_CODES = {
    PriorBoxParameter.CORNER: "caffe.PriorBoxParameter.CORNER",
    PriorBoxParameter.CENTER_SIZE: "caffe.PriorBoxParameter.CENTER_SIZE",
}


def refuse_detection(graph: Graph, wanted: Sequence[Blob], where: str) -> None:
    """Raise UnsupportedError naming every layer of detections in `wanted` that a file cannot hold as it is."""
    layers = [graph.producer[blob].layer for blob in wanted]
    said = [f"{where}: layer '{layer.name}' ({layer.type}): {reason}" for layer in layers for reason in _reasons(layer)]
    if said:
        raise UnsupportedError("; ".join(said) + "; export its inputs with --outputs, and take the boxes yourself")


def _reasons(layer: LayerParameter) -> list[str]:
    if layer.type in (FRCNN, YOLO_V2, YOLO_V3):
        return ["no operator of an exported file makes its boxes"]
    if layer.type != "DetectionOutput":
        return []
    p = layer.detection_output_param
    reasons = []
    if p.nms_param.eta != 1.0:
        reasons.append(f"eta={p.nms_param.eta:g}: no operator of an exported file lowers its threshold from box to box")
    if p.code_type not in _CODES:
        reasons.append("code_type: CORNER_SIZE: no operator of an exported file decodes it")
    if not 0 <= p.background_label_id < p.num_classes:
        reasons.append(f"background_label_id={p.background_label_id}, which is not a class")
    if p.nms_param.HasField("top_k") and p.nms_param.top_k == 0:
        reasons.append("top_k=0 leaves no box")
    if p.keep_top_k == 0:
        reasons.append("keep_top_k=0 leaves no box")
    return reasons


def attributes(layer: LayerParameter, n_priors: int) -> dict[str, Any]:
    """What OpenVINO's DetectionOutput is made with."""
    p = layer.detection_output_param
    classes = int(p.num_classes)
    top_k = int(p.nms_param.top_k) if p.nms_param.HasField("top_k") else -1
    keep = int(p.keep_top_k) if p.keep_top_k > 0 else (classes - 1) * (min(top_k, n_priors) if top_k > 0 else n_priors)
    return {
        "background_label_id": int(p.background_label_id),
        "top_k": top_k,
        "variance_encoded_in_target": bool(p.variance_encoded_in_target),
        "keep_top_k": [keep],
        "code_type": _CODES[p.code_type],
        "share_location": bool(p.share_location),
        "nms_threshold": float(np.float32(p.nms_param.nms_threshold)),
        "confidence_threshold": float(p.confidence_threshold) if p.HasField("confidence_threshold") else -1e30,
        "clip_after_nms": False,
        "clip_before_nms": False,
        "decrease_label_id": False,
        "normalized": True,
        "input_height": 1,
        "input_width": 1,
        "objectness_score": 0.0,
    }


def detection_node(layer: LayerParameter, bottoms: Sequence[Output]) -> Output:
    """The operator on loc (N, P·L·4), conf (N, P·C) and priors (1, 2, P·4): (1, 1, N·K, 7), an item of -1 ends it."""
    loc, conf, priors = bottoms
    n_priors = shape_of(priors)[2] // 4
    flat = [
        x if len(shape_of(x)) == 2 else reshape(x, (shape_of(x)[0], int(np.prod(shape_of(x)[1:])))) for x in (loc, conf)
    ]
    known = folded(priors)
    if known is None:
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its priors are computed; PriorBox layers make constants"
        )
    if layer.detection_output_param.variance_encoded_in_target:
        known = known[:, :1]  # the operator takes no variances then
    constant = ops8.constant(np.ascontiguousarray(known, np.float32))
    node: ov.Node = ops8.detection_output(*flat, constant, attributes(layer, n_priors))
    node.set_friendly_name(layer.name)
    return node.output(0)


def real_rows(rows: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows (1, 1, R, 7) without those from the first item of -1 on."""
    ends = np.flatnonzero(rows[0, 0, :, 0] < 0.0)
    return rows[:, :, : ends[0]] if len(ends) else rows
