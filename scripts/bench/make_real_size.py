"""Write a net at its published shapes, with random weights and a few scenes: what it costs can be measured, not scored.

    python -m scripts.bench.make_real_size OUT [--net ssd300-vgg16] [--scenes 32] [--batch 4] [--seed 1]

OUT/NAME.prototxt, OUT/NAME.caffemodel (105 MB for SSD300-VGG16, 528 MB for VGG-16) and OUT/scenes_lmdb, JPEGs of VOC's
500x375 with boxes.  Weights are He's; then the layers that make logits and boxes are scaled by what they make of the
scenes, so that an image has about as many candidates above the threshold as a trained detector has: suppression costs
what it costs there, and no activation overflows or dies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from distcalib.caffe import caffe_pb2, net_text, write_atomically, write_weights
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.data import open_source
from distcalib.engine.builder import build_model, layer_shapes
from distcalib.engine.program import LocalProgram
from distcalib.layers import FileBlobs, RandomBlobs
from distcalib.layers.blobs import FloatArray, Role
from scripts.bench.real_nets import N_CLASSES, NETS, RealNet
from scripts.bench.ssd_layers import layer
from scripts.tools.write_lmdb import write_lmdb

WIDTH, HEIGHT = 500, 375
QUALITY = 90
LOGIT_STD, BACKGROUND = 1.0, 7.1
"""Of N(0, 1) logits against a background of 7.1, 0.6 % have a softmax above 0.01: some 1,000 of SSD300's 174,640, as
many as a net trained on VOC leaves to suppression."""
LOC_STD = 0.5
OBJECTNESS = -5.0
"""A logit; with N(0, 1) about it some 170 of YOLO's 845 boxes an image score above the 0.005 of a detection."""

Weights = dict[str, tuple[FloatArray, ...]]


class DrawnBlobs(RandomBlobs):
    """Random weights, kept as they are asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.drawn: dict[str, dict[int, FloatArray]] = {}

    def get(self, name: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """As RandomBlobs has it; each blob is drawn once."""
        blobs = self.drawn.setdefault(name, {})
        if index not in blobs:
            blobs[index] = super().get(name, index, shape, role)
        return blobs[index]

    @property
    def weights(self) -> Weights:
        """All that was drawn, by layer."""
        return {name: tuple(blobs[i] for i in sorted(blobs)) for name, blobs in self.drawn.items()}


# ---- scenes


def scene(rng: np.random.Generator) -> caffe_pb2.AnnotatedDatum:
    """One to five flat boxes on a noisy, cloudy ground, as a JPEG; labels are drawn, too."""
    clouds = rng.uniform(40, 215, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(clouds, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    record = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    for _ in range(int(rng.integers(1, 6))):
        low, size = rng.uniform(0.0, 0.6, 2), rng.uniform(0.1, 0.4, 2)
        xmin, ymin, xmax, ymax = (float(side) for side in (*low, *(low + size)))
        rows, columns = (slice(int(a * n), int(b * n)) for a, b, n in ((ymin, ymax, HEIGHT), (xmin, xmax, WIDTH)))
        image[rows, columns] = rng.uniform(0, 255, 3).astype(np.float32)
        group = record.annotation_group.add(group_label=int(rng.integers(1, N_CLASSES)))
        box = group.annotation.add(instance_id=0).bbox
        box.xmin, box.ymin, box.xmax, box.ymax, box.difficult = xmin, ymin, xmax, ymax, False
    image = image + rng.normal(0.0, 8.0, image.shape)
    done, jpeg = cv2.imencode(".jpg", image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV writes JPEG"
    record.datum.data, record.datum.encoded, record.datum.label = jpeg.tobytes(), True, 0
    record.datum.channels, record.datum.height, record.datum.width = 3, HEIGHT, WIDTH
    return record


def scenes(n: int, seed: int) -> Iterator[caffe_pb2.AnnotatedDatum]:
    """The same for the same seed."""
    rng = np.random.default_rng(seed)
    return (scene(rng) for _ in range(n))


def classified(records: Iterable[caffe_pb2.AnnotatedDatum], n_classes: int) -> Iterator[caffe_pb2.Datum]:
    """The images with a class in place of boxes."""
    for number, record in enumerate(records):
        record.datum.label = number % n_classes
        yield record.datum


# ---- nets


def data_layer(net: RealNet, batch: int) -> caffe_pb2.LayerParameter:
    """The scenes, stretched to the net's square."""
    kind, source = ("AnnotatedData", "scenes_lmdb") if net.detects else ("Data", "images_lmdb")
    means = " ".join(f"mean_value: {value}" for value in net.mean)
    return layer(f"""name: "data" type: "{kind}" top: "data" top: "label"
        transform_param {{ scale: {net.scale} {means} resize_param {{ prob: 1 resize_mode: WARP
        height: {net.side} width: {net.side} interp_mode: LINEAR }} }}
        data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}""")


def assembled(net: RealNet, batch: int) -> caffe_pb2.NetParameter:
    """The net with its data layer."""
    return caffe_pb2.NetParameter(name=net.name, layer=[data_layer(net, batch), *net.layers])


def data_shapes(net: RealNet, batch: int) -> dict[str, tuple[int, ...]]:
    """Of the tops of the data layer."""
    return {"data": (batch, 3, net.side, net.side), "label": (1, 1, 1, 8) if net.detects else (batch,)}


def draw_weights(net: RealNet, graph: Graph, seed: int) -> Weights:
    """Random weights of the shapes that the layers ask for."""
    blobs = DrawnBlobs(seed)
    _, problems = layer_shapes(graph, blobs, data_shapes(net, 1), net.name)
    if problems:
        raise problems[0]
    return blobs.weights


def tame(net: RealNet, graph: Graph, weights: Weights, images: FloatArray) -> None:
    """Scale the heads so that logits on `images` (N, C, H, W) have LOGIT_STD and boxes LOC_STD, each head by itself,
    and lift the background of each, or lower the objectness.
    """
    wanted = [*net.confs, *net.locs, *net.regions]
    if not wanted:
        return
    keep = [Blob(name, 0) for name in wanted]
    shapes: Mapping[str, tuple[int, ...]] = {**data_shapes(net, len(images)), "data": images.shape}
    built = build_model(graph, FileBlobs(weights, net.name), shapes, net.name, keep=keep)
    made = LocalProgram(built, net.name, 1).run({"data": images})
    for name, blob in zip(wanted, keep, strict=True):
        weight, _ = weights[name]
        factor = (LOC_STD if name in net.locs else LOGIT_STD) / float(made[blob].std())
        bias = np.zeros(len(weight), np.float32)
        if name in net.confs:
            bias[::N_CLASSES] = BACKGROUND
        if name in net.regions:
            bias.reshape(-1, 4 + N_CLASSES)[:, 4] = OBJECTNESS  # x, y, width, height, objectness, 20 classes
        weights[name] = (weight * np.float32(factor), bias)


def make(out: Path, name: str, n_scenes: int, batch: int, seed: int) -> tuple[Path, Path]:
    """Write the net `name` of NETS with weights and scenes; prototxt and caffemodel.

    Batch norms and priors keep what the published nets have; nothing is trained.
    """
    net = NETS[name]()
    out.mkdir(parents=True, exist_ok=True)
    prototxt, caffemodel = out / f"{net.name}.prototxt", out / f"{net.name}.caffemodel"
    whole = assembled(net, batch)
    records: Iterator[caffe_pb2.AnnotatedDatum | caffe_pb2.Datum] = scenes(n_scenes, seed)
    if not net.detects:
        records = classified(scenes(n_scenes, seed), 1000)
    write_lmdb(out / whole.layer[0].data_param.source, records)
    write_atomically(prototxt, net_text(whole))
    graph = build_graph(whole.layer, net.name)
    weights = draw_weights(net, graph, seed)
    source = open_source(whole.layer[0], prototxt)
    tame(net, graph, weights, source.batch(0)["data"][:2])
    source.close()
    write_weights(caffemodel, net.name, net.layers, weights)
    return prototxt, caffemodel


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--net", choices=NETS, action="append", help="default: all")
    parser.add_argument("--scenes", type=int, default=32, help="images in the database (32)")
    parser.add_argument("--batch", type=int, default=4, help="images an iteration (4)")
    parser.add_argument("--seed", type=int, default=1, help="of weights and scenes (1)")
    args = parser.parse_args(arguments)
    for name in args.net or NETS:
        prototxt, caffemodel = make(args.out, name, args.scenes, args.batch, args.seed)
        print(f"{prototxt}: {caffemodel.stat().st_size / 2**20:.0f} MB of weights", flush=True)


if __name__ == "__main__":
    main()
