"""The registry: what is converted, what is refused, and how a refusal reads."""

import contextlib

import numpy as np
import openvino.opset13 as ops
import pytest
from openvino import Output

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import DistcalibError, UnsupportedError, WeightsError
from distcalib.layers import CONVERTED, REFUSED, Layer, RandomBlobs, convert, converter, converts, refusal
from distcalib.layers.registry import FOLDING
from tests.layers.harness import make_layer, refused

ISSUE = """
Convolution InnerProduct Deconvolution BatchNorm Scale Bias LRN Softmax Dropout ReLU PReLU ELU Sigmoid TanH Power Exp
Log AbsVal Pooling Eltwise Concat Slice Split Crop Flatten Reshape Silence ArgMax
"""


@pytest.mark.parametrize("layer_type", ISSUE.split())
def test_registry_has_every_layer_of_a_classifier(layer_type: str) -> None:
    assert layer_type in CONVERTED | FOLDING
    assert refusal(layer_type) is None


def test_registry_does_not_convert_what_it_refuses() -> None:
    assert not REFUSED.keys() & (CONVERTED | FOLDING)


@pytest.mark.parametrize("layer_type", sorted(REFUSED))
def test_refusal_has_a_reason(layer_type: str) -> None:
    message = refused(f'type: "{layer_type}"', (1, 2))
    assert message == f"net.prototxt: layer 'it' ({layer_type}): {REFUSED[layer_type]}"
    assert REFUSED[layer_type][0].islower()


def test_refusal_tells_an_unknown_type_from_a_refused_one() -> None:
    assert refusal("Frobnicate") == "is not a layer type of Caffe or Intel Caffe"
    assert refusal("Poolling") == "is not a layer type of Caffe or Intel Caffe; Pooling is meant?"
    assert refusal("innerproduct") == "is not a layer type of Caffe or Intel Caffe; InnerProduct is meant?"
    assert 'write type: "Convolution"' in str(refusal("DepthwiseConvolution"))
    assert 'write type: "Convolution"' in str(refusal("ConvolutionDepthwise"))
    with pytest.raises(UnsupportedError, match=r"^layer type Recurrent: is a recurrent layer"):
        converter("Recurrent")


def test_converts_takes_a_type_once() -> None:
    with pytest.raises(ValueError, match="ReLU is registered twice"):
        converts("ReLU")(lambda layer, x: x)


def test_no_type_is_both_converted_and_refused() -> None:
    assert CONVERTED & REFUSED.keys() == set()


def test_convert_checks_the_outputs_of_a_converter() -> None:
    x = ops.parameter([2, 3]).output(0)
    assert isinstance(convert(make_layer('type: "Dropout"'), [x])[0], Output)
    assert len(convert(make_layer('type: "Split" top: "a" top: "b"'), [x])) == 2


def test_layer_shows_its_prototxt() -> None:
    layer = make_layer('name: "pool5" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 }')
    assert (layer.name, layer.type, layer.bottoms, layer.tops) == ("pool5", "Pooling", ("x",), ("y",))
    assert layer.param("pooling_param").stride == 1
    assert layer.where == "net.prototxt: layer 'pool5' (Pooling)"
    with pytest.raises(UnsupportedError, match=r"^net.prototxt: layer 'pool5' \(Pooling\): no; yes$"):
        layer.require(False, "no; yes")


def test_layer_complains_of_blobs_that_nobody_reads() -> None:
    layer: Layer = make_layer('type: "Scale"', [np.ones(3, np.float32)] * 2)
    layer.expect_blobs(2)
    with pytest.raises(WeightsError, match="has 2 blobs and the prototxt uses 1; correct the prototxt"):
        layer.expect_blobs(1)


SHAPES = [(), (3,), (2, 3), (2, 3, 4), (1, 3, 4, 4), (1, 2, 3, 4, 4)]


@pytest.mark.parametrize("kind", sorted(CONVERTED))
def test_converters_say_what_is_wrong_with_bottoms_of_any_shape(kind: str) -> None:
    """An own sentence, or OpenVINO's, which the builder passes on; never an error of Python."""
    n_tried = 0
    for shape in SHAPES:
        for n_bottoms in range(4):
            for n_tops in range(3):
                proto = LayerParameter(name="it", type=kind, bottom=["a"] * n_bottoms, top=["y"] * n_tops)
                inputs = [ops.parameter(list(shape), np.float32).output(0) for _ in range(n_bottoms)]
                with contextlib.suppress(DistcalibError, RuntimeError):
                    convert(Layer(proto, RandomBlobs(0), "net.prototxt"), inputs)
                n_tried += 1
    assert n_tried == 72
