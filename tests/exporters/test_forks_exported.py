"""Layers of other forks in exported files: ONNX Runtime against OpenVINO."""

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

SHAPE = (2, 8, 6, 10)
EACH = tuple(random(1, 8, 1, 1, seed=i) for i in range(3))
POOL = 'type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param {'
AVE = 'type: "Pooling" bottom: "x" top: "y" pooling_param {'
INTERP = 'type: "Interp" bottom: "x" top: "y" interp_param {'
UP = 'layer { name: "up" type: "Upsample" bottom: "p" bottom: "m" top: "y" upsample_param { scale: 2 } }'

NETS: dict[str, tuple[str, tuple[Array, ...]]] = {
    "relu6": ('type: "ReLU6" bottom: "x" top: "y" }', ()),
    "clip": ('type: "Clip" bottom: "x" top: "y" clip_param { min: -0.3 max: 0.4 } }', ()),
    "hard swish": ('type: "HardSwish" bottom: "x" top: "y" }', ()),
    "BN of statistics": ('type: "BN" bottom: "x" top: "y" }', (*EACH, abs(random(1, 8, 1, 1, seed=9)))),
    "BN of the batch": ('type: "BN" bottom: "x" top: "y" }', EACH[:2]),
    "mask": (f"{POOL} kernel_size: 2 stride: 2 }} }}", ()),
    "mask of uneven windows": (f"{POOL} kernel_size: 3 stride: 2 pad: 1 }} }}", ()),
    "unpooling": (f"{POOL} kernel_size: 2 stride: 2 }} }} {UP}", ()),
    "real pixels": (f"{AVE} pool: AVE_EXC_PAD kernel_size: 3 pad: 1 }} }}", ()),
    "nearest": ('type: "Upsample" bottom: "x" top: "y" upsample_param { scale: 2 } }', ()),
    "interp": (f"{INTERP} height: 13 width: 19 }} }}", ()),
    "interp of a part": (f"{INTERP} zoom_factor: 3 pad_beg: -1 pad_end: -1 }} }}", ()),
    "shuffle": ('type: "ShuffleChannel" bottom: "x" top: "y" shuffle_channel_param { group: 4 } }', ()),
    "spp": ('type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 2 } }', ()),
    "embed": (
        'type: "Embed" bottom: "x" top: "y" embed_param { input_dim: 3 num_output: 5 bias_term: false } }',
        (random(3, 5),),
    ),
}  # fmt: skip


def net(layers: str, blobs: tuple[Array, ...]) -> Exported:
    text = f'layer {{ name: "in" type: "Input" top: "x" }} layer {{ name: "it" {layers}'
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    return build_export(graph, FileBlobs({"it": blobs}, "weights"), {"x": SHAPE}, "net")


@pytest.mark.parametrize(("layers", "blobs"), NETS.values(), ids=list(NETS))
def test_onnx_of_a_forks_layer_answers_as_openvino(layers: str, blobs: tuple[Array, ...]) -> None:
    made = net(layers, blobs)
    x = np.zeros(SHAPE, np.float32) + np.float32(2) if "Embed" in layers else random(*SHAPE)
    ours, theirs = run_both(made, {"x": x})
    assert made.names
    for name in made.names:
        assert ours[name].shape == theirs[name].shape
        assert np.abs(ours[name] - theirs[name]).max() <= 1e-5 * max(1.0, np.abs(ours[name]).max())
        assert np.ptp(ours[name]) > 0.0
