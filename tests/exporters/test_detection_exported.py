"""Detections of exported files, by OpenVINO's operator and ONNX's NonMaxSuppression, against those of the host."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.engine.net import open_net
from distcalib.errors import UnsupportedError
from distcalib.exporters import Exported, build_export, save_ir
from distcalib.exporters.detection import real_rows
from distcalib.exporters.folding import folded
from distcalib.layers import FileBlobs
from distcalib.metrics import make_layer, merged, score_layer
from tests.cpu import needs_vnni
from tests.exporters.exports import ROOT, Array, batches, exported, placed, quantized, rows, run_both, score

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_file import save_onnx
from distcalib.exporters.runtimes import open_model

SCENES = ROOT / "examples" / "digit_scenes"
N_PRIORS, N_CLASSES = 60, 4


def net(param: str, share: bool = True) -> tuple[caffe_pb2.LayerParameter, Exported]:
    """A DetectionOutput on given predictions and on the priors of a map of 5 x 6 places."""
    n_loc = 1 if share else N_CLASSES
    tops = {
        "loc": (2, N_PRIORS * n_loc * 4),
        "conf": (2, N_PRIORS * N_CLASSES),
        "map": (2, 1, 5, 6),
        "image": (2, 3, 50, 60),
    }
    text = "".join(f'layer {{ name: "in_{top}" type: "Input" top: "{top}" }}' for top in tops)
    text += (
        'layer { name: "pb" type: "PriorBox" bottom: "map" bottom: "image" top: "pb" prior_box_param { min_size: 12 '
    )
    text += "max_size: 20 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }"
    for top in ("loc", "conf"):
        text += f'layer {{ name: "{top}_flat" type: "Flatten" bottom: "{top}" top: "{top}_flat" }}'
    text += (
        'layer { name: "out" type: "DetectionOutput" bottom: "loc_flat" bottom: "conf_flat" bottom: "pb" top: "out" '
    )
    text += f"detection_output_param {{ num_classes: {N_CLASSES} share_location: {str(share).lower()} {param} }} }}"
    layers = text_format.Parse(text, caffe_pb2.NetParameter()).layer
    graph = build_graph(layers, "net")
    return layers[-1], build_export(graph, FileBlobs({}, "weights"), tops, "net")


def predictions(share: bool = True) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    n_loc = 1 if share else N_CLASSES
    loc = rng.normal(size=(2, N_PRIORS * n_loc * 4)).astype(np.float32)
    conf = rng.uniform(size=(2, N_PRIORS, N_CLASSES)).astype(np.float32)
    return {"loc": loc, "conf": (conf / conf.sum(-1, keepdims=True)).reshape(2, -1)}


CENTER = "code_type: CENTER_SIZE background_label_id: 0 "
DETECTORS = {
    "usual": (CENTER + "keep_top_k: 30 confidence_threshold: 0.2 nms_param { nms_threshold: 0.45 top_k: 20 }", True),
    "all kept": (CENTER + "confidence_threshold: 0.3 nms_param { nms_threshold: 0.3 }", True),
    "corners": ("code_type: CORNER background_label_id: 0 keep_top_k: 20 nms_param { nms_threshold: 0.45 }", True),
    "own boxes": (CENTER + "keep_top_k: 30 confidence_threshold: 0.2 nms_param { nms_threshold: 0.45 }", False),
    "encoded": (CENTER + "keep_top_k: 9 variance_encoded_in_target: true nms_param { nms_threshold: 0.45 }", True),
    "another background": (CENTER.replace("id: 0", "id: 2") + "keep_top_k: 30 nms_param { nms_threshold: 0.5 }", True),
}


def sorted_rows(found: Array) -> Array:
    """By item, label and falling score."""
    flat = real_rows(found)[0, 0]
    order = np.lexsort((-flat[:, 2], flat[:, 1], flat[:, 0]))
    return np.asarray(flat[order], np.float32)


@pytest.mark.parametrize(("param", "share"), DETECTORS.values(), ids=list(DETECTORS))
def test_detections_are_those_of_the_host(param: str, share: bool) -> None:
    layer, made = net(param, share)
    assert made.batch is None
    assert made.inputs == ("loc", "conf")  # priors are constants
    feeds = predictions(share)
    ir, onnx = run_both(made, feeds)
    priors = priors_of(made)
    expected = sorted_rows(make_layer(layer, [feeds["loc"], feeds["conf"], priors]))
    assert len(expected) >= 10
    for found in (ir["out"], onnx["out"]):
        assert found.shape[:2] == (1, 1)
        assert found.shape[3] == 7
        np.testing.assert_allclose(sorted_rows(found), expected, atol=1e-5)


def priors_of(made: Exported) -> Array:
    [node] = [op for op in made.model.get_ordered_ops() if op.get_type_name() == "DetectionOutput"]
    found = folded(node.input_value(2))
    assert found is not None
    return np.resize(found, (1, 2, 4 * N_PRIORS))  # where targets hold the variances, the file needs none


def test_detections_of_nothing_are_no_rows() -> None:
    param, share = DETECTORS["usual"]
    _, made = net(param, share)
    feeds = predictions(share)
    ir, onnx = run_both(made, {**feeds, "conf": np.zeros_like(feeds["conf"])})
    assert real_rows(ir["out"]).shape == real_rows(onnx["out"]).shape == (1, 1, 0, 7)


REFUSED = {
    "eta": (CENTER + "nms_param { nms_threshold: 0.4 eta: 0.9 }", "eta=0.9"),
    "corner size": ("code_type: CORNER_SIZE background_label_id: 0", "CORNER_SIZE"),
    "no background": (CENTER.replace("id: 0", "id: -1"), "background_label_id=-1"),
}


@pytest.mark.parametrize(("param", "said"), REFUSED.values(), ids=list(REFUSED))
def test_detections_that_no_file_can_hold_are_refused(param: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        net(param)


YOLO_V3 = """layer { name: "d" type: "Yolov3DetectionOutput" bottom: "x" top: "out" yolov3_detection_output_param {
  num_classes: 3 num_box: 2 biases: 1 biases: 2 biases: 3 biases: 4 mask: 0 mask: 1 anchors_scale: 8 mask_group_num: 1
  confidence_threshold: 0.1 nms_threshold: 0.4 } }"""


def test_boxes_of_yolo_v3_are_refused(tmp_path: Path) -> None:
    given = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 16 dim: 2 dim: 2 } } }'
    (tmp_path / "net.prototxt").write_text(given + YOLO_V3)
    graph = open_net(tmp_path / "net.prototxt").graph
    with pytest.raises(UnsupportedError, match=r"layer 'd' .*makes its boxes; export its inputs with --outputs"):
        build_export(graph, FileBlobs({}, "weights"), {"x": (1, 16, 2, 2)}, "net")


def map_of(path: Path, model: Path, n: int) -> float:
    """The mAP of the exported file over `n` iterations."""
    runtime = open_model(path)
    layer = next(node.layer for node in open_net(model).graph if node.type == "DetectionEvaluate")
    parts = []
    for batch in batches(model, n):
        [found] = runtime.run({"data": batch["data"]}).values()
        parts.append(score_layer(layer, [real_rows(found), batch["label"]], ()))
    return merged(parts)


def check_map(model: Path, weights: Path, n: int, blob: str, folder: Path) -> None:
    made = exported(model, weights)
    save_ir(made, folder / "model.xml", {})
    save_onnx(made, folder / "model.onnx", {}, "net")
    expected = score(rows(model, weights, n), blob)
    assert abs(map_of(folder / "model.xml", model, n) - expected) <= 0.001
    assert abs(map_of(folder / "model.onnx", model, n) - expected) <= 0.003


@needs_vnni
@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True], ids=["FP32", "INT8"])
def test_map_of_digit_scenes_is_that_of_evaluate(int8: bool, tmp_path: Path) -> None:
    model, weights = SCENES / "digit_scenes.prototxt", SCENES / "digit_scenes.caffemodel"
    if int8:
        model = quantized(model, weights, tmp_path)
    check_map(model, weights, 25, "detection_eval", tmp_path)


@needs_vnni
@pytest.mark.golden
@pytest.mark.parametrize("stem", ["tiny_ssd", "tiny_ssd_quantized"])
def test_map_of_the_recorded_ssd_is_that_of_evaluate(golden: Path, stem: str, tmp_path: Path) -> None:
    folder = golden / "golden_ssd"
    check_map(
        placed(folder / f"{stem}.prototxt", tmp_path), folder / "tiny_ssd.caffemodel", 8, "detection_eval", tmp_path
    )
