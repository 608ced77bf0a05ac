"""An SSD of a few kilobytes on random images, made on the spot, with one layer that INT8 ruins.

As in tiny.py, `conv3` has a weight of 1,000 at an input that is always 0. The objects of the data are what the FP32 net
detects, so that its mAP is nearly 1.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, write_weights
from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.data import open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Outputs
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.metrics import make_layer
from tests.data.databases import encoded_datum, noise, raw_datum, write_lmdb

N_RECORDS, BATCH = 24, 4
ITERATIONS = N_RECORDS // BATCH
QUANTIZABLE = ("conv2", "conv3", "loc", "conf")  # conv1 is the first

Blobs = tuple[npt.NDArray[np.float32], ...]

TRUNK = """
layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.01 mean_value: 127 }} annotated_data_param {{ batch_sampler {{}} }}
  data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 }} }}
layer {{ name: "conv1_relu" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 }} }}
layer {{ name: "conv2_relu" type: "ReLU" bottom: "conv2" top: "conv2" }}
layer {{ name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
  convolution_param {{ num_output: 6 kernel_size: 1 }} }}
layer {{ name: "conv3_relu" type: "ReLU" bottom: "conv3" top: "conv3" }}
"""

NET = (
    'name: "tiny_ssd"'
    + TRUNK
    + """
layer {{ name: "norm" type: "Normalize" bottom: "conv3" top: "norm"
  norm_param {{ across_spatial: false channel_shared: false }} }}
layer {{ name: "loc" type: "Convolution" bottom: "norm" top: "loc"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 }} }}
layer {{ name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
  permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }}
layer {{ name: "conf" type: "Convolution" bottom: "norm" top: "conf"
  convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 }} }}
layer {{ name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
  permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }}
layer {{ name: "conf_rows" type: "Reshape" bottom: "conf_flat" top: "conf_rows"
  reshape_param {{ shape {{ dim: 0 dim: -1 dim: 3 }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "conf_rows" top: "prob" softmax_param {{ axis: 2 }} }}
layer {{ name: "prob_flat" type: "Flatten" bottom: "prob" top: "prob_flat" }}
layer {{ name: "priors" type: "PriorBox" bottom: "norm" bottom: "data" top: "priors"
  prior_box_param {{ min_size: 5 max_size: 8 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 {prior} }} }}
layer {{ name: "out" type: "DetectionOutput" bottom: "loc_flat" bottom: "prob_flat" bottom: "priors" top: "out"
  detection_output_param {{ num_classes: 3 code_type: CENTER_SIZE keep_top_k: 3 confidence_threshold: 0.01
    nms_param {{ nms_threshold: 0.45 top_k: 50 }} {output} }} }}
layer {{ name: "loss" type: "MultiBoxLoss" bottom: "loc_flat" bottom: "conf_flat" bottom: "priors" bottom: "label"
  top: "loss" multibox_loss_param {{ num_classes: 3 }} }}
layer {{ name: "map" type: "DetectionEvaluate" bottom: "out" bottom: "label" top: "map"
  detection_evaluate_param {{ num_classes: 3 }} }}
"""
)


@dataclass(frozen=True)
class TinySsd:
    """The files of the net."""

    prototxt: Path
    weights: Path
    database: Path

    @property
    def args(self) -> list[str]:
        """-m and -w of the command line."""
        return ["-m", str(self.prototxt), "-w", str(self.weights)]


def make_tiny_ssd(folder: Path, prior: str = "", output: str = "", encoded: bool = False) -> TinySsd:
    """Write the net into `folder`, with further parameters of its PriorBox and DetectionOutput.

    `encoded`: its records are PNG images, not raw pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = TinySsd(folder / "ssd.prototxt", folder / "ssd.caffemodel", folder / "boxes")
    text = NET.format(source=made.database, prior=prior, output=output)
    made.prototxt.write_text(text)
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    write_weights(made.weights, "tiny_ssd", net.layer, _make_blobs())
    images = [noise(3, 16, 16, seed=i) for i in range(24)]
    datums = [encoded_datum(image.transpose(1, 2, 0)) if encoded else raw_datum(image) for image in images]
    records = [AnnotatedDatum(datum=datum, type=AnnotatedDatum.BBOX) for datum in datums]
    blank = write_lmdb(folder / "blank", entries_of(records))
    made.prototxt.write_text(NET.format(source=blank, prior=prior, output=output))
    for item, label, _, *box in _detected(open_net(made.prototxt), made.weights):
        b = records[int(item)].annotation_group.add(group_label=int(label)).annotation.add().bbox
        b.xmin, b.ymin, b.xmax, b.ymax = box
    write_lmdb(made.database, entries_of(records))
    made.prototxt.write_text(text)
    return made


def worker_of(net: Net, weights: Path) -> NetWorker:
    """A worker for the net, without Ray."""
    indexes = {node.name: open_source(node.layer, net.path).index for node in data_nodes(net.graph)}
    return NetWorker(Setting(net.path, net.weights(weights), weights.name, indexes), 1)


def entries_of(records: list[AnnotatedDatum]) -> list[tuple[bytes, bytes]]:
    """Of a database."""
    return [(b"%08d" % i, record.SerializeToString()) for i, record in enumerate(records)]


def _detected(net: Net, weights: Path) -> list[list[float]]:
    """Rows of DetectionOutput for all records, with the number of the record in place of the item."""
    layer = next(node for node in net.graph if node.type == "DetectionOutput")
    worker = worker_of(net, weights)
    worker.load("net", worker.compile(net.spec(outputs=Outputs(layer.bottoms))))
    rows = []
    for i, row in enumerate(worker.run("net", range(ITERATIONS))):
        found = make_layer(layer.layer, [row.values[blob] for blob in layer.bottoms])[0, 0]
        found[:, 0] += i * BATCH
        rows += found.tolist()
    return rows


def drawn(layers: list[tuple[str, int, int, int, float]]) -> dict[str, Blobs]:
    """Random weights and biases of convolutions (name, outputs, inputs, kernel, spread), `conv3` such as INT8 ruins."""
    random = np.random.RandomState(4)
    blobs: dict[str, Blobs] = {}
    for name, n_out, n_in, kernel, spread in layers:
        weight = spread * random.standard_normal((n_out, n_in, kernel, kernel)) / np.sqrt(n_in * kernel * kernel / 2)
        blobs[name] = weight.astype(np.float32), (0.1 * random.standard_normal(n_out)).astype(np.float32)
    blobs["conv2"][0][5], blobs["conv2"][1][5] = 0.0, 0.0
    blobs["conv3"][0][:, 5] = 1000.0
    return blobs


def _make_blobs() -> dict[str, Blobs]:
    layers = [
        ("conv1", 4, 3, 3, 1.0),
        ("conv2", 6, 4, 3, 1.0),
        ("conv3", 6, 6, 1, 1.0),
        ("loc", 8, 6, 3, 0.3),
        ("conf", 6, 6, 3, 0.7),
    ]
    return {"norm": (np.full(6, 4.0, np.float32),), **drawn(layers)}
