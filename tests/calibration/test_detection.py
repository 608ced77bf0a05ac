"""An SSD and its mAP: by a build of Caffe, what is refused, and what inspect says; whole runs are in test_map.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe.graph import Blob
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import open_net
from distcalib.engine.ranking import output_weights
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import Outputs
from distcalib.errors import EngineError, OptionError, UnsupportedError
from distcalib.metrics import Detections, merged
from distcalib.session.checks import net_notes, net_problems
from distcalib.session.evaluate import class_scores
from distcalib.session.inspect import inspect
from tests.every import every
from tests.session.evaluated import evaluate
from tests.session.tiny_ssd import ITERATIONS, QUANTIZABLE, TinySsd, make_tiny_ssd, worker_of
from tests.standin import make_standin

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(
    iterations=ITERATIONS, recover="off", sampling_iterations=2, detection=True, accuracy_loss=0.1
)


@pytest.mark.slow
def test_calibrate_by_map_uses_what_caffe_prints_with_a_build(tiny_ssd: TinySsd, tmp_path: Path) -> None:
    standin = make_standin(tmp_path / "build")
    options = replace(OPTIONS, strategy="none", n_actors=2)
    embedded = calibrate(tiny_ssd.prototxt, tiny_ssd.weights, replace(options, out=tmp_path / "embedded"))
    options = replace(options, root=standin.root, out=tmp_path / "out")
    found = calibrate(tiny_ssd.prototxt, tiny_ssd.weights, options)
    assert found.fp32_score == pytest.approx(embedded.fp32_score, abs=1e-6)
    assert found.all_int8_score == pytest.approx(embedded.all_int8_score, abs=1e-6)
    assert found.average_precisions == {}
    calls = [call["args"] for call in standin.calls]
    assert [args[-1] for args in calls] == ["-detection"] * 2
    assert [args[6] for args in calls] == [str(ITERATIONS)] * 2, "one slice of all"
    standin.fail_by("truncate")
    with pytest.raises(EngineError, match="is not that of a test: it has no mAP of 'map'"):
        evaluate(tiny_ssd.prototxt, tiny_ssd.weights, ITERATIONS, n_actors=1, root=standin.root)


def test_a_build_refuses_an_output_beside_the_map(tiny_ssd: TinySsd, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    added = 'layer { name: "more" type: "ReLU" bottom: "conv3" top: "more" }'
    file.write_text(tiny_ssd.prototxt.read_text() + added)
    with pytest.raises(UnsupportedError, match="takes 'more' for detections, too; let a Silence layer read it"):
        evaluate(file, tiny_ssd.weights, root=make_standin(tmp_path / "build").root)


def test_calibrate_refuses_what_map_does_not_have(tiny_ssd: TinySsd, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'map' is an mAP, which is not a mean of them; leave it out"):
        calibrate(tiny_ssd.prototxt, tiny_ssd.weights, replace(OPTIONS, confidence=0.99))
    with pytest.raises(OptionError, match="--ap-version Integral: `caffe test` takes 11point"):
        replace(OPTIONS, ap_version="Integral", root=tmp_path)
    with pytest.raises(OptionError, match="--ap-version x: unknown; choose 11point, MaxIntegral, Integral"):
        replace(OPTIONS, ap_version="x")
    with pytest.raises(OptionError, match="-d 1: the net has no DetectionEvaluate or EvalDetection layer"):
        text = tiny_ssd.prototxt.read_text().split('layer { name: "map"')[0]
        (tmp_path / "net.prototxt").write_text(text)
        calibrate(tmp_path / "net.prototxt", tiny_ssd.weights, OPTIONS)


def test_score_inputs_of_map_are_boxes_and_confidences(tiny_ssd: TinySsd) -> None:
    net = open_net(tiny_ssd.prototxt)
    assert score_inputs(net, "map") == (Blob("loc_flat", 0), Blob("prob_flat", 0))
    assert set(score_inputs(net, "")) == {Blob("loc_flat", 0), Blob("prob_flat", 0), Blob("priors", 0)}


def test_rows_of_the_worker_are_detections_that_merge(tiny_ssd: TinySsd) -> None:
    net = open_net(tiny_ssd.prototxt)
    assert [node.type for node in net.graph].count("MultiBoxLoss") == 0
    worker = worker_of(net, tiny_ssd.weights)
    worker.load("net", worker.compile(net.spec()))
    rows = worker.run("net", range(ITERATIONS))
    parts = [row.scores["map"] for row in rows]
    assert every(isinstance(part, Detections) for part in parts)
    assert 0.9 < merged(parts) <= 1.0
    assert class_scores(rows, "MaxIntegral").keys() == {"map"}
    assert parts[0].value == merged(parts[:1])


def test_ranking_weighs_boxes_and_confidences_by_their_size() -> None:
    reference = {i: (np.full(4, 10.0, np.float32), np.full(2, 0.5, np.float32)) for i in range(3)}
    assert output_weights(reference) == pytest.approx((1 / 100, 4.0))
    assert output_weights({0: reference[0][:1]}) == (1.0,)
    zeros = {0: (np.zeros(4, np.float32), np.ones(2, np.float32))}
    assert output_weights(zeros) == (1.0, 1.0)


def test_inspect_shows_sizes_that_differ_and_what_is_not_done(tmp_path: Path) -> None:
    made = make_tiny_ssd(tmp_path, output='visualize: true save_output_param { output_directory: "x" }')
    text = made.prototxt.read_text().replace("batch_sampler {}", "batch_sampler { sampler { min_scale: 0.3 } }")
    made.prototxt.write_text(
        text.replace("transform_param {", "transform_param { mirror: true distort_param { hue_prob: 0.5 }", 1)
    )
    found = inspect(made.prototxt, made.weights)
    assert found.problems == ()
    assert found.quantizable == QUANTIZABLE
    shapes = {layer.name: layer.shapes for layer in found.layers}
    assert shapes["data"] == ((4, 3, 16, 16), (1, 1, -1, 8))
    assert shapes["out"] == ((1, 1, -1, 7),)
    assert shapes["priors"] == ((1, 2, 8 * 8 * 2 * 4),)
    assert list(found.notes) == net_notes(open_net(made.prototxt))
    assert [note.split(": ", 1)[1] for note in found.notes] == [
        "layer 'loss' (MultiBoxLoss) is left out: it is a loss of training, no score of a test",
        "layer 'data' (AnnotatedData): random batch_sampler, distort_param and mirror, which Caffe draws in TEST too, "
        "are not applied; take them out of the TEST phase",
        "layer 'out' (DetectionOutput): save_output_param is ignored: no detections are written to files",
        "layer 'out' (DetectionOutput): visualize is ignored: nothing is shown",
    ]


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            'layer { name: "r" type: "ReLU" bottom: "label" top: "r" }',
            "layer 'r' (ReLU): reads 'label', whose size differs from iteration to iteration; only DetectionEvaluate",
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "out" top: "r" }',
            "layer 'r' (ReLU) reads blob 'out', made by 'out' (DetectionOutput); remove that reader",
        ),
    ],
    ids=["labels", "detections"],
)
def test_inspect_refuses_a_layer_that_reads_what_varies(
    tiny_ssd: TinySsd, tmp_path: Path, added: str, said: str
) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(tiny_ssd.prototxt.read_text() + added)
    assert any(said in problem for problem in inspect(file, tiny_ssd.weights).problems)


@pytest.mark.parametrize(
    ("tops", "said"),
    [
        ("", "layer 'map' (DetectionEvaluate): has no top; name the blob that it makes"),
        ('top: "map" top: "more"', "layer 'map' (DetectionEvaluate): its second top is not evaluated; remove 'more'"),
    ],
    ids=["none", "two"],
)
def test_inspect_refuses_a_score_without_its_one_top(tiny_ssd: TinySsd, tmp_path: Path, tops: str, said: str) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(tiny_ssd.prototxt.read_text().replace('bottom: "label" top: "map"', f'bottom: "label" {tops}'))
    assert inspect(file, tiny_ssd.weights).problems == (f"net.prototxt: {said}",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'bottom: "prob_flat" bottom: "priors" top: "out"',
            'bottom: "prob_flat" bottom: "priors" top: "out" # share_location',
            "",
        ),
        (
            "detection_output_param { num_classes: 3",
            "detection_output_param { num_classes: 3 share_location: false",
            "layer 'out' (DetectionOutput): its bottoms have 512 and 384 values an image for 128 priors, 3 classes and "
            "3 boxes a prior; 1536 and 384 would fit",
        ),
        (
            'bottom: "out" bottom: "label" top: "map"',
            'bottom: "label" bottom: "out" top: "map"',
            "layer 'map' (DetectionEvaluate): its bottoms have shapes (1, 1, -1, 8) and (1, 1, -1, 7); rows of 7 as "
            "DetectionOutput makes them and of 8 as AnnotatedData does are needed",
        ),
    ],
    ids=["fits", "share_location", "swapped"],
)
def test_inspect_sees_bottoms_of_detection_layers_that_do_not_fit(
    tiny_ssd: TinySsd, tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = tmp_path / "net.prototxt"
    text = tiny_ssd.prototxt.read_text()
    assert old in text
    file.write_text(text.replace(old, new + "\n"))
    assert inspect(file, tiny_ssd.weights).problems == ((f"net.prototxt: {said}",) if said else ())


def test_evaluate_takes_a_net_that_silences_boxes_and_detections(tiny_ssd: TinySsd, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    silence = 'layer { name: "s" type: "Silence" bottom: "label" bottom: "out" }'
    more = 'layer { name: "t" type: "Softmax" bottom: "conv3" top: "t" }'
    file.write_text(tiny_ssd.prototxt.read_text().split('layer { name: "map"')[0] + silence + more)
    assert inspect(file, tiny_ssd.weights).problems == ()
    found = evaluate(file, tiny_ssd.weights, 2, n_actors=1)
    assert found.scores == {"t": pytest.approx(1 / 6)}
    assert found.average_precisions == {}


def test_net_problems_name_a_size_file_that_is_not_there(tiny_ssd: TinySsd, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    text = tiny_ssd.prototxt.read_text()
    head, tail = text.rsplit("num_classes: 3", 1)
    file.write_text(f'{head}num_classes: 3 name_size_file: "sizes.txt"{tail}')
    said = "sizes.txt: the name_size_file cannot be read (No such file or directory); correct its path"
    assert net_problems(open_net(file)) == [said]
    found = inspect(file)  # which counts it among the data, that may be elsewhere
    assert (found.problems, said in found.notes) == ((), True)
    (tmp_path / "sizes.txt").write_text("".join(f"image{i} 16 16\n" for i in range(24)))
    assert inspect(file).problems == ()
    assert evaluate(file, tiny_ssd.weights, 2, n_actors=1).scores["map"] > 0.5


@pytest.mark.slow
def test_calibrate_forces_u8_where_priors_know_the_size_of_the_image(tmp_path: Path, tiny_ssd: TinySsd) -> None:
    options = replace(OPTIONS, first_conv_force_u8=True, strategy="none", n_actors=1, weights_channel="multiple")
    with pytest.raises(UnsupportedError, match="pads, and -fu would pad 'data', whose size 'priors' takes; give these"):
        calibrate(tiny_ssd.prototxt, tiny_ssd.weights, replace(options, out=tmp_path / "0"))
    made = make_tiny_ssd(tmp_path / "net", prior="img_size: 16", encoded=True)
    found = calibrate(made.prototxt, made.weights, replace(options, out=tmp_path / "1"))
    assert found.fp32_score is not None
    assert found.plain is not None
    assert found.score == pytest.approx(found.plain.score, abs=0.1)
    outputs = Outputs((Blob("priors", 0),))
    nets = [open_net(made.prototxt), open_net(Path(found.output))]
    boxes = []
    for net, weights in zip(nets, (made.weights, Path(str(found.output_weights))), strict=True):
        worker = worker_of(net, weights)
        worker.load("net", worker.compile(net.spec(outputs=outputs)))
        boxes.append(worker.run("net", [0])[0].values[Blob("priors", 0)])
    np.testing.assert_array_equal(boxes[0], boxes[1])
