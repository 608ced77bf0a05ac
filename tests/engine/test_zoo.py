"""The published INT8 prototxts of Intel's model folder, with random weights: they are read and they run."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_net, test_net
from distcalib.caffe.graph import build_graph
from distcalib.engine.builder import build_model, layer_shapes
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec, is_int8_kernel
from distcalib.engine.unconverted import unconverted
from distcalib.layers import RandomBlobs, ZeroBlobs
from distcalib.metrics import make_layer
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from distcalib.quantize.storage import params_of, runs_int8, storage

# Name, image size, and how many layers run INT8.
NETS = (
    ("inceptionv3_int8_acc", 299, 93),
    ("mobilenet_v1_int8_acc", 224, 27),
    ("resnet50_int8_acc", 224, 54),
)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "n_int8"), NETS, ids=[name for name, *_ in NETS])
def test_build_model_runs_published_nets(golden: Path, name: str, size: int, n_int8: int) -> None:
    net = test_net(read_net(golden / "intel_int8_zoo" / f"{name}.prototxt"))
    graph = build_graph(net.layer, name)
    groups, params = find_fused(graph), params_of(graph)
    stored = storage(graph, groups, params)
    int8 = [layer for layer, group in groups.items() if runs_int8(group, params, stored)]
    assert len(int8) == n_int8
    shapes = {"data": (2, 3, size, size), "label": (2,)}
    built = build_model(graph, RandomBlobs(1), shapes, name)
    program = Program(compile_program(built, NetSpec(b"", name), 1), 1)
    assert [layer for layer in int8 if not is_int8_kernel(program.header.kernels[layer])] == []
    images = np.random.default_rng(0).normal(size=shapes["data"]).astype(np.float32)
    outputs, _ = program.run({"data": images})
    for values in outputs.values():
        assert values.shape[:2] == (2, 1000)
        assert np.isfinite(values).all()


@pytest.mark.golden
def test_layer_shapes_of_the_published_ssd(golden: Path) -> None:
    net = test_net(read_net(golden / "intel_int8_zoo" / "ssd_vgg16_int8.prototxt"))
    assert sum(layer.HasField("quantization_param") for layer in net.layer) == 34
    graph = build_graph(net.layer, "ssd")
    assert unconverted(graph, "ssd") == []
    shapes, problems = layer_shapes(graph, ZeroBlobs(), {"data": (1, 3, 300, 300), "label": (1, 1, 1, 8)}, "ssd")
    assert problems == []
    found = {blob.name: shape for blob, shape in shapes.items()}
    assert found["mbox_loc"] == (1, 8732 * 4, 1, 1)
    assert found["mbox_conf_flatten"] == (1, 8732 * 21)
    assert found["mbox_priorbox"] == (1, 2, 8732 * 4)


@pytest.mark.golden
@pytest.mark.slow
def test_build_model_runs_the_published_ssd_on_int8_kernels(golden: Path) -> None:
    net = test_net(read_net(golden / "intel_int8_zoo" / "ssd_vgg16_int8.prototxt"))
    graph = build_graph(net.layer, "ssd")
    params = params_of(graph)
    built = build_model(graph, RandomBlobs(1), {"data": (1, 3, 300, 300), "label": (1, 1, 1, 8)}, "ssd")
    program = Program(compile_program(built, NetSpec(b"", "ssd"), 1), 1)
    assert [layer for layer in params if not is_int8_kernel(program.header.kernels[layer])] == []
    outputs, _ = program.run({"data": np.random.default_rng(0).normal(size=(1, 3, 300, 300)).astype(np.float32)})
    layer = next(node for node in graph if node.type == "DetectionOutput")
    rows = make_layer(layer.layer, [outputs[blob] for blob in layer.bottoms])
    assert rows.shape[1:] == (1, 200, 7)
    assert set(rows[0, 0, :, 1]) <= set(range(1, 21))


@pytest.mark.golden
def test_quantizer_chooses_for_the_published_ssd_what_intels_calibrator_did(golden: Path) -> None:
    """The same layers and signs; the heads, which Intel's stores as integers, are so with -uff."""
    net = test_net(read_net(golden / "intel_int8_zoo" / "ssd_vgg16_int8.prototxt"))
    theirs = params_of(build_graph(net.layer, "ssd"))
    for layer in net.layer:
        layer.ClearField("quantization_param")
    graph = build_graph(net.layer, "ssd")
    shapes, _ = layer_shapes(graph, ZeroBlobs(), {"data": (1, 3, 300, 300), "label": (1, 1, 1, 8)}, "ssd")
    weights = {"conv4_3_norm": (np.full(512, 20.0, np.float32),)}
    for node in graph:
        if node.type == "Convolution":
            p = node.layer.convolution_param
            shape = (p.num_output, shapes[node.bottoms[0]][1], p.kernel_size[0], p.kernel_size[0])
            weights[node.name] = (np.ones(shape, np.float32), np.zeros(p.num_output, np.float32))  # type: ignore[assignment]
    quantizer = Quantizer(graph, Options(weights_channel="multiple", disable_force_fp32=True))
    calibration = Calibration(quantizer, {blob: Range(-1.0, 1.0) for blob in quantizer.observed}, weights)
    ours = calibration.params(quantizer.space.all_int8)
    assert {name: (p.is_negative_input, p.bw_layer_out, len(p.scale_params)) for name, p in ours.items()} == {
        name: (p.is_negative_input, p.bw_layer_out, len(p.scale_params)) for name, p in theirs.items()
    }
