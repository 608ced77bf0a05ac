"""Models of other makes through a whole calibration: V1 files, several classifiers, a deploy.prototxt."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import net_text, read_net
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import open_source
from distcalib.errors import UnsupportedError
from tests.every import every
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, n_actors=1)
V1 = {"Data": "DATA", "Convolution": "CONVOLUTION", "ReLU": "RELU", "InnerProduct": "INNER_PRODUCT"} | {
    "Accuracy": "ACCURACY",
    "SoftmaxWithLoss": "SOFTMAX_LOSS",
}


def as_v1(text: str) -> str:
    """The net as it was written in 2014."""
    text = re.sub(r'type: "(\w+)"', lambda match: f"type: {V1[match[1]]}", text)
    return re.sub(r"^layer \{", "layers {", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_calibrate_delivers_a_v1_net_as_todays(tmp_path: Path, tiny: Tiny) -> None:
    net = make_tiny(tmp_path, edit=as_v1)
    assert "layers { name" in net.prototxt.read_text()
    assert (
        read_net(net.prototxt).layer == read_net(make_tiny(tmp_path / "new", source=str(net.database)).prototxt).layer
    )
    report = calibrate(net.prototxt, net.weights, OPTIONS)
    text = Path(report.output).read_text()
    assert "layers" not in text
    assert text.count("quantization_param") == 2
    assert report.fp32_layers == ("conv3",)
    found = evaluate(report.output, net.weights, ITERATIONS, n_actors=1)
    assert found.scores[report.metric] == report.score
    here = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "new"))
    assert (report.fp32_score, report.score) == (here.fp32_score, here.score)


def with_classifiers(text: str) -> str:
    """GoogLeNet's ends: an auxiliary loss and two accuracies in front, those of the main classifier last."""
    begin = text.index('layer { name: "top1"')
    head = text[begin:].replace('bottom: "fc"', 'bottom: "constant"')
    head = re.sub(r'(name|top): "(top1|top2|loss|accuracy-\w+)"', r'\1: "loss1/\2"', head)
    constant = 'layer { name: "constant" type: "Power" bottom: "fc" top: "constant" power_param { scale: 0 } }\n'
    return text[:begin] + constant + head + text[begin:]


@pytest.mark.slow
def test_calibrate_goes_by_the_last_accuracy_of_least_k_and_measures_all(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=with_classifiers)
    found = evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=1)
    ends = ["accuracy-top1", "accuracy-top2", "loss", "loss1/accuracy-top1", "loss1/accuracy-top2", "loss1/loss"]
    assert list(found.scores) == ends
    assert found.scores["accuracy-top1"] != found.scores["loss1/accuracy-top1"]
    report = calibrate(net.prototxt, net.weights, OPTIONS)
    assert (report.metric, report.fp32_score) == ("accuracy-top1", found.scores["accuracy-top1"])
    auxiliary = calibrate(net.prototxt, net.weights, replace(OPTIONS, blob_name="loss1/accuracy-top1"))
    assert auxiliary.fp32_score == found.scores["loss1/accuracy-top1"]


def deploy(text: str) -> str:
    """Without data, labels and scores, its input declared as before 2015."""
    return 'input: "data" ' + "".join(f"input_dim: {n} " for n in (8, 3, 8, 8)) + without_scores(text)


def without_scores(text: str) -> str:
    return text[text.index('layer { name: "conv1"') : text.index('layer { name: "top1"')]


def test_calibrate_tells_all_that_a_deploy_prototxt_lacks(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=deploy)
    with pytest.raises(UnsupportedError) as caught:
        calibrate(net.prototxt, net.weights, OPTIONS)
    assert str(caught.value) == (
        "net.prototxt: layer 'input' (Input) has no data; give its arrays with --data FILE.npz, or a prototxt whose "
        "TEST phase reads data; net.prototxt: the net has no Accuracy layer to be scored by; add an Accuracy layer to "
        "its TEST phase"
    )


def test_calibrate_quantizes_a_deploy_prototxt_from_arrays(tmp_path: Path, tiny: Tiny) -> None:
    net, data = make_tiny(tmp_path, edit=deploy), tmp_path / "images.npy"
    source = open_source(read_net(tiny.prototxt).layer[0], tiny.prototxt)
    np.save(data, np.concatenate([source.batch(i)["data"] for i in range(2)]))
    made = calibrate(net.prototxt, net.weights, replace(OPTIONS, quantize_model=True, data=data))
    same = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, quantize_model=True, out=tmp_path / "same"))
    ours, theirs = ({one.name: one.quantization_param for one in read_net(r.output).layer} for r in (made, same))
    assert every(ours[name] == theirs[name] for name in ours if name in theirs)
    dummy = calibrate(net.prototxt, net.weights, replace(OPTIONS, performance_model=True))
    assert dummy.int8_layers == made.int8_layers
    assert "input_param" in net_text(read_net(dummy.output)), "a legacy input is written as a layer"
