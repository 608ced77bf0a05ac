"""Which score a net is measured by."""

import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import NetParameter
from distcalib.errors import OptionError, UnsupportedError
from distcalib.metrics import choose_score, is_map, lower_is_better

LOSS = 'layer { name: "l" type: "SoftmaxWithLoss" top: "loss" }'
TOP1 = 'layer { name: "a" type: "Accuracy" top: "top1" }'
TOP5 = 'layer { name: "b" type: "Accuracy" top: "top5" accuracy_param { top_k: 5 } }'


MAP = (
    'layer { name: "c" type: "DetectionEvaluate" bottom: "d" bottom: "e" top: "map" '
    "detection_evaluate_param { num_classes: 2 } }"
)


YOLO = (
    'layer { name: "y" type: "EvalDetection" bottom: "d" bottom: "e" bottom: "f" top: "yolo" '
    f"eval_detection_param {{ num_object: 5 nms: 0.5 biases: {[1.0] * 10} }} }}"
)


def net(*layers: str) -> NetParameter:
    return text_format.Parse("\n".join(layers), NetParameter())


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param([TOP1], "top1", id="one"),
        pytest.param([TOP5, TOP1, LOSS], "top1", id="least_k"),
        pytest.param([LOSS, TOP5], "top5", id="no_top1"),
        pytest.param([TOP1, TOP1.replace("top1", "second"), TOP5], "second", id="last_of_equals"),
    ],
)
def test_choose_score_takes_the_accuracy_of_least_k(layers: list[str], expected: str) -> None:
    assert choose_score(net(*layers)) == expected


@pytest.mark.parametrize(("blob", "lower"), [("top5", False), ("loss", True)])
def test_choose_score_takes_what_is_asked_for(blob: str, lower: bool) -> None:
    assert choose_score(net(TOP1, TOP5, LOSS), blob) == blob
    assert lower_is_better(net(TOP1, TOP5, LOSS), blob) is lower


def test_choose_score_of_detections_takes_their_evaluation() -> None:
    assert choose_score(net(TOP1, MAP, LOSS), detection=True) == "map"
    assert choose_score(net(TOP1, MAP), "map") == "map"
    assert lower_is_better(net(MAP), "map") is False
    with pytest.raises(
        OptionError, match="-d 1: the net has no DetectionEvaluate or EvalDetection layer to be scored by"
    ):
        choose_score(net(TOP1), detection=True)
    with pytest.raises(OptionError, match="-n top1: the net has no output blob 'top1' to score by; choose one of"):
        choose_score(net(TOP1, MAP), "top1", detection=True)
    with pytest.raises(OptionError, match=r"choose one of 'map' .DetectionEvaluate., or give -d 1 for mAP"):
        choose_score(net(MAP))


def test_choose_score_of_yolo_takes_its_evaluation() -> None:
    assert choose_score(net(TOP1, YOLO, LOSS), detection=True) == "yolo"
    assert choose_score(net(YOLO, MAP), detection=True) == "map"
    assert is_map(net(YOLO), "yolo")
    assert not lower_is_better(net(YOLO), "yolo")
    with pytest.raises(OptionError, match=r"choose one of 'yolo' .EvalDetection., or give -d 1 for mAP"):
        choose_score(net(YOLO))
    with pytest.raises(UnsupportedError, match="nms=-1, with which Intel Caffe detects nothing"):
        choose_score(net(YOLO.replace("nms: 0.5", "")), detection=True)


@pytest.mark.parametrize(
    ("layers", "blob", "says"),
    [
        pytest.param(
            [TOP1, LOSS],
            "acc",
            "-n acc: the net has no output blob 'acc' to score by; choose one of 'top1' (Accuracy), 'loss'",
            id="unknown",
        ),
        pytest.param(
            [LOSS], None, "no Accuracy layer to be scored by; choose one of 'loss' (SoftmaxWithLoss)", id="loss_only"
        ),
        pytest.param([], None, "add an Accuracy layer to its TEST phase", id="nothing"),
    ],
)
def test_choose_score_names_the_candidates(layers: list[str], blob: str | None, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_score(net(*layers), blob)
    assert says in str(caught.value)


def test_choose_score_refuses_before_the_work_what_cannot_be_evaluated() -> None:
    with pytest.raises(UnsupportedError, match="its third top is not evaluated; remove 'more'"):
        choose_score(net('layer { name: "a" type: "Accuracy" top: "top1" top: "each" top: "more" }'))
