"""A candidate as files: the prototxt to be written, and what its caffemodel has other than the one given.

What is measured is made from the same object as what is written, so that the two cannot differ.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import Weights, caffe_pb2, net_text, write_net_weights
from distcalib.caffe.forks import plain_type
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.force_u8 import force_u8
from distcalib.quantize.fusion import QUANTIZABLE
from distcalib.quantize.mending import mending_engines
from distcalib.quantize.scales import Calibration


@dataclass(frozen=True)
class Deliverable:
    """A net, and the blobs of the layers whose weights are not those of the caffemodel given, by layer."""

    net: Net
    changed: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)

    def spec(self, outputs: Outputs | None = None) -> NetSpec:
        """It as a program to be compiled."""
        return self.net.spec(changed=self.changed, outputs=outputs)

    def write_weights(self, path: Path, given: Weights) -> None:
        """Write its caffemodel: the blobs `given`, of the layers that the net has, with those changed."""
        write_net_weights(path, self.net.test, {**given, **self.changed})

    def text(self) -> str:
        """The prototxt; it was read back and is the net that `spec` is made from."""
        text = net_text(self.net.full)
        if text_format.Parse(text, caffe_pb2.NetParameter()) != self.net.full:
            raise AssertionError("the text to be written is not the net that was measured")
        return text


def deliver(base: Net, calibration: Calibration, candidate: Candidate) -> Deliverable:
    """The files of `candidate`; with -fu its first convolution reads u8, unless it fell back to FP32."""
    quantizer = calibration.quantizer
    plain = deliver_plain(base, calibration, candidate)
    first = quantizer.first
    if not quantizer.options.first_conv_force_u8 or first is None or first not in candidate.int8:
        return plain
    group = quantizer.groups[first]
    param = next(layer.quantization_param for layer in plain.net.test.layer if layer.name == first)
    forced = force_u8(quantizer.graph, group, param, calibration.weights, quantizer.options.clx)
    full = caffe_pb2.NetParameter()
    full.CopyFrom(plain.net.full)
    data = quantizer.graph.producer[group.input]
    for layer, before in zip(full.layer, base.full.layer, strict=True):  # one of the same name may serve another phase
        if before == data.layer:
            layer.CopyFrom(forced.data)
        elif before == group.node.layer:
            layer.CopyFrom(forced.convolution)
    return Deliverable(mended(base.remade(full)), {first: forced.blobs})


def deliver_plain(base: Net, calibration: Calibration, candidate: Candidate) -> Deliverable:
    """The files of `candidate` as `deliver` makes them without -fu; its INT8 layers have their corrected biases."""
    corrected = _corrected(calibration, candidate)
    changed = {**calibration.equalized, **corrected} if candidate.int8 else {}  # the FP32 net needs no new weights
    return Deliverable(mended_with(base, calibration.params(candidate), corrected), changed)


def plain_spec(base: Net, calibration: Calibration, candidate: Candidate) -> NetSpec:
    """The program of what `deliver_plain` makes, in a third of the time: a ranking has one for every layer."""
    corrected = _corrected(calibration, candidate)
    test = _with_params(base.test, calibration.params(candidate))
    _complete(test, mending_engines(test.layer, base.name), corrected)
    return NetSpec(base.as_bytes(test), base.name, changed={**calibration.equalized, **corrected})


def _corrected(calibration: Calibration, candidate: Candidate) -> dict[str, tuple[NDArray[np.float32], ...]]:
    return {name: calibration.corrected[name] for name in candidate.int8_layers if name in calibration.corrected}


def mended_with(
    base: Net, params: Mapping[str, caffe_pb2.QuantizationParameter], with_bias: Collection[str] = ()
) -> Net:
    """The net with these quantization_params, with a bias in each of the layers `with_bias`, and with the `engine` of
    each layer that Intel Caffe would else abort at, or compute nonsense with.

    Raises UnsupportedError for what no engine mends.
    """
    engines = mending_engines(_with_params(base.test, params).layer, base.name)
    full = _with_params(base.full, params)
    _complete(full, engines, with_bias)
    return base.remade(full)


def mended(net: Net) -> Net:
    """The same with nothing but the engines; the net itself where it needs none."""
    engines = mending_engines(net.test.layer, net.name)
    if not engines:
        return net
    full = _with_params(net.full, {})
    _complete(full, engines)
    return net.remade(full)


def with_params(base: Net, params: Mapping[str, caffe_pb2.QuantizationParameter]) -> Net:
    """The net with these quantization_params, by layer name, and no engine changed."""
    return base.remade(_with_params(base.full, params))


def _complete(net: caffe_pb2.NetParameter, engines: Mapping[str, str], with_bias: Collection[str] = ()) -> None:
    """Put engines and biases into the layers of `net`, the TEST net or all phases."""
    for layer in net.layer:
        if layer.name in engines:
            layer.engine = engines[layer.name]
        if layer.name in with_bias and plain_type(layer.type) in QUANTIZABLE:
            inner = layer.type == "InnerProduct"
            (layer.inner_product_param if inner else layer.convolution_param).bias_term = True


def _with_params(
    net: caffe_pb2.NetParameter, params: Mapping[str, caffe_pb2.QuantizationParameter]
) -> caffe_pb2.NetParameter:
    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(net)
    for layer in changed.layer:
        if layer.name in params and plain_type(layer.type) in QUANTIZABLE:
            layer.quantization_param.CopyFrom(params[layer.name])
    return changed


def engines_written(before: Net, after: Net) -> str:
    """The engines that `after` names and `before` does not, by layer, for the user."""
    layers = zip(before.full.layer, after.full.layer, strict=True)
    return ", ".join(f"\"{new.engine}\" on '{new.name}'" for old, new in layers if old.engine != new.engine)


def mended_base(base: Net, note: Callable[[str], None]) -> Net:
    """The FP32 net as Intel Caffe can run it, which is what is measured and quantized; `note` tells the user."""
    remedies = mended(base)
    engines = engines_written(base, remedies)
    if engines:
        note(
            f"{base.name}: as it is, Intel Caffe cannot run it rightly in FP32 (`distcalib inspect` says why); it is "
            f"measured and written with engine {engines}"
        )
    return remedies
