"""`distcalib evaluate` prints what `caffe test` prints."""

import json
from dataclasses import replace

import pytest

from distcalib.cli.evaluate import lines
from distcalib.cli.exit_codes import OK
from distcalib.cli.main import main
from distcalib.report import Evaluation
from tests.session.tiny import ITERATIONS, Tiny

RESULT = Evaluation(
    model="net.prototxt",
    scores={"accuracy-top1": 0.8187, "accuracy-top5": 0.991, "loss": 0.5332931, "loss1": 2.0},
    average_precisions={},
    classes_without_objects={},
    ap_version="11point",
    class_names={},
    n_values={},
    loss_weights={"loss": 1.0, "loss1": 0.3},
    loss=1.1332931,
    n_iterations=100,
    batch=100,
    int8_layers=("conv2", "conv3"),
    without_int8_kernel=(),
    isa="cascadelake",
    way="native",
    kernels="avx512_core_vnni",
    versions={},
    n_actors=2,
    seconds=3.0,
    images_per_second=4812.3,
)


def test_lines_are_those_of_caffe_test() -> None:
    assert lines(RESULT) == [
        "Loss: 1.13329",
        "accuracy-top1 = 0.8187",
        "accuracy-top5 = 0.991",
        "loss = 0.533293 (* 1 = 0.533293 loss)",
        "loss1 = 2 (* 0.3 = 0.6 loss)",
        "100 iterations of 100 images, 2 INT8 layers, 4,812 images/s on 2 actors (cascadelake, native)",
    ]
    assert lines(replace(RESULT, n_actors=1))[-1].endswith(" images/s on 1 actor (cascadelake, native)")


def test_lines_tell_what_has_no_kernel() -> None:
    shown = lines(replace(RESULT, without_int8_kernel=("conv3",)))
    assert "without an INT8 kernel here: conv3" in shown


def test_lines_say_that_memory_ran_out() -> None:
    said = "memory ran out: 3 actor(s) were given up, and others did their work; --actors asks for fewer"
    assert said not in lines(RESULT)
    assert said in lines(replace(RESULT, n_retired=3))


@pytest.mark.usefixtures("one_ray")
def test_evaluate_prints_scores_and_json(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", str(tiny.prototxt), "-w", str(tiny.weights), "-i", str(ITERATIONS), "--actors", "1"]
    assert main(args) == OK
    shown = capfd.readouterr().out.splitlines()
    assert main([*args, "--json"]) == OK
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert f"accuracy-top1 = {found['scores']['accuracy-top1']:.6g}" in shown
    assert f"Loss: {found['loss']:.6g}" in shown
    assert shown[-1].startswith("6 iterations of 8 images, 0 INT8 layers, ")
    assert "starting actors" in err


def test_lines_tell_the_ap_of_each_class_below_its_map() -> None:
    result = replace(
        RESULT,
        scores={"map": 0.625, "other": 1.0},
        average_precisions={"map": {1: 0.75, 2: 0.5}},
        classes_without_objects={"map": (3,)},
        class_names={1: "aeroplane", 3: "boat"},
    )
    assert lines(result)[1:6] == [
        "map = 0.625",
        "    class 1 (aeroplane): 0.75",
        "    class 2: 0.5",
        "    class 3 (boat): no object in the data, counts as 0",
        "other = 1",
    ]


def test_lines_tell_the_accuracy_of_each_class() -> None:
    result = replace(
        RESULT,
        class_accuracies={"each": {0: 0.75, 2: 1 / 3}},
        classes_without_labels={"each": (1,)},
    )
    assert lines(result)[5:9] == [
        "each, the accuracy of each class:",
        "    class 0: 0.75",
        "    class 1: no label in the data",
        "    class 2: 0.333333",
    ]
