"""A candidate as files: the prototxt to be written, and what its caffemodel has other than the one given.

What is measured is made from the same object as what is written, so that the two cannot differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, net_text
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.fusion import QUANTIZABLE
from distcalib.quantize.scales import Calibration
from distcalib.run.net import Net, make_net


@dataclass(frozen=True)
class Deliverable:
    """A net, and the blobs of the layers whose weights are not those of the caffemodel given, by layer."""

    net: Net
    changed: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)

    def spec(self, outputs: Outputs | None = None) -> NetSpec:
        """It as a program to be compiled."""
        return self.net.spec(changed=self.changed, outputs=outputs)

    def text(self) -> str:
        """The prototxt; it was read back and is the net that `spec` is made from."""
        text = net_text(self.net.full)
        if text_format.Parse(text, caffe_pb2.NetParameter()) != self.net.full:
            raise AssertionError("the text to be written is not the net that was measured")
        return text


def deliver(base: Net, calibration: Calibration, candidate: Candidate) -> Deliverable:
    """The files of `candidate`."""
    return Deliverable(with_params(base, calibration.params(candidate)))


def with_params(base: Net, params: Mapping[str, caffe_pb2.QuantizationParameter]) -> Net:
    """The net with these quantization_params, by layer name: what is compiled, and what is written."""
    full = caffe_pb2.NetParameter()
    full.CopyFrom(base.full)
    for layer in full.layer:
        if layer.name in params and layer.type in QUANTIZABLE:
            layer.quantization_param.CopyFrom(params[layer.name])
    return make_net(base.path, full)
