"""The boxes of YOLO v2 beside its raw map: what EvalDetection takes for detections, in an exported file.

The formulas are those of metrics/eval_detection.py: of each cell five boxes, the likeliest class, a score by
`score_type`; boxes suppress each other whatever their classes are, and at an overlap of just `nms`, too. No label is
looked at here, so boxes that Caffe leaves out of the count, being near no object of their class, are among the rows.
"""

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import EvalDetectionParameter, LayerParameter
from distcalib.layers.shapes import constant, integers
from distcalib.metrics import LEAST_SCORE, N_ANCHORS

SUFFIX = "_boxes"
"""What the name of the output has behind that of the map."""


def yolo_boxes(layer: LayerParameter, maps: Output) -> Output:
    """Maps (N, 5·(5 + classes), side, side) -> rows (R, 7) of (item, label, score, xmin, ymin, xmax, ymax), in parts of
    the image, by item and falling score.
    """
    p, side = layer.eval_detection_param, int(layer.eval_detection_param.side)
    n_cells = side * side
    cells = ops.reshape(maps, integers([-1, N_ANCHORS, 5 + p.num_class, n_cells]), special_zero=False)
    sides = integers([1, 1, 1, 1, 1, p.num_class])
    x, y, width, height, objectness, logits = ops.variadic_split(cells, ops.constant(np.int64(2)), sides).outputs()
    rows, columns = np.divmod(np.arange(n_cells, dtype=np.float32), np.float32(side))
    biases = np.array(p.biases, np.float32).reshape(1, N_ANCHORS, 2, 1) / np.float32(side)
    center_x = _times(ops.add(ops.sigmoid(x), constant(columns)).output(0), 1.0 / side)
    center_y = _times(ops.add(ops.sigmoid(y), constant(rows)).output(0), 1.0 / side)
    half_x = _times(ops.multiply(ops.exp(width), constant(biases[:, :, :1])).output(0), 0.5)
    half_y = _times(ops.multiply(ops.exp(height), constant(biases[:, :, 1:])).output(0), 0.5)
    best = ops.topk(ops.softmax(logits, 2), ops.constant(np.int64(1)), 2, "max", "value", "i64", stable=True)
    label = ops.add(ops.convert(best.output(1), "f32"), constant(1.0)).output(0)
    scores = _scores(p, ops.sigmoid(objectness).output(0), best.output(0))
    corners = [
        ops.subtract(center_x, half_x),
        ops.subtract(center_y, half_y),
        ops.add(center_x, half_x),
        ops.add(center_y, half_y),
    ]
    columns_of = ops.concat([label, scores, *(corner.output(0) for corner in corners)], 2)  # (N, 5, 6, S)
    n_boxes = n_cells * N_ANCHORS
    flat = ops.reshape(
        ops.transpose(columns_of, integers([0, 3, 1, 2])), integers([-1, n_boxes, 6]), special_zero=False
    ).output(0)
    return _kept(p, flat, n_boxes)


def _times(x: Output, factor: float) -> Output:
    return ops.multiply(x, constant(factor)).output(0)


def _scores(p: EvalDetectionParameter, objectness: Output, probability: Output) -> Output:
    if p.score_type == EvalDetectionParameter.OBJ:
        return objectness
    if p.score_type == EvalDetectionParameter.PROB:
        return probability
    return ops.multiply(objectness, probability).output(0)


def _kept(p: EvalDetectionParameter, boxes: Output, n_boxes: int) -> Output:
    """Those of (N, K, 6) that suppression leaves."""
    corners = ops.slice(boxes, integers([2]), integers([6]), integers([1]), integers([2]))
    scores = ops.transpose(
        ops.slice(boxes, integers([1]), integers([2]), integers([1]), integers([2])), integers([0, 2, 1])
    )
    chosen = ops.non_max_suppression(
        corners,
        scores,
        ops.constant(np.int64(n_boxes)),
        ops.constant(np.float32(p.nms)),
        ops.constant(np.nextafter(np.float32(LEAST_SCORE), np.float32(0.0))),
        box_encoding="corner",
        sort_result_descending=False,
        output_type="i64",
    ).output(0)
    item = ops.gather(chosen, integers([0]), integers([1]))
    place = ops.gather(chosen, integers([0, 2]), integers([1]))
    kept = ops.gather_nd(boxes, place, 0)
    return ops.concat([ops.convert(item, "f32"), kept], 1).output(0)
