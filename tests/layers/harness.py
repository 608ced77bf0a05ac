"""Run one layer of a prototxt on the CPU, as the engine would, or take the sentence with which it is refused."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset13 as ops
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.errors import DistcalibError
from distcalib.layers import FileBlobs, Layer, convert

Array = npt.NDArray[np.float32]

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
_core = ov.Core()


def make_layer(text: str, blobs: Sequence[Array] = ()) -> Layer:
    """The layer of a snippet such as `type: "ReLU" relu_param {}`; a name and one top are added if it has none."""
    proto = text_format.Parse(text, LayerParameter())
    proto.name = proto.name or "it"
    if not proto.top and proto.type != "Silence":
        proto.top.append("y")
    return Layer(proto, FileBlobs({proto.name: tuple(blobs)}, "net.caffemodel"), "net.prototxt")


def run(text: str, *inputs: Array, blobs: Sequence[Array] = ()) -> list[Array]:
    """What the layer makes of `inputs`: one array a top."""
    parameters = [ops.parameter(list(x.shape), np.float32) for x in inputs]
    outputs = convert(make_layer(text, blobs), [p.output(0) for p in parameters])
    model = ov.Model([ops.result(y) for y in outputs], parameters, "one layer")
    results = _core.compile_model(model, "CPU", CONFIG)(list(inputs))
    return [np.array(results[i]) for i in range(len(outputs))]


def refused(text: str, *shapes: tuple[int, ...], blobs: Sequence[Array] = ()) -> str:
    """The message with which the layer is refused on inputs of these shapes."""
    parameters = [ops.parameter(list(shape), np.float32) for shape in shapes]
    with pytest.raises(DistcalibError) as caught:
        convert(make_layer(text, blobs), [p.output(0) for p in parameters])
    return str(caught.value)


def random(*shape: int, seed: int = 0) -> Array:
    """Values around 0, of both signs, the same at every call."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
