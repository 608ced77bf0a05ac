"""YOLO v2 and the mAP of its EvalDetection, what is refused, and what inspect says; whole runs are in test_map.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.caffe.graph import Blob
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.main import main
from distcalib.engine.net import open_net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import Outputs, Row
from distcalib.errors import UnsupportedError
from distcalib.journal.codec import decode, encode
from distcalib.metrics import Detections, merged
from distcalib.session.inspect import inspect
from tests.calibration.reports import fields_of
from tests.data.databases import noise, raw_datum, write_lmdb
from tests.every import every
from tests.metrics.test_eval_detection import stated, stated_map
from tests.session.evaluated import evaluate
from tests.session.tiny_ssd import ITERATIONS, TinySsd, entries_of, worker_of
from tests.session.tiny_yolo import N_CLASSES, QUANTIZABLE, SIDE, make_tiny_yolo
from tests.standin import make_standin

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(
    iterations=ITERATIONS, recover="off", sampling_iterations=2, detection=True, accuracy_loss=0.1
)


@pytest.mark.slow
def test_calibrate_forces_u8_though_eval_detection_has_the_data_as_bottom(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    made = make_tiny_yolo(tmp_path / "net", encoded=True)  # raw records get no frame, and the net does not fit without
    options = replace(
        OPTIONS, first_conv_force_u8=True, strategy="none", n_actors=1, weights_channel="multiple", out=tmp_path
    )
    found = calibrate(made.prototxt, made.weights, options)
    assert found.plain is not None
    assert found.score == pytest.approx(found.plain.score, abs=0.1)


def test_the_command_line_takes_d_1_and_prints_the_map(
    tiny_yolo: TinySsd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*tiny_yolo.args, "-i", "2", "--actors", "1"]
    calibrated = ["calibrate", *common, "-s", "1", "-d", "1", "-l", "1", "--strategy", "none", "--out", str(tmp_path)]
    assert main(calibrated) == 0
    assert fields_of(tmp_path / "report.json")["metric"] == "eval_det"
    [written] = tmp_path.glob("*_quantized.prototxt")
    assert 'type: "RegionLoss"' in written.read_text(), "what is not measured is written again"
    capsys.readouterr()
    assert main(["evaluate", *common]) == 0
    printed = capsys.readouterr().out
    assert "eval_det = 0." in printed


def test_rows_of_the_worker_merge_to_what_test_detection_states(tiny_yolo: TinySsd) -> None:
    net = open_net(tiny_yolo.prototxt)
    [node] = [node for node in net.graph if node.type == "EvalDetection"]
    worker = worker_of(net, tiny_yolo.weights)
    worker.load("net", worker.compile(net.spec()))
    worker.load("maps", worker.compile(net.spec(outputs=Outputs(node.bottoms[:2]))))
    rows = worker.run("net", range(ITERATIONS))
    told, n_objects = [], dict.fromkeys(range(N_CLASSES), 0)
    for row in worker.run("maps", range(ITERATIONS)):
        more, counts = stated(node.layer, *(row.values[blob] for blob in node.bottoms[:2]))
        told += more
        n_objects = {label: n + counts[label] for label, n in n_objects.items()}
    parts = [row.scores["eval_det"] for row in rows]
    assert every(isinstance(part, Detections) for part in parts)
    assert merged(parts) == pytest.approx(stated_map(told, n_objects), abs=1e-6)
    kept = decode(encode(rows[0]))
    assert isinstance(kept, Row)
    assert kept.scores["eval_det"].value == parts[0].value, "the journal keeps by what the mean is divided"
    assert score_inputs(net, "eval_det") == (Blob("conv_reg", 0),)


def test_inspect_shows_the_net_without_its_loss(tiny_yolo: TinySsd) -> None:
    found = inspect(tiny_yolo.prototxt, tiny_yolo.weights)
    assert found.problems == ()
    assert found.quantizable == QUANTIZABLE
    shapes = {layer.name: layer.shapes for layer in found.layers}
    assert shapes["conv_reg"] == ((4, 5 * (5 + N_CLASSES), SIDE, SIDE),)
    assert shapes["eval_det"] == ((),)
    assert "det_loss" not in shapes


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nms: 0.45", "", "layer 'eval_det' (EvalDetection): nms=-1, with which Intel Caffe detects nothing"),
        (
            "num_class: 3 num_object",
            "num_class: 20 num_object",
            "its map has 40×4×4 values an image; num_object=5, num_class=20 and side=4 need 125×4×4",
        ),
        ('top: "eval_det"', 'top: "conv_reg2" top: "b"', "it takes a map, labels and, unread, the data, and makes one"),
    ],
    ids=["nms", "classes", "tops"],
)
def test_inspect_says_what_is_wrong_with_an_eval_detection(
    tiny_yolo: TinySsd, tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = tmp_path / "net.prototxt"
    text = tiny_yolo.prototxt.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    assert [said in problem for problem in inspect(file).problems] == [True]


def published() -> str:
    """models/intel_optimized_models/yolo/yolov2_test.prototxt of Intel Caffe 1.1.6, told shorter."""
    text = [
        'layer { name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TEST } transform_param {'
        "mean_value: 104 mean_value: 117 mean_value: 123 resize_param {"
        "prob: 1 resize_mode: WARP height: 544 width: 544 interp_mode: LINEAR } }"
        'data_param { source: "none/VOC0712_test_lmdb" batch_size: 8 backend: LMDB } annotated_data_param {'
        'batch_sampler { } label_map_file: "data/VOC0712/labelmap_voc.prototxt" } }'
    ]

    def conv(name: str, bottom: str, n: int, k: int) -> str:
        top = f"{name}-conv"
        fields = f"num_output: {n} kernel_size: {k} pad: {k // 2} stride: 1 bias_term: false"
        text.append(f'layer {{ bottom: "{bottom}" top: "{top}" name: "{top}" type: "Convolution" ')
        text.append(f"convolution_param {{ {fields} }} }}")
        for end, kind in (
            ("bn", '"BatchNorm" batch_norm_param { use_global_stats: true }'),
            ("scale", '"Scale" scale_param { bias_term: true }'),
            ("act", '"ReLU" relu_param { negative_slope: 0.1 }'),
        ):
            text.append(f'layer {{ bottom: "{top}" top: "{top}" name: "{name}-{end}" type: {kind} }}')
        return top

    top, number = "data", 0
    for stage in (
        [32],
        [64],
        [128, -64, 128],
        [256, -128, 256],
        [512, -256, 512, -256, 512],
        [1024, -512] * 2 + [1024],
    ):
        if number:
            number += 1
            text.append(f'layer {{ bottom: "{top}" top: "pool{number}" name: "pool{number}" type: "Pooling" ')
            text.append("pooling_param { kernel_size: 2 stride: 2 pool: MAX } }")
            top = f"pool{number}"
        for n in stage:
            number += 1
            top = conv(f"layer{number}", top, abs(n), 3 if n > 0 else 1)
    coarse = conv("extra_layer25", conv("extra_layer24", top, 1024, 3), 1024, 3)
    fine = conv("extra_layer26", "layer17-conv", 64, 1)
    text.append(f'layer {{ bottom: "{fine}" top: "reorg" name: "reorg" type: "Reorg" reorg_param {{ stride: 2 }} }}')
    text.append(f'layer {{ bottom: "reorg" bottom: "{coarse}" top: "cat" name: "cat" type: "Concat" }}')
    last = conv("extra_layer27", "cat", 1024, 3)
    text.append(f'layer {{ bottom: "{last}" top: "conv_reg" name: "conv_reg" type: "Convolution" ')
    text.append("convolution_param { num_output: 125 kernel_size: 1 } }")
    biases = " ".join(f"biases: {b}" for b in (1.32, 1.73, 3.19, 4.01, 5.06, 8.10, 9.47, 4.84, 11.24, 10.01))
    text.append('layer { name: "det_loss" type: "RegionLoss" bottom: "conv_reg" bottom: "label" top: "det_loss" ')
    text.append("loss_weight: 1 region_loss_param { side: 17 num_class: 20 coords: 4 num: 5 softmax: 1 jitter: 0.2 ")
    text.append("rescore: 1 bias_match: 1 object_scale: 5.0 noobject_scale: 1.0 class_scale: 1.0 coord_scale: 1.0 ")
    text.append(f"absolute: 1 thresh: 0.5 random: 0 {biases} }} }}")
    text.append('layer { name: "eval_det" type: "EvalDetection" bottom: "conv_reg" bottom: "label" bottom: "data" ')
    text.append('top: "eval_det" eval_detection_param { side: 17 num_class: 20 num_object: 5 threshold: 0.5 nms: 0.45 ')
    text.append(f"score_type: MULTIPLY {biases} }} }}")
    return "\n".join(text)


def test_inspect_takes_the_published_test_net_and_knows_its_shapes_without_data(tmp_path: Path) -> None:
    file = tmp_path / "yolov2_test.prototxt"
    file.write_text(published())
    found = inspect(file)
    assert found.problems == ()
    assert len(found.quantizable) == 22
    assert sum(note.endswith("shapes below assume (8, 3, 544, 544)") for note in found.notes) == 1
    shapes = {layer.name: layer.shapes for layer in found.layers}
    assert (len(shapes), "det_loss" in shapes) == (98, False)
    assert shapes["data"] == ((8, 3, 544, 544), (1, 1, -1, 8))
    assert (shapes["reorg"], shapes["conv_reg"]) == (((8, 256, 17, 17),), ((8, 125, 17, 17),))
    file.write_text(published().replace("height: 544 width: 544", "height: 416 width: 416"))
    assert [problem.split("its map ")[1] for problem in inspect(file).problems] == [
        "has 125×13×13 values an image; num_object=5, num_class=20 and side=17 need 125×17×17"
    ]
    file.write_text(published().replace("resize_mode: WARP", "resize_mode: FIT_SMALL_SIZE"))
    assert sum(note.endswith("shapes are not known") for note in inspect(file).notes) == 1


def test_a_label_outside_the_classes_ends_a_run_with_a_sentence(
    tiny_yolo: TinySsd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = AnnotatedDatum(datum=raw_datum(noise(3, 16, 16)), type=AnnotatedDatum.BBOX)
    box = record.annotation_group.add(group_label=9).annotation.add().bbox
    box.xmin, box.ymin, box.xmax, box.ymax = 0.1, 0.1, 0.5, 0.5
    boxes = write_lmdb(tmp_path / "boxes", entries_of([record]))
    file = tmp_path / "net.prototxt"
    file.write_text(tiny_yolo.prototxt.read_text().replace(str(tiny_yolo.database), str(boxes)))
    arguments = ["evaluate", "-m", str(file), "-w", str(tiny_yolo.weights), "-i", "1", "--actors", "1"]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "layer 'eval_det' (EvalDetection): 4 of 4 objects have a label outside 1 to 3 (such as 9)" in said
    assert "Traceback" not in said


def test_a_build_of_caffe_is_refused_as_caffe_test_has_no_such_map(tiny_yolo: TinySsd, tmp_path: Path) -> None:
    root = make_standin(tmp_path / "build").root
    with pytest.raises(UnsupportedError, match=r"no mAP of layer 'eval_det'.*test_detection; leave out -r"):
        evaluate(tiny_yolo.prototxt, tiny_yolo.weights, root=root)
