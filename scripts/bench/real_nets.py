"""Nets at their published shapes, as Caffe layers: SSD300 and SSD512 on VGG-16, MobileNet-SSD, YOLO v2, VGG-16.

The figures are those of the papers' own prototxts: SSD (ssd_pascal.py and ssd_pascal_512.py of the SSD branch of Caffe;
300 is scale 0.2..0.9, 512 is 0.15..0.9), chuanqi305's MobileNet-SSD, darknet's yolo-voc.cfg, and Simonyan's VGG-16.
All detect VOC's 20 classes; `priors` is what the papers count.  A detector's head, its priors included, is in the
net; tests/scripts/test_real_nets.py counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scripts.bench.ssd_layers import Layer, joined, layer

N_CLASSES = 21
"""Background and VOC's 20."""
EPS = 1e-5
YOLO_ANCHORS = (1.3221, 1.73145, 3.19275, 4.00944, 5.05587, 8.09892, 9.47112, 4.84053, 11.2364, 10.0071)
"""Width and height of each of a cell's five boxes, in cells (yolo-voc.cfg)."""


@dataclass(frozen=True)
class RealNet:
    """`side`: of the square input; `priors`: boxes an image before suppression; `confs`: the layers whose results
    are class logits, `locs` those that move boxes, `regions` those of YOLO, which make both.
    """

    name: str
    side: int
    mean: tuple[float, ...]
    scale: float
    layers: tuple[Layer, ...]
    priors: int = 0
    confs: tuple[str, ...] = ()
    locs: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def detects(self) -> bool:
        """Whether it makes boxes."""
        return self.priors > 0


@dataclass(frozen=True)
class Head:
    """A feature map of an SSD: its blob and the boxes at each of its places."""

    blob: str
    min_size: float
    max_size: float | None
    ratios: tuple[int, ...]
    step: float | None = None

    @property
    def boxes(self) -> int:
        """One, one between min_size and max_size, and two for each aspect ratio."""
        return 1 + (self.max_size is not None) + 2 * len(self.ratios)


def conv(name: str, bottom: str, n_out: int, kernel: int, **other: int | bool) -> Layer:
    """A convolution that keeps the size, or with what `other` says."""
    given = {"pad": kernel // 2, **other}
    params = " ".join(f"{key}: {str(value).lower()}" for key, value in given.items())
    return layer(f"""name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
        convolution_param {{ num_output: {n_out} kernel_size: {kernel} {params} }}""")


def relu(blob: str, slope: float = 0.0) -> Layer:
    """In place."""
    param = f"relu_param {{ negative_slope: {slope} }}" if slope else ""
    return layer(f'name: "relu_{blob}" type: "ReLU" bottom: "{blob}" top: "{blob}" {param}')


def pool(name: str, bottom: str, kernel: int = 2, stride: int = 2, pad: int = 0) -> Layer:
    """The largest of kernel·kernel."""
    return layer(f"""name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}"
        pooling_param {{ pool: MAX kernel_size: {kernel} stride: {stride} pad: {pad} }}""")


def normed(blob: str) -> Iterator[Layer]:
    """BatchNorm and Scale behind a convolution, in place."""
    yield layer(f"""name: "{blob}/bn" type: "BatchNorm" bottom: "{blob}" top: "{blob}"
        batch_norm_param {{ use_global_stats: true eps: {EPS} }}""")
    yield layer(f'name: "{blob}/scale" type: "Scale" bottom: "{blob}" top: "{blob}" scale_param {{ bias_term: true }}')


# ---- VGG-16


def vgg_convs() -> Iterator[Layer]:
    """The 13 convolutions and the poolings between them, up to conv5_3."""
    bottom = "data"
    for stage, (n_convs, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for i in range(1, n_convs + 1):
            name = f"conv{stage}_{i}"
            yield from (conv(name, bottom, width, 3), relu(name))
            bottom = name
        if stage < 5:
            yield pool(f"pool{stage}", bottom)
            bottom = f"pool{stage}"


def vgg16() -> RealNet:
    """The classifier of 1000 classes, whose caffemodel has 528 MB."""
    layers = [*vgg_convs(), pool("pool5", "conv5_3")]
    for name, bottom, n_out in (("fc6", "pool5", 4096), ("fc7", "fc6", 4096), ("fc8", "fc7", 1000)):
        layers.append(
            layer(f"""name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
            inner_product_param {{ num_output: {n_out} }}""")
        )
        if name != "fc8":
            layers.append(relu(name))
    layers.append(layer('name: "accuracy" type: "Accuracy" bottom: "fc8" bottom: "label" top: "accuracy"'))
    return RealNet("vgg16", 224, (104.0, 117.0, 123.0), 1.0, tuple(layers))


# ---- SSD


def ssd_heads(heads: Sequence[Head], offset: float, clip: bool, flat: str) -> Iterator[Layer]:
    """loc, conf and priors of each head, joined, and the detections.

    `flat`: what softmax reads, for the two writers of these nets name it differently.
    """
    for head in heads:
        for kind, each in (("loc", 4), ("conf", N_CLASSES)):
            name = f"{head.blob}_mbox_{kind}"
            # MobileNet-SSD's heads look at one place, VGG's at three by three.
            yield conv(name, head.blob, head.boxes * each, 1 if flat == "mobilenet" else 3)
            yield layer(f"""name: "{name}_perm" type: "Permute" bottom: "{name}" top: "{name}_perm"
                permute_param {{ order: 0 order: 2 order: 3 order: 1 }}""")
            yield layer(f"""name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" top: "{name}_flat"
                flatten_param {{ axis: 1 }}""")
        ratios = " ".join(f"aspect_ratio: {ratio}" for ratio in head.ratios)
        largest = "" if head.max_size is None else f"max_size: {head.max_size}"
        step = "" if head.step is None else f"step: {head.step}"
        yield layer(f"""name: "{head.blob}_mbox_priorbox" type: "PriorBox" bottom: "{head.blob}" bottom: "data"
            top: "{head.blob}_mbox_priorbox" prior_box_param {{ min_size: {head.min_size} {largest} {ratios} flip: true
            clip: {str(clip).lower()} variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 {step}
            offset: {offset} }}""")
    yield from joined([head.blob for head in heads], N_CLASSES)
    top_k, keep = (100, 100) if flat == "mobilenet" else (400, 200)
    yield layer(f"""name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc" bottom: "mbox_conf_flatten"
        bottom: "mbox_priorbox" top: "detection_out" detection_output_param {{ num_classes: {N_CLASSES}
        share_location: true background_label_id: 0 nms_param {{ nms_threshold: 0.45 top_k: {top_k} }}
        code_type: CENTER_SIZE keep_top_k: {keep} confidence_threshold: 0.01 }}""")
    yield layer(f"""name: "detection_eval" type: "DetectionEvaluate" bottom: "detection_out" bottom: "label"
        top: "detection_eval" detection_evaluate_param {{ num_classes: {N_CLASSES} background_label_id: 0
        overlap_threshold: 0.5 evaluate_difficult_gt: false }}""")


def ssd_vgg(name: str, side: int, heads: Sequence[Head], extras: Sequence[Layer], priors: int) -> RealNet:
    """VGG-16 whose fc6 and fc7 are convolutions over 32 times fewer pixels, `extras` behind, and `heads`."""
    layers = [*vgg_convs(), pool("pool5", "conv5_3", kernel=3, stride=1, pad=1)]
    layers += [conv("fc6", "pool5", 1024, 3, pad=6, dilation=6), relu("fc6"), conv("fc7", "fc6", 1024, 1), relu("fc7")]
    for one in extras:
        layers += [one, relu(one.name)]
    layers.append(
        layer("""name: "conv4_3_norm" type: "Normalize" bottom: "conv4_3" top: "conv4_3_norm"
        norm_param { across_spatial: false channel_shared: false }""")
    )
    layers += ssd_heads(heads, 0.5, clip=False, flat="vgg")
    return RealNet(name, side, (104.0, 117.0, 123.0), 1.0, tuple(layers), priors, *_heads_of(heads))


def ssd300_vgg16() -> RealNet:
    """8,732 priors."""
    extras: list[Layer] = []
    for stage, bottom, middle, n_out, stride in (
        (6, "fc7", 256, 512, 2),
        (7, "conv6_2", 128, 256, 2),
        (8, "conv7_2", 128, 256, 1),
        (9, "conv8_2", 128, 256, 1),
    ):
        extras.append(conv(f"conv{stage}_1", bottom, middle, 1))
        extras.append(conv(f"conv{stage}_2", f"conv{stage}_1", n_out, 3, stride=stride, pad=int(stride == 2)))
    blobs = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    steps = (8.0, 16.0, 32.0, 64.0, 100.0, 300.0)
    sizes = pairwise((30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0))
    heads = [Head(b, *size, r, s) for b, size, r, s in zip(blobs, sizes, ratios, steps, strict=True)]
    return ssd_vgg("ssd300_vgg16", 300, heads, extras, 8732)


def ssd512_vgg16() -> RealNet:
    """24,564 priors."""
    extras: list[Layer] = []
    for stage, bottom, middle, n_out in (
        (6, "fc7", 256, 512),
        (7, "conv6_2", 128, 256),
        (8, "conv7_2", 128, 256),
        (9, "conv8_2", 128, 256),
    ):
        extras.append(conv(f"conv{stage}_1", bottom, middle, 1))
        extras.append(conv(f"conv{stage}_2", f"conv{stage}_1", n_out, 3, stride=2, pad=1))
    extras += [conv("conv10_1", "conv9_2", 128, 1), conv("conv10_2", "conv10_1", 256, 4, pad=1)]
    blobs = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2")
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
    steps = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
    sizes = pairwise((35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6))
    heads = [Head(b, *size, r, s) for b, size, r, s in zip(blobs, sizes, ratios, steps, strict=True)]
    return ssd_vgg("ssd512_vgg16", 512, heads, extras, 24564)


def ssd300_mobilenet() -> RealNet:
    """1,917 priors."""
    layers: list[Layer] = [conv("conv0", "data", 32, 3, stride=2, bias_term=False), *normed("conv0"), relu("conv0")]
    bottom, n_in = "conv0", 32
    widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for number, n_out in enumerate(widths, 1):
        stride = 2 if number in (2, 4, 6, 12) else 1
        name = f"conv{number}"
        layers += [conv(f"{name}/dw", bottom, n_in, 3, stride=stride, group=n_in, bias_term=False)]
        layers += [*normed(f"{name}/dw"), relu(f"{name}/dw")]
        layers += [conv(name, f"{name}/dw", n_out, 1, bias_term=False), *normed(name), relu(name)]
        bottom, n_in = name, n_out
    for number, middle, n_out in ((14, 256, 512), (15, 128, 256), (16, 128, 256), (17, 64, 128)):
        name = f"conv{number}"
        layers += [conv(f"{name}_1", bottom, middle, 1, bias_term=False), *normed(f"{name}_1"), relu(f"{name}_1")]
        layers += [conv(f"{name}_2", f"{name}_1", n_out, 3, stride=2, bias_term=False)]
        layers += [*normed(f"{name}_2"), relu(f"{name}_2")]
        bottom = f"{name}_2"
    blobs = ("conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2")
    sizes = ((60.0, None), (105.0, 150.0), (150.0, 195.0), (195.0, 240.0), (240.0, 285.0), (285.0, 300.0))
    heads = [Head(b, low, high, (2,) if high is None else (2, 3)) for b, (low, high) in zip(blobs, sizes, strict=True)]
    layers += ssd_heads(heads, 0.5, clip=False, flat="mobilenet")
    mean = (127.5, 127.5, 127.5)
    return RealNet("ssd300_mobilenet", 300, mean, 0.007843, tuple(layers), 1917, *_heads_of(heads))


def _heads_of(heads: Sequence[Head]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    confs, locs = (tuple(f"{head.blob}_mbox_{kind}" for head in heads) for kind in ("conf", "loc"))
    return confs, locs


# ---- YOLO v2


def yolo_v2_416() -> RealNet:
    """Darknet-19 without its last layer, three more convolutions, the passthrough: 13·13·5 boxes of 5 + 20 values."""
    layers: list[Layer] = []

    def block(name: str, bottom: str, n_out: int, kernel: int) -> str:
        layers.extend([conv(name, bottom, n_out, kernel, bias_term=False), *normed(name), relu(name, 0.1)])
        return name

    bottom, number = "data", 0
    for stage, kernels in enumerate(([3], [3], [3, 1, 3], [3, 1, 3], [3, 1, 3, 1, 3], [3, 1, 3, 1, 3])):
        width = 32 << stage
        for kernel in kernels:
            number += 1
            bottom = block(f"conv{number}", bottom, width if kernel == 3 else width // 2, kernel)
        if stage < 5:
            layers.append(pool(f"pool{stage + 1}", bottom))
            bottom = f"pool{stage + 1}"
    for number in (19, 20):
        bottom = block(f"conv{number}", bottom, 1024, 3)
    passed = block("conv21", "conv13", 64, 1)
    layers.append(layer(f'name: "reorg" type: "Reorg" bottom: "{passed}" top: "reorg" reorg_param {{ stride: 2 }}'))
    layers.append(layer(f'name: "concat" type: "Concat" bottom: "reorg" bottom: "{bottom}" top: "concat"'))
    block("conv22", "concat", 1024, 3)
    layers.append(conv("conv23", "conv22", 5 * (5 + 20), 1))
    biases = " ".join(f"biases: {bias}" for bias in YOLO_ANCHORS)
    layers.append(
        layer(f"""name: "eval_det" type: "EvalDetection" bottom: "conv23" bottom: "label" top: "eval_det"
        eval_detection_param {{ side: 13 num_class: {N_CLASSES - 1} num_object: 5 threshold: 0.5 nms: 0.45
        score_type: MULTIPLY {biases} }}""")
    )
    return RealNet("yolo_v2_416", 416, (), 1 / 255, tuple(layers), 13 * 13 * 5, regions=("conv23",))


NETS = {
    "ssd300-vgg16": ssd300_vgg16,
    "ssd512-vgg16": ssd512_vgg16,
    "ssd300-mobilenet": ssd300_mobilenet,
    "yolo-v2-416": yolo_v2_416,
    "vgg16": vgg16,
}
