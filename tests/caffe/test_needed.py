"""What a TEST net does without, and what it keeps."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.needed import needed


def layers(text: str) -> list[caffe_pb2.LayerParameter]:
    return list(text_format.Parse(text, caffe_pb2.NetParameter()).layer)


BODY = """
layer { name: 'data' type: 'Data' top: 'data' top: 'label' }
layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' }
"""

CASES = {
    "losses of training": (
        "layer { name: 'c' type: 'CenterLoss' bottom: 'fc' bottom: 'label' top: 'c' }"
        "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'l' }",
        {"c": "it is a loss of training, no score of a test"},
    ),
    "the loss of each roi": (
        "layer { name: 'o' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'o' top: 'p' top: 'each' }"
        "layer { name: 'b' type: 'BoxAnnotatorOHEM' bottom: 'each' top: 'b' }",
        {"o": "it is a loss of training, no score of a test", "b": "it is a loss of training, no score of a test"},
    ),
    "a loss with weights of its own": (
        "layer { name: 'l' type: 'SigmoidCrossEntropyLoss' bottom: 'fc' bottom: 'label' bottom: 'data' top: 'l' }",
        {"l": "it is a loss of training, no score of a test"},
    ),
    "what writes a file": (
        "layer { name: 'm' type: 'MatWrite' bottom: 'fc' }",
        {"m": "it writes a file, and makes nothing that is measured"},
    ),
    "labels of training, rearranged": (
        "layer { name: 'k' type: 'Concat' bottom: 'label' bottom: 'label' top: 'k' }"
        "layer { name: 'c' type: 'CenterLoss' bottom: 'fc' bottom: 'k' top: 'c' }",
        {
            "k": "only layers of training read what it makes",
            "c": "it is a loss of training, no score of a test",
        },
    ),
    "labels of training that no layer of the phase makes": (
        "layer { name: 'k' type: 'Concat' bottom: 'l1' bottom: 'l2' top: 'k' }"
        "layer { name: 'c' type: 'CenterLoss' bottom: 'fc' bottom: 'k' top: 'c' }",
        {
            "k": "only layers of training read what it makes",
            "c": "it is a loss of training, no score of a test",
        },
    ),
    "rearranged data in place": (
        "layer { name: 'k' type: 'Power' bottom: 'label' top: 'k' }"
        "layer { name: 'e' type: 'Eltwise' bottom: 'k' bottom: 'label' top: 'k' }",
        {},
    ),
    "rearranged data that nothing reads": (
        "layer { name: 'k' type: 'Concat' bottom: 'label' bottom: 'label' top: 'k' }",
        {},
    ),
    "silenced score": (
        "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'l' }"
        "layer { name: 's' type: 'Silence' bottom: 'l' }",
        {"l": "its value is silenced"},
    ),
    "silence of something else, too": (
        "layer { name: 'c' type: 'CenterLoss' bottom: 'fc' bottom: 'label' top: 'c' }"
        "layer { name: 's' type: 'Silence' bottom: 'c' bottom: 'fc' }",
        {"c": "it is a loss of training, no score of a test"},
    ),
    "code at the end": (
        "layer { name: 'p' type: 'Python' bottom: 'fc' top: 'p' python_param { module: 'm' layer: 'L' } }",
        {"p": "it is code from outside the prototxt, and nothing that is measured reads what it makes"},
    ),
    "labels that code makes": (
        "layer { name: 'p' type: 'Python' bottom: 'fc' top: 'p' top: 'w' python_param { module: 'm' layer: 'L' } }"
        "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'p' top: 'l' }"
        "layer { name: 'b' type: 'SmoothL1LossOHEM' bottom: 'fc' bottom: 'w' top: 'b' }",
        {
            "p": "it is code from outside the prototxt, and nothing that is measured reads what it makes",
            "l": "what it reads is made for training only",
            "b": "it is a loss of training, no score of a test",
        },
    ),
    "code that the net needs": (
        "layer { name: 'p' type: 'Python' bottom: 'fc' top: 'p' python_param { module: 'm' layer: 'L' } }"
        "layer { name: 'r' type: 'ReLU' bottom: 'p' top: 'r' }",
        {},
    ),
    "code that makes data": (
        "layer { name: 'p' type: 'Python' top: 'p' python_param { module: 'm' layer: 'L' } }",
        {},
    ),
    "code that is known": (
        "layer { name: 'p' type: 'Python' bottom: 'fc' top: 'p'"
        " python_param { module: 'rpn.proposal_layer' layer: 'ProposalLayer' } }",
        {},
    ),
    "hard examples": (
        "layer { name: 'a' type: 'SoftmaxWithLossOHEM' bottom: 'fc' bottom: 'label' top: 'a' top: 'a_each' }"
        "layer { name: 'b' type: 'SmoothL1LossOHEM' bottom: 'fc' bottom: 'label' top: 'b' top: 'b_each' }"
        "layer { name: 's' type: 'Silence' bottom: 'a' bottom: 'b' }"
        "layer { name: 'e' type: 'Eltwise' bottom: 'a_each' bottom: 'b_each' top: 'each' }"
        "layer { name: 'h' type: 'BoxAnnotatorOHEM' bottom: 'each' bottom: 'label' top: 'hard' }"
        "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'hard' top: 'l' }",
        {
            "a": "it is a loss of training, no score of a test",
            "b": "it is a loss of training, no score of a test",
            "e": "what it reads is made for training only",
            "h": "it is a loss of training, no score of a test",
            "l": "what it reads is made for training only",
        },
    ),
    "outputs that a layer in place has read": (
        "layer { name: 'f' type: 'Flatten' bottom: 'data' top: 'f' }"
        "layer { name: 'r' type: 'ReLU' bottom: 'f' top: 'f' }"
        "layer { name: 'e' type: 'Eltwise' bottom: 'data' bottom: 'f' top: 'e' }"
        "layer { name: 's' type: 'Eltwise' bottom: 'e' bottom: 'data' top: 'e' }",
        {},
    ),
    "a loss that something reads": (
        "layer { name: 'c' type: 'CenterLoss' bottom: 'fc' bottom: 'label' top: 'c' }"
        "layer { name: 'r' type: 'ReLU' bottom: 'c' top: 'r' }",
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_needed_leaves_out_what_nothing_reads(case: str) -> None:
    text, reasons = CASES[case]
    kept, left = needed(layers(BODY + text))
    assert {one.layer.name: one.reason for one in left} == reasons
    gone = {top for one in left for top in one.layer.top}
    assert [layer.name for layer in kept][:2] == ["data", "fc"]
    assert not [blob for layer in kept for blob in layer.bottom if blob in gone]


def test_needed_cuts_a_silence_to_what_is_left() -> None:
    kept, _ = needed(layers(BODY + CASES["silence of something else, too"][0]))
    assert [list(layer.bottom) for layer in kept if layer.type == "Silence"] == [["fc"]]
    kept, _ = needed(layers(BODY + CASES["silenced score"][0]))
    assert [layer.name for layer in kept] == ["data", "fc"]
