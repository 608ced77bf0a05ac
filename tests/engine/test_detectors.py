"""YOLO v2, Faster R-CNN and R-FCN in small, random weights: quantized by the rules, run on INT8 kernels, near FP32."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, build_graph
from distcalib.engine.builder import BuiltModel, build_model
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec, is_int8_kernel
from distcalib.layers import FileBlobs, RandomBlobs
from distcalib.layers.blobs import FloatArray, Role
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration
from distcalib.quantize.signs import nonnegative_blobs
from distcalib.quantize.storage import params_of, storage
from tests.engine.test_architectures import Drawn
from tests.every import every

Array = NDArray[np.float32]
SHAPES = {"data": (1, 16, 64, 64), "im_info": (1, 3)}
IM_INFO = 'layer { name: "im_info" type: "Input" top: "im_info" input_param { shape { dim: 1 dim: 3 } } }'


@dataclass
class Remembered(RandomBlobs):
    """Random weights, and what was asked for."""

    seed: int
    weights: dict[str, dict[int, FloatArray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.seed)

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        values = super().get(layer, index, shape, role)
        self.weights.setdefault(layer, {})[index] = values
        return values


def yolo_v2() -> str:
    """A backbone, and a finer map that is made coarse by Reorg and joined."""
    net = Drawn()
    net.conv("conv1", 16)
    net.add("pool1", "Pooling", param="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    fine = net.conv("conv2", 32)
    net.add("pool2", "Pooling", param="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    coarse = net.conv("conv3", 32)
    net.conv("conv4", 16, fine, k=1)
    reorg = net.add("reorg", "Reorg", param="reorg_param { stride: 2 }")
    net.add("concat", "Concat", reorg, coarse)
    net.conv("conv5", 32)
    net.conv("conv_reg", 5 * (5 + 3), k=1, bn=False, relu=False)
    return "\n".join(net.text)


def backbone_and_proposals(net: Drawn) -> str:
    """The map of a stride of 4, and the top `rois`."""
    net.conv("conv1", 16, stride=2, bn=False)
    net.conv("conv2", 32, bn=False)
    shared = net.conv("conv3", 32, stride=2, bn=False)
    net.text.append(IM_INFO)
    rpn = net.conv("rpn", 32, shared, bn=False)
    net.conv("rpn_cls_score", 2 * 6, rpn, k=1, bn=False, relu=False)
    net.add("as_pairs", "Reshape", param="reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }")
    net.add("rpn_cls_prob", "Softmax")
    scores = net.add("as_anchors", "Reshape", param="reshape_param { shape { dim: 0 dim: 12 dim: -1 dim: 0 } }")
    deltas = net.conv("rpn_bbox_pred", 4 * 6, rpn, k=1, bn=False, relu=False)
    settings = "'feat_stride': 4, 'scales': [1, 2], 'min_size': 4, 'post_nms_topn': 20"
    layer = f'module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{settings}"'
    net.add("rois", "Python", scores, deltas, "im_info", param=f"python_param {{ {layer} }}")
    return shared


def faster_rcnn() -> str:
    net = Drawn()
    shared = backbone_and_proposals(net)
    net.add(
        "pooled",
        "ROIPooling",
        shared,
        "rois",
        param="roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 0.25 }",
    )
    net.add("fc6", "InnerProduct", param="inner_product_param { num_output: 32 }")
    fc6 = net.add("relu6", "ReLU", in_place=True)
    net.add("cls_score", "InnerProduct", fc6, param="inner_product_param { num_output: 5 }")
    net.add("cls_prob", "Softmax")
    net.add("bbox_pred", "InnerProduct", fc6, param="inner_product_param { num_output: 20 }")
    return "\n".join(net.text)


def rfcn() -> str:
    net = Drawn()
    shared = backbone_and_proposals(net)
    new = net.conv("conv_new", 32, shared, k=1, bn=False)
    for name, dim in (("cls", 5), ("bbox", 8)):
        maps = net.conv(f"rfcn_{name}", dim * 9, new, k=1, bn=False, relu=False)
        fields = f"spatial_scale: 0.25 output_dim: {dim} group_size: 3"
        net.add(f"pooled_{name}", "PSROIPooling", maps, "rois", param=f"psroi_pooling_param {{ {fields} }}")
        net.add(f"{name}_out", "Pooling", param="pooling_param { pool: AVE kernel_size: 3 stride: 3 }")
    return "\n".join(net.text)


def program(built: BuiltModel) -> Program:
    return Program(compile_program(built, NetSpec(b"", "net"), 1), 1)


@pytest.mark.parametrize(
    ("draw", "fc_int8", "least", "result"),
    [
        pytest.param(yolo_v2, False, 5, "conv_reg", id="yolo_v2"),
        pytest.param(faster_rcnn, False, 4, "rpn_cls_prob", id="faster_rcnn"),
        pytest.param(faster_rcnn, True, 7, "rpn_cls_prob", id="faster_rcnn_fc"),
        pytest.param(rfcn, False, 7, "rfcn_cls", id="r_fcn"),
    ],
)
def test_a_detector_runs_int8_and_stays_close_to_fp32(draw: object, fc_int8: bool, least: int, result: str) -> None:
    assert callable(draw)
    text = draw().replace("dim: 4 dim: 16 dim: 16 dim: 16", "dim: 1 dim: 16 dim: 64 dim: 64")
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    graph = build_graph(net.layer, "net")
    blobs = Remembered(5)
    quantizer = Quantizer(graph, Options("multiple", fc_int8=fc_int8))
    feeds = {
        "data": np.random.default_rng(1).uniform(0, 2, SHAPES["data"]).astype(np.float32),
        "im_info": np.array([[64, 64, 1]], np.float32),
    }
    asked = Blob(result, 0)
    ends = program(build_model(graph, blobs, SHAPES, "net", taps=quantizer.observed)).run(feeds)[1]
    assert ends is not None
    weights = {name: tuple(by_index[i] for i in sorted(by_index)) for name, by_index in blobs.weights.items()}
    observed = merge_ranges(quantizer.observed, [[observe_ends(*pair) for pair in ends.tolist()]])
    candidate = quantizer.space.all_int8
    params = Calibration(quantizer, observed, weights).params(candidate)
    assert len(params) >= least
    exact = program(build_model(graph, blobs, SHAPES, "net", keep=[asked, *graph.outputs])).run(feeds)[0]
    for layer in net.layer:
        if layer.name in params:
            layer.quantization_param.CopyFrom(params[layer.name])
    quantized = build_graph(net.layer, "net")
    compiled = program(
        build_model(quantized, FileBlobs(weights, "weights"), SHAPES, "net", keep=[asked, *quantized.outputs])
    )
    assert [name for name in params if not is_int8_kernel(compiled.header.kernels[name])] == []
    found = compiled.run(feeds)[0]
    error = np.linalg.norm(found[asked] - exact[asked]) / np.linalg.norm(exact[asked])
    assert 0.0 < error < 0.08
    assert every(np.isfinite(found[blob]).all() for blob in quantized.outputs)
    stored = storage(quantized, quantizer.groups, params_of(quantized))
    fp32 = {"Reorg", "Python", "ROIPooling", "PSROIPooling", "Reshape", "Softmax"}
    assert not {node.name for node in quantized if node.type in fp32 and node.tops[0] in stored}


def test_what_pools_or_moves_values_keeps_their_sign() -> None:
    for draw, expected in ((yolo_v2, {"reorg", "concat"}), (faster_rcnn, {"pooled"}), (rfcn, set[str]())):
        graph = build_graph(text_format.Parse(draw(), caffe_pb2.NetParameter()).layer, "net")
        names = {blob.name for blob in nonnegative_blobs(graph)}
        assert names & {"reorg", "concat", "pooled", "pooled_cls", "rois"} == expected
