"""Intel's published INT8 prototxts leave in both forms; of the weights only the shapes are known."""

from pathlib import Path

import pytest

from distcalib.engine.net import open_net
from distcalib.exporters import build_export
from distcalib.layers import ZeroBlobs
from distcalib.session.inspect import data_shapes

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_file import to_onnx

# file -> its output, and the least number of convolutions that are QLinearConv or MatMulInteger
NETS = {
    "resnet50_int8_acc.prototxt": ("fc1000", 50),
    "mobilenet_v1_int8_acc.prototxt": ("fc7", 26),
    "inceptionv3_int8_acc.prototxt": ("fc1", 90),
    "ssd_vgg16_int8.prototxt": ("detection_out", 30),
}


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("name", NETS)
def test_a_published_net_is_exported(golden: Path, name: str) -> None:
    top, least = NETS[name]
    [path] = (golden / "intel_int8_zoo").rglob(name)
    net = open_net(path)
    made = build_export(net.graph, ZeroBlobs(), data_shapes(net, ZeroBlobs(), []), net.name)
    assert made.names == (top,)
    assert made.batch is None, made.reason
    kinds = [node.op_type for node in to_onnx(made, net.name).graph.node]
    assert kinds.count("Conv") + kinds.count("MatMulInteger") + kinds.count("ConvInteger") >= least
    assert kinds.count("QuantizeLinear") >= least / 2
