"""Each entry of the table: a net of one layer, in OpenVINO and in ONNX Runtime."""

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.exporters import Exported, build_export
from distcalib.layers import FileBlobs
from tests.exporters.exports import Array, run_both
from tests.layers.harness import random

pytest.importorskip("onnxruntime")
from distcalib.exporters.onnx_operators import TABLE
from tests.cpu import not_held_to_avx2

SHAPE = (2, 8, 7, 9)
UNEVEN = "num_output: 4 kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 0 stride_h: 2 stride_w: 1"
OF_BATCH = "batch_norm_param { use_global_stats: false use_weight_bias: false }"
STATISTICS = (random(8), abs(random(8)), np.ones(1, np.float32))


def pool(text: str) -> tuple[str, tuple[Array, ...]]:
    return f"pooling_param {{ {text} }}", ()


def conv(text: str, *blobs: tuple[int, ...]) -> tuple[str, tuple[Array, ...]]:
    return f"convolution_param {{ {text} }}", tuple(random(*shape, seed=i) for i, shape in enumerate(blobs))


# id -> (type, parameters and blobs)
LAYERS: dict[str, tuple[str, tuple[str, tuple[Array, ...]]]] = {
    "conv": ("Convolution", conv("num_output: 4 kernel_size: 3 pad: 1 stride: 2", (4, 8, 3, 3), (4,))),
    "conv dilated": ("Convolution", conv("num_output: 4 kernel_size: 3 dilation: 2", (4, 8, 3, 3), (4,))),
    "conv uneven": ("Convolution", conv(UNEVEN, (4, 8, 3, 2), (4,))),
    "conv grouped": ("Convolution", conv("num_output: 4 kernel_size: 3 group: 2", (4, 4, 3, 3), (4,))),
    "conv depthwise": ("Convolution", conv("num_output: 8 kernel_size: 3 group: 8", (8, 1, 3, 3), (8,))),
    "deconv": ("Deconvolution", conv("num_output: 4 kernel_size: 4 stride: 2 pad: 1", (8, 4, 4, 4), (4,))),
    "deconv grouped": ("Deconvolution", conv("num_output: 8 kernel_size: 4 stride: 2 group: 8", (8, 1, 4, 4), (8,))),
    "inner product": ("InnerProduct", ("inner_product_param { num_output: 5 }", (random(5, 504), random(5)))),
    "max k3s2": ("Pooling", pool("pool: MAX kernel_size: 3 stride: 2")),
    "max k2s2": ("Pooling", pool("pool: MAX kernel_size: 2 stride: 2")),
    "max k3s2p1": ("Pooling", pool("pool: MAX kernel_size: 3 stride: 2 pad: 1")),
    "max k3s3p1": ("Pooling", pool("pool: MAX kernel_size: 3 stride: 3 pad: 1")),
    "ave k3s2": ("Pooling", pool("pool: AVE kernel_size: 3 stride: 2")),
    "ave k2s2": ("Pooling", pool("pool: AVE kernel_size: 2 stride: 2")),
    "ave k3s2p1": ("Pooling", pool("pool: AVE kernel_size: 3 stride: 2 pad: 1")),
    "ave k3s2p1 without padding": ("Pooling", pool("pool: AVE kernel_size: 3 stride: 2 pad: 1 avg_include_pad: false")),
    "ave k3s2p1 BVLC": ("Pooling", pool("pool: AVE kernel_size: 3 stride: 2 pad: 1 engine: CAFFE")),
    "ave k4s3p1 BVLC": ("Pooling", pool("pool: AVE kernel_size: 4 stride: 3 pad: 1 engine: CAFFE")),
    "ave global": ("Pooling", pool("pool: AVE global_pooling: true")),
    "relu": ("ReLU", ("", ())),
    "leaky": ("ReLU", ("relu_param { negative_slope: 0.1 }", ())),
    "prelu": ("PReLU", ("", (random(8),))),
    "elu": ("ELU", ("elu_param { alpha: 0.7 }", ())),
    "sigmoid": ("Sigmoid", ("", ())),
    "tanh": ("TanH", ("", ())),
    "abs": ("AbsVal", ("", ())),
    "bnll": ("BNLL", ("", ())),
    "swish": ("Swish", ("swish_param { beta: 1.5 }", ())),
    "threshold": ("Threshold", ("threshold_param { threshold: 0.3 }", ())),
    "power": ("Power", ("power_param { power: 2 scale: 0.5 shift: 0.3 }", ())),
    "cube": ("Power", ("power_param { power: 3 scale: 0.5 shift: 0.3 }", ())),
    "constant power": ("Power", ("power_param { power: 0 }", ())),
    "exp": ("Exp", ("", ())),
    "log": ("Log", ("log_param { scale: 0.1 shift: 5 base: 2 }", ())),
    "argmax": ("ArgMax", ("argmax_param { axis: 1 top_k: 3 }", ())),
    "argmax values": ("ArgMax", ("argmax_param { out_max_val: true top_k: 2 }", ())),
    "batch norm": ("BatchNorm", ("batch_norm_param { use_global_stats: true use_weight_bias: false }", STATISTICS)),
    "batch norm of the batch": ("BatchNorm", (OF_BATCH, STATISTICS)),
    "lrn": ("LRN", ("lrn_param { local_size: 3 alpha: 0.2 beta: 0.75 k: 2 }", ())),
    "lrn within": ("LRN", ("lrn_param { local_size: 3 alpha: 0.2 beta: 0.75 norm_region: WITHIN_CHANNEL }", ())),
    "mvn": ("MVN", ("", ())),
    "normalize": ("Normalize", ("norm_param { across_spatial: false channel_shared: false }", (random(8),))),
    "scale": ("Scale", ("scale_param { bias_term: true }", (random(8), random(8)))),
    "softmax": ("Softmax", ("", ())),
    "flatten": ("Flatten", ("", ())),
    "reshape": ("Reshape", ("reshape_param { shape { dim: 0 dim: 2 dim: -1 } }", ())),
    "permute": ("Permute", ("permute_param { order: 0 order: 2 order: 3 order: 1 }", ())),
    "tile": ("Tile", ("tile_param { axis: 1 tiles: 3 }", ())),
    "reduction": ("Reduction", ("reduction_param { axis: 1 operation: SUMSQ coeff: 0.5 }", ())),
    "reorg": ("Reorg", ("reorg_param { stride: 2 reverse: true }", ())),
}  # fmt: skip
#: Operators that no layer above has: where they are tested.
ELSEWHERE = {
    "DetectionOutput": "test_detection_exported.py",
    "Floor": "test_preprocess.py",
    "Interpolate": "test_preprocess.py",
    "ShapeOf": "test_preprocess.py",
    "MVN": "test_forks_exported.py",
    "ScatterElementsUpdate": "test_forks_exported.py",
    "GatherND": "test_yolo_exported.py",
    "FakeQuantize": "test_golden_exported.py",
    "Clamp": "test_golden_exported.py",
    "Round": "test_golden_exported.py",
}
#: Operators of what has several bottoms.
JOINED = {
    "eltwise sum": ("Eltwise", "eltwise_param { coeff: 0.5 coeff: -1 }", SHAPE),
    "eltwise product": ("Eltwise", "eltwise_param { operation: PROD }", SHAPE),
    "eltwise maximum": ("Eltwise", "eltwise_param { operation: MAX }", SHAPE),
    "concat": ("Concat", "", (2, 5, 7, 9)),
    "crop": ("Crop", "crop_param { axis: 2 offset: 1 }", (2, 8, 5, 6)),
    "roi": ("ROIPooling", "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }", (4, 5)),
    "psroi": ("PSROIPooling", "psroi_pooling_param { output_dim: 2 group_size: 2 spatial_scale: 0.5 }", (6, 5)),
}


def net(kind: str, param: str, blobs: tuple[Array, ...], other: tuple[int, ...] | None = None) -> Exported:
    shapes = {"x": SHAPE} | ({} if other is None else {"z": other})
    text = "".join(f'layer {{ name: "in_{top}" type: "Input" top: "{top}" }}' for top in shapes)
    bottoms = " ".join(f'bottom: "{top}"' for top in shapes)
    text += f'layer {{ name: "it" type: "{kind}" {bottoms} top: "y" {param} }}'
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    return build_export(graph, FileBlobs({"it": blobs}, "weights"), shapes, "net")


def proposal() -> tuple[Exported, dict[str, Array]]:
    """A region proposal on 9 anchors a place, of which most overlap."""
    tops = {"scores": (1, 18, 5, 7), "deltas": (1, 36, 5, 7), "info": (1, 3)}
    text = "".join(f'layer {{ name: "in_{top}" type: "Input" top: "{top}" }}' for top in tops)
    param = "python_param { module: 'rpn.proposal_layer' layer: 'ProposalLayer' param_str: \"'feat_stride': 16\" }"
    bottoms = " ".join(f'bottom: "{top}"' for top in tops)
    text += f'layer {{ name: "it" type: "Python" {bottoms} top: "y" {param} }}'
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    made = build_export(graph, FileBlobs({}, "weights"), tops, "net", batch=1)
    scores, deltas = random(1, 18, 5, 7, seed=1), random(1, 36, 5, 7, seed=2) * np.float32(0.2)
    return made, {"scores": scores, "deltas": deltas, "info": np.array([[80, 112, 1]], np.float32)}


def sliced() -> Exported:
    text = 'layer { name: "in" type: "Input" top: "x" } layer { name: "it" type: "Slice" bottom: "x" top: "a" top: "b" '
    text += "slice_param { axis: 1 slice_point: 3 } }"
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    return build_export(graph, FileBlobs({}, "weights"), {"x": SHAPE}, "net")


def check(made: Exported, feeds: dict[str, Array]) -> None:
    ours, theirs = run_both(made, feeds)
    for name in made.names:
        assert ours[name].shape == theirs[name].shape
        assert np.abs(ours[name] - theirs[name]).max() <= 1e-5 * max(1.0, np.abs(ours[name]).max())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [pytest.param(*case, id=name, marks=[not_held_to_avx2] if name == "mvn" else []) for name, case in LAYERS.items()],
)
def test_translate_answers_as_openvino(kind: str, settings: tuple[str, tuple[Array, ...]]) -> None:
    check(net(kind, *settings), {"x": random(*SHAPE)})


@pytest.mark.parametrize(("kind", "param", "other"), JOINED.values(), ids=list(JOINED))
def test_translate_of_two_inputs_answers_as_openvino(kind: str, param: str, other: tuple[int, ...]) -> None:
    z = random(*other, seed=2)
    if kind == "ROIPooling":
        z = np.array([[0, 0, 0, 9, 9], [1, 2, 3, 14, 12], [0, 5, 5, 5, 5], [1, 0, 0, 17, 13]], np.float32)
    if kind == "PSROIPooling":  # halves, a box without an extent, boxes over the border and beyond it
        z = np.array([[0, 0, 0, 9, 9], [1, 2.5, 3.5, 14, 12.5], [0, 5, 5, 5, 5]], np.float32)
        z = np.concatenate([z, np.array([[1, -7.5, -3, 17, 23], [0, 40, 40, 50, 50], [1, 9, 9, 2, 2]], np.float32)])
    check(net(kind, param, (), other), {"x": random(*SHAPE), "z": z})


def test_translate_of_several_outputs_answers_as_openvino() -> None:
    made = sliced()
    assert made.names == ("a", "b")
    check(made, {"x": random(*SHAPE)})


def test_translate_of_proposals_answers_as_openvino() -> None:
    made, feeds = proposal()
    ours, theirs = run_both(made, feeds)
    assert np.abs(ours["y"] - theirs["y"]).max() <= 1e-3
    assert np.count_nonzero(ours["y"].any(axis=1)) > 10


def test_table_holds_nothing_that_is_not_tested() -> None:
    made = [net(kind, *settings) for kind, settings in LAYERS.values()]
    made += [net(kind, param, (), other) for kind, param, other in JOINED.values()]
    made += [proposal()[0], sliced()]
    seen = {op.get_type_name() for one in made for op in one.model.get_ordered_ops()}
    assert set(TABLE) - seen - set(ELSEWHERE) == set()


def test_translate_refuses_what_onnx_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from distcalib.errors import UnsupportedError
    from distcalib.exporters.onnx_file import to_onnx

    made = net("TanH", "", ())
    monkeypatch.delitem(TABLE, "Tanh")
    with pytest.raises(UnsupportedError, match="net: layer 'it': ONNX has no operator like OpenVINO's Tanh; export"):
        to_onnx(made, "net")


def test_an_operator_of_fixed_shape_keeps_the_batch() -> None:
    _, param, other = JOINED["psroi"]
    made = net("PSROIPooling", param, (), other)
    assert (made.batch, made.reason) == (2, "OpenVINO runs PSROIPooling with a fixed batch only")
