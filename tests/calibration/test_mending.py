"""Files that calibrate writes so that Intel Caffe can run them."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.calibration.candidate_net import deliver, deliver_plain, engines_written, mended_base, plain_spec
from distcalib.engine.net import open_net
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.every import every

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits"


def test_deliver_keeps_intel_caffe_from_a_sum_that_it_cannot_compute() -> None:
    """An FP32 convolution whose residual is INT8: a real build loads it with the engine and scores what is measured."""
    base = open_net(DIGITS / "digits.prototxt")
    quantizer = Quantizer(base.graph, Options())
    ranges = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
    calibration = Calibration(quantizer, ranges, base.weights(DIGITS / "digits.caffemodel"))
    all_int8 = quantizer.space.all_int8
    assert engines_written(base, deliver(base, calibration, all_int8).net) == ""
    made = deliver(base, calibration, all_int8.without("conv4_pw"))
    assert engines_written(base, made.net) == "\"MKLDNN:CPU\" on 'conv4_pw'"
    assert 'engine: "MKLDNN:CPU"' in made.text()


@pytest.mark.parametrize("name", ["digits", "digit_scenes"])
def test_plain_spec_is_the_program_of_what_deliver_plain_makes(name: str) -> None:
    """With the engines that are written, new biases where there were none, and scaled channels."""
    folder = EXAMPLES / name
    base = open_net(folder / f"{name}.prototxt")
    quantizer, weights = Quantizer(base.graph, Options()), base.weights(folder / f"{name}.caffemodel")
    ranges = {blob: Range(-1.0, 1.0) for blob in quantizer.observed}
    start = quantizer.space.all_int8
    corrected = {
        layer: (weights[layer][0], np.zeros(len(weights[layer][0]), np.float32)) for layer in start.int8_layers[::2]
    }
    equalized = {layer: tuple(2 * blob for blob in weights[layer]) for layer in start.int8_layers[:3]}
    calibration = Calibration(quantizer, ranges, weights, equalized=equalized, corrected=corrected)
    candidates = [
        start,
        *(quantizer.space.smallest(layer) for layer in start.movable),
        *(start.without(layer) for layer in start.movable),
    ]
    for candidate in candidates:
        whole, quick = deliver_plain(base, calibration, candidate).spec(), plain_spec(base, calibration, candidate)
        assert whole == quick
        assert whole.changed.keys() == quick.changed.keys()
        assert every(
            a is b for layer in whole.changed for a, b in zip(whole.changed[layer], quick.changed[layer], strict=True)
        )


def test_mended_base_tells_what_it_changes(tmp_path: Path) -> None:
    told: list[str] = []
    layers = [
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }',
        'layer { name: "p" type: "Sigmoid" bottom: "x" top: "p" }',
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c"',
        "convolution_param { num_output: 2 kernel_size: 1 } }",
        'layer { name: "s" type: "Eltwise" bottom: "p" bottom: "c" top: "s" }',
    ]
    path = tmp_path / "net.prototxt"
    path.write_text("\n".join(layers))
    found = mended_base(open_net(path), told.append)
    assert [layer.engine for layer in found.full.layer] == ["", "", "MKLDNN:CPU", ""]
    assert len(told) == 1
    assert told[0].startswith("net.prototxt: as it is, Intel Caffe cannot run it rightly in FP32")
    assert mended_base(found, told.append) is found
    assert len(told) == 1
