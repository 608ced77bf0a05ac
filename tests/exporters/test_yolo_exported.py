"""The boxes of YOLO v2 in exported files, against those that EvalDetection looks at."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_weights
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import open_net
from distcalib.engine.spec import ElsewhereSpec
from distcalib.exporters import save_ir
from distcalib.exporters.measured import blobs_of, read_file
from distcalib.exporters.runtimes import open_model
from distcalib.metrics import LEAST_SCORE, merged
from distcalib.metrics.boxes import centred_overlaps
from distcalib.metrics.detection_output import suppressed
from distcalib.metrics.eval_detection import decoded
from tests.exporters.exports import Array, batches, exported, rows, run_both, score
from tests.session.tiny_yolo import make_tiny_yolo

pytest.importorskip("onnxruntime")


def expected(model: Path, maps: Array) -> Array:
    """Rows (item, label, score, corners) of what is left, by item and falling score."""
    p = next(node.layer for node in open_net(model).graph if node.type == "EvalDetection").eval_detection_param
    boxes, labels, scores = decoded(p, maps)
    found = []
    for item in range(len(maps)):
        best = np.flatnonzero(scores[item] >= LEAST_SCORE)
        best = best[np.argsort(-scores[item, best], kind="stable")]
        above = float(np.nextafter(np.float32(p.nms), np.float32(-np.inf)))
        best = best[suppressed(boxes[item, best], above, overlap=centred_overlaps)]
        middle, half = boxes[item, best, :2], boxes[item, best, 2:] / 2
        columns = [
            np.full(len(best), item),
            labels[item, best],
            scores[item, best],
            *(middle - half).T,
            *(middle + half).T,
        ]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found).astype(np.float32)


@pytest.mark.parametrize("batch", [None, 1], ids=["open", "1"])
def test_boxes_are_those_of_eval_detection(tmp_path: Path, batch: int | None) -> None:
    made = make_tiny_yolo(tmp_path)
    data = batches(made.prototxt, 1)[0]["data"][: batch or 4]
    files = exported(made.prototxt, made.weights, batch=batch)
    assert files.names == ("conv_reg", "conv_reg_boxes")
    for found in run_both(files, {"data": data}):
        wanted, boxes = expected(made.prototxt, found["conv_reg"]), found["conv_reg_boxes"]
        assert len(wanted) > len(data)
        order = np.lexsort((-boxes[:, 2], boxes[:, 0]))
        np.testing.assert_allclose(boxes[order], wanted, atol=1e-5)


def test_a_file_with_boxes_scores_as_the_engine_does(tmp_path: Path) -> None:
    made = make_tiny_yolo(tmp_path)
    net, path = open_net(made.prototxt), tmp_path / "model.xml"
    files = exported(made.prototxt, made.weights, batch=3)  # not that of the data
    save_ir(files, path, {})
    runtime = open_model(path)
    file = read_file(path, blobs_of(runtime.outputs, net.graph, path, net.name), net.graph)
    spec = ElsewhereSpec(net.spec(), files.outputs, file)
    found = [row.scores["eval_det"] for row in InProcess(net, read_weights(made.weights)).rows(spec, range(2))]
    assert merged(found) == pytest.approx(score(rows(made.prototxt, made.weights, 2), "eval_det"), abs=1e-3)
    assert merged(found) > 0.1
