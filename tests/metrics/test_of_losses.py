"""What is worked out of losses."""

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter, NetParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics import LOSS_TYPES, OF_LOSSES, evaluate_layer, name_of_losses, named_as_written

NET = """
layer { name: "a" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "a" }
layer { name: "b" type: "HingeLoss" bottom: "x" bottom: "l" top: "b" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "half" type: "Power" bottom: "sum" top: "half" power_param { scale: 0.5 } }
layer { name: "plain" type: "Power" bottom: "x" top: "plain" }
layer { name: "mixed" type: "Eltwise" bottom: "a" bottom: "x" top: "mixed" }
"""


def test_name_of_losses_finds_what_reads_nothing_else() -> None:
    net = text_format.Parse(NET, NetParameter())
    written = [layer.type for layer in net.layer]
    name_of_losses(net, LOSS_TYPES)
    changed = [layer.name for layer, own in zip(net.layer, written, strict=True) if layer.type != own]
    assert changed == ["sum", "half"]
    named_as_written(net)
    assert [layer.type for layer in net.layer] == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('type: "Eltwise"', 7.0, id="sum"),
        pytest.param('type: "Eltwise" eltwise_param { coeff: [1, -0.5, 2] }', 2.0 - 1.5 + 4.0, id="coeff"),
        pytest.param('type: "Eltwise" eltwise_param { operation: PROD }', 12.0, id="product"),
        pytest.param('type: "Eltwise" eltwise_param { operation: MAX }', 3.0, id="greatest"),
        pytest.param('type: "Power" power_param { power: 2 scale: 3 shift: 1 }', 49.0, id="power"),
    ],
)
def test_values_of_losses(text: str, expected: float) -> None:
    layer = text_format.Parse(f'name: "v" {text}', LayerParameter())
    layer.type = OF_LOSSES[layer.type]
    values = [np.array(v) for v in (2.0, 3.0, 2.0)]
    found = evaluate_layer(layer, values if "Eltwise" in layer.type else values[:1])
    assert found.value == expected


def test_eltwise_of_losses_refuses_other_coefficients() -> None:
    layer = text_format.Parse('name: "v" eltwise_param { coeff: 1 }', LayerParameter())
    layer.type = OF_LOSSES["Eltwise"]
    with pytest.raises(UnsupportedError, match=r"layer 'v' \(Eltwise\): 1 coeff for 2 bottoms"):
        evaluate_layer(layer, [np.array(1.0)] * 2)
