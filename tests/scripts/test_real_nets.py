"""The nets have the shapes that their authors published."""

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.engine.builder import layer_shapes
from distcalib.layers import ZeroBlobs
from distcalib.layers.blobs import FloatArray, Role
from distcalib.metrics.eval_detection import decoded
from scripts.bench.make_real_size import assembled, data_shapes
from scripts.bench.real_nets import N_CLASSES, NETS, RealNet
from scripts.simulate.simulated_net import ssd_vgg16_work


class CountingBlobs(ZeroBlobs):
    """How many values each layer asks for; none is made."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[tuple[str, int], tuple[int, ...]] = {}

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """As ZeroBlobs has it."""
        self.shapes[layer, index] = shape
        return super().get(layer, index, shape, role)

    @property
    def n_values(self) -> int:
        """Of all layers together, the statistics of batch norms left out, which no paper counts."""
        total = 0
        for (layer, _), shape in self.shapes.items():
            size = 1
            for side in shape:
                size *= side
            total += 0 if layer.endswith("/bn") else size
        return total


def opened(name: str) -> tuple[RealNet, Graph, dict[Blob, tuple[int, ...]], CountingBlobs]:
    """The net, and the shape of each of its values for one image."""
    net, blobs = NETS[name](), CountingBlobs()
    graph = build_graph(assembled(net, 1).layer, net.name)
    shapes, problems = layer_shapes(graph, blobs, data_shapes(net, 1), net.name)
    assert problems == []
    return net, graph, shapes, blobs


@pytest.mark.parametrize("name, priors", [("ssd300-vgg16", 8732), ("ssd512-vgg16", 24564), ("ssd300-mobilenet", 1917)])
def test_an_ssd_has_the_priors_of_its_paper(name: str, priors: int) -> None:
    net, _, shapes, _ = opened(name)
    assert net.priors == priors
    assert shapes[Blob("mbox_priorbox", 0)] == (1, 2, 4 * priors)
    assert shapes[Blob("mbox_loc", 0)] == (1, 4 * priors)
    assert shapes[Blob("mbox_conf", 0)] == (1, N_CLASSES * priors)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("ssd300-vgg16", [38, 19, 10, 5, 3, 1]),
        ("ssd512-vgg16", [64, 32, 16, 8, 4, 2, 1]),
        ("ssd300-mobilenet", [19, 10, 5, 3, 2, 1]),
    ],
)
def test_an_ssd_reads_boxes_from_the_maps_of_its_paper(name: str, sides: list[int]) -> None:
    net, _, shapes, _ = opened(name)
    assert [shapes[Blob(conf, 0)][2:] for conf in net.confs] == [(side, side) for side in sides]
    assert [shapes[Blob(loc, 0)][2:] for loc in net.locs] == [(side, side) for side in sides]


def test_ssd300_dilates_fc6_and_scales_conv4_3() -> None:
    _, graph, _, _ = opened("ssd300-vgg16")
    layers = {node.name: node.layer for node in graph}
    fc6, norm = layers["fc6"].convolution_param, layers["conv4_3_norm"]
    assert (list(fc6.dilation), list(fc6.pad), fc6.num_output) == ([6], [6], 1024)
    assert (norm.type, norm.norm_param.across_spatial, norm.norm_param.channel_shared) == ("Normalize", False, False)


def test_ssd300_is_the_net_that_is_simulated() -> None:
    """The simulation counts its multiply-adds apart from any prototxt."""
    _, graph, shapes, blobs = opened("ssd300-vgg16")
    convs = [node for node in graph if node.type == "Convolution"]
    work = 0
    for node in convs:
        n_out, n_in, height, width = blobs.shapes[node.name, 0]
        rows, columns = shapes[node.tops[0]][2:]
        work += n_out * n_in * height * width * rows * columns
    assert len(convs) == len(ssd_vgg16_work())
    assert work == sum(ssd_vgg16_work().values())


def test_yolo_v2_has_five_boxes_a_place() -> None:
    net, graph, shapes, _ = opened("yolo-v2-416")
    assert shapes[Blob("conv18", 0)] == (1, 1024, 13, 13)
    assert shapes[Blob("concat", 0)] == (1, 1024 + 256, 13, 13)
    assert shapes[Blob("conv23", 0)] == (1, 5 * (5 + 20), 13, 13)
    assert net.priors == 13 * 13 * 5
    [scored] = [node.layer for node in graph if node.type == "EvalDetection"]
    boxes, _, _ = decoded(scored.eval_detection_param, np.zeros(shapes[Blob("conv23", 0)], np.float32))
    assert boxes.shape == (1, net.priors, 4)
    # yolo-voc.cfg's smallest and largest box, in pixels of 416
    assert boxes[0, 0, 2:] * 416 == pytest.approx([42.3, 55.4], abs=0.1)
    assert boxes[0, 4, 2:] * 416 == pytest.approx([359.6, 320.2], abs=0.1)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("vgg16", 138.36), ("ssd300-vgg16", 26.29), ("ssd300-mobilenet", 5.8), ("yolo-v2-416", 50.6)],
)
def test_a_net_has_the_parameters_of_its_paper(name: str, millions: float) -> None:
    *_, blobs = opened(name)
    assert blobs.n_values / 1e6 == pytest.approx(millions, rel=0.01)


def test_no_layer_name_is_twice() -> None:
    for make in NETS.values():
        names = [layer.name for layer in make().layers]
        assert len(names) == len(set(names))


def test_a_classifier_has_no_boxes() -> None:
    net = NETS["vgg16"]()
    assert not net.detects
    assert assembled(net, 2).layer[0].type == "Data"
    assert isinstance(assembled(net, 2), caffe_pb2.NetParameter)
