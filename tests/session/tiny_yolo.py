"""A YOLO v2 of a few kilobytes: a coarse map, a finer one through Reorg, and RegionLoss and EvalDetection.

As in tiny_ssd.py, `conv3` has a weight of 1,000 at an input that is always 0, and the objects of the data are what the
FP32 net is surest of.
"""

from pathlib import Path

import numpy as np
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, write_weights
from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Outputs
from distcalib.metrics.boxes import centred_overlaps
from distcalib.metrics.detection_output import suppressed
from distcalib.metrics.eval_detection import decoded
from tests.data.databases import encoded_datum, noise, raw_datum, write_lmdb
from tests.session.tiny_ssd import BATCH, ITERATIONS, N_RECORDS, TRUNK, Blobs, TinySsd, drawn, entries_of, worker_of

QUANTIZABLE = ("conv2", "conv3", "conv4", "fine", "conv_reg")
SIDE, N_CLASSES, N_OBJECTS = 4, 3, 2  # of the last class there is no object
BIASES = " ".join(f"biases: {b}" for b in (1, 1, 1.5, 1, 1, 1.5, 2, 2, 0.8, 1.2))

NET = (
    'name: "tiny_yolo"'
    + TRUNK.format(source="SOURCE")
    + f"""
layer {{ name: "conv4" type: "Convolution" bottom: "conv3" top: "conv4"
  convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 stride: 2 }} }}
layer {{ name: "conv4_relu" type: "ReLU" bottom: "conv4" top: "conv4" }}
layer {{ name: "fine" type: "Convolution" bottom: "conv3" top: "fine"
  convolution_param {{ num_output: 4 kernel_size: 1 }} }}
layer {{ name: "fine_relu" type: "ReLU" bottom: "fine" top: "fine" }}
layer {{ name: "reorg" type: "Reorg" bottom: "fine" top: "reorg" reorg_param {{ stride: 2 }} }}
layer {{ name: "concat" type: "Concat" bottom: "reorg" bottom: "conv4" top: "concat" }}
layer {{ name: "conv_reg" type: "Convolution" bottom: "concat" top: "conv_reg"
  convolution_param {{ num_output: {5 * (5 + N_CLASSES)} kernel_size: 1 }} }}
layer {{ name: "det_loss" type: "RegionLoss" bottom: "conv_reg" bottom: "label" top: "det_loss" loss_weight: 1
  region_loss_param {{ side: {SIDE} num_class: {N_CLASSES} coords: 4 num: 5 softmax: 1 {BIASES} }} }}
layer {{ name: "eval_det" type: "EvalDetection" bottom: "conv_reg" bottom: "label" bottom: "data" top: "eval_det"
  eval_detection_param {{ side: {SIDE} num_class: {N_CLASSES} num_object: 5 threshold: 0.5 nms: 0.45
    score_type: MULTIPLY {BIASES} }} }}
"""
)


def make_tiny_yolo(folder: Path, encoded: bool = False) -> TinySsd:
    """Write the net, its weights and its data into `folder`.  `encoded`: records are PNG images, not raw pixels."""
    made = TinySsd(folder / "yolo.prototxt", folder / "yolo.caffemodel", folder / "boxes")
    net = text_format.Parse(NET, caffe_pb2.NetParameter())
    write_weights(made.weights, "tiny_yolo", net.layer, _make_blobs())
    images = [noise(3, 16, 16, seed=i) for i in range(N_RECORDS)]
    datums = [encoded_datum(image.transpose(1, 2, 0)) if encoded else raw_datum(image) for image in images]
    records = [AnnotatedDatum(datum=datum, type=AnnotatedDatum.BBOX) for datum in datums]
    blank = write_lmdb(folder / "blank", entries_of(records))
    made.prototxt.write_text(NET.replace("SOURCE", str(blank)))
    for item, label, (x, y, w, h) in _surest(open_net(made.prototxt), made.weights):
        b = records[item].annotation_group.add(group_label=label).annotation.add().bbox
        b.xmin, b.ymin, b.xmax, b.ymax = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    write_lmdb(made.database, entries_of(records))
    made.prototxt.write_text(NET.replace("SOURCE", str(made.database)))
    return made


def _surest(net: Net, weights: Path) -> list[tuple[int, int, list[float]]]:
    """Number of the record, label and box (x, y, width, height) of what each image's best boxes are."""
    [layer] = [node for node in net.graph if node.type == "EvalDetection"]
    worker = worker_of(net, weights)
    worker.load("net", worker.compile(net.spec(outputs=Outputs(layer.bottoms[:1]))))
    found = []
    for i, row in enumerate(worker.run("net", range(ITERATIONS))):
        boxes, labels, scores = decoded(layer.layer.eval_detection_param, row.values[layer.bottoms[0]])
        for item in range(BATCH):
            order = np.argsort(-scores[item], kind="stable")
            kept = order[suppressed(boxes[item, order], 0.4, overlap=centred_overlaps)]
            best = [k for k in kept if labels[item, k] < N_CLASSES][:N_OBJECTS]
            found += [(i * BATCH + item, int(labels[item, k]), boxes[item, k].tolist()) for k in best]
    return found


def _make_blobs() -> dict[str, Blobs]:
    layers = [
        ("conv1", 4, 3, 3, 1.0),
        ("conv2", 6, 4, 3, 1.0),
        ("conv3", 6, 6, 1, 1.0),
        ("conv4", 6, 6, 3, 1.0),
        ("fine", 4, 6, 1, 1.0),
        ("conv_reg", 5 * (5 + N_CLASSES), 22, 1, 1.5),
    ]
    blobs = drawn(layers)
    anchors = blobs["conv_reg"][0].reshape(5, 5 + N_CLASSES, -1)
    anchors[:, 2:4] *= 0.2  # else boxes are larger than the image
    return blobs
