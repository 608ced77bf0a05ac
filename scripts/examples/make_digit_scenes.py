"""Train the SSD of examples/digit_scenes, and write it with its test scenes as Caffe files.

    pip install -e '.[examples]'
    python -m scripts.examples.make_digit_scenes            # about two minutes on one core

The digits are scikit-learn's handwritten ones: half of them appear in the scenes that train the net, the other half in
the test scenes. PyTorch is needed for training only. Two runs on one machine give the same bytes; another CPU or
PyTorch adds in another order and gives weights, and some boxes, that differ in the last places.

After training, some output channels of depthwise convolutions are multiplied by a power of two and the layer behind
divides by it (`--hard`), as in scripts/examples/make_digits.py, which tells why."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from sklearn.datasets import load_digits

from distcalib.caffe import caffe_pb2, net_text, write_atomically, write_weights
from scripts.bench.naive_map import detections, mean_average_precision
from scripts.bench.ssd_layers import joined, layer
from scripts.examples import depthwise
from scripts.examples.depthwise import Conv, Hard, Parameters
from scripts.examples.digit_scenes import (
    SIDE,
    VARIANCES,
    Images,
    Labels,
    Priors,
    Scene,
    all_priors,
    annotated,
    scenes,
    targets,
)
from scripts.examples.split import split_by_label
from scripts.tools.write_lmdb import write_lmdb

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "digit_scenes"
N_TEST = 500
N_TEST_DIGITS = 898
BATCH = 20  # 25 iterations see each test scene once
TRAIN_BATCH = 32
MEAN, SCALE = 60.0, 0.02  # of the pixels 0..255
N_CLASSES = 11  # background and ten digits
NEGATIVES = 3  # background priors that count, a matched one: those of the largest loss

CONVS = (
    Conv("conv1", "data", 1, 16, 3, stride=2),
    Conv("conv2_dw", "conv1", 16, 16, 3, stride=2, depthwise=True),
    Conv("conv2_pw", "conv2_dw", 16, 48, 1),
    Conv("conv3_dw", "conv2_pw", 48, 48, 3, depthwise=True),
    Conv("conv3_pw", "conv3_dw", 48, 64, 1),
    Conv("conv4_dw", "conv3_pw", 64, 64, 3, depthwise=True),
    Conv("conv4_pw", "conv4_dw", 64, 96, 1),
    Conv("conv5_dw", "conv4_pw", 96, 96, 3, stride=2, depthwise=True),
    Conv("conv5_pw", "conv5_dw", 96, 128, 1),
    Conv("conv6_dw", "conv5_pw", 128, 128, 3, depthwise=True),
    Conv("conv6_pw", "conv6_dw", 128, 128, 1),
    Conv("conv7_dw", "conv6_pw", 128, 128, 3, stride=2, depthwise=True),
    Conv("conv7_pw", "conv7_dw", 128, 128, 1),
)
#: The feature maps that boxes are read from.
HEADS = {"conv4_pw": Priors(16, 11, 15), "conv6_pw": Priors(8, 18, 23), "conv7_pw": Priors(4, 26, 30)}
PER_CELL = 3
#: A quarter of the channels each.
HARD = (Hard("conv3_dw", 12, 5), Hard("conv5_dw", 24, 6))


def digits(seed: int) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Digits (N, 8, 8) u8 and labels (N,): those of training scenes and those of test scenes, none in both."""
    bunch = load_digits()
    images, labels = (bunch.images * (255 / 16)).round().astype(np.uint8), np.asarray(bunch.target, np.int64)
    train, test = split_by_label(labels, N_TEST_DIGITS, seed)
    return (images[train], labels[train]), (images[test], labels[test])


# ---- training


def head_shapes(head: str) -> dict[str, int]:
    """Output channels of the two convolutions that read blob `head`."""
    return {f"{head}_mbox_loc": PER_CELL * 4, f"{head}_mbox_conf": PER_CELL * N_CLASSES}


def new_parameters() -> tuple[Parameters, Parameters]:
    """Learnt and counted parameters of the blocks and of the heads."""
    learnt: Parameters = {}
    counted: Parameters = {}
    depthwise.add_parameters(CONVS, learnt, counted)
    widths = {conv.top: conv.n_out for conv in CONVS}
    for head in HEADS:
        for name, n_out in head_shapes(head).items():
            learnt[name] = torch.randn(n_out, widths[head], 1, 1) * 0.05
            learnt[name + ".bias"] = torch.zeros(n_out)
    return learnt, counted


def forward(
    x: torch.Tensor, learnt: Parameters, counted: Parameters, training: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """loc (N, P, 4) and conf (N, P, 11) of x (N, 1, SIDE, SIDE), in the order of the priors."""
    blobs = depthwise.run_convs(CONVS, x, learnt, counted, training)
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for head in HEADS:
        for part, name, n in zip(parts, head_shapes(head), (4, N_CLASSES), strict=True):
            y = F.conv2d(blobs[head], learnt[name], learnt[name + ".bias"])
            part.append(y.permute(0, 2, 3, 1).reshape(len(x), -1, n))
    return torch.cat(parts[0], 1), torch.cat(parts[1], 1)


def multibox_loss(
    loc: torch.Tensor, conf: torch.Tensor, want_loc: torch.Tensor, want_class: torch.Tensor
) -> torch.Tensor:
    """Smooth L1 of matched priors, and softmax of these and of the hardest negatives of each image, a matched prior."""
    matched = want_class > 0
    losses = F.cross_entropy(conf.flatten(0, 1), want_class.flatten(), reduction="none").view(want_class.shape)
    negatives = losses.detach().masked_fill(matched, -1)
    rank = negatives.argsort(1, descending=True).argsort(1)
    counts = matched | (rank < NEGATIVES * matched.sum(1, keepdim=True))
    boxes = F.smooth_l1_loss(loc[matched], want_loc[matched], reduction="sum")
    total: torch.Tensor = (losses[counts].sum() + boxes) / matched.sum()
    return total


def transformed(some: Sequence[Scene]) -> torch.Tensor:
    """What the transform_param of the data layer makes of the images of `some`."""
    return (torch.tensor(np.stack([scene.image for scene in some]), dtype=torch.float32) - MEAN) * SCALE


def train(some: Sequence[Scene], n_steps: int, seed: int) -> tuple[Parameters, Parameters]:
    """AdamW with a rate that rises, then falls to zero; progress goes to stderr."""
    torch.manual_seed(seed)
    learnt, counted = new_parameters()
    for tensor in learnt.values():
        tensor.requires_grad_()
    priors = all_priors(tuple(HEADS.values()))
    optimizer = torch.optim.AdamW(learnt.values(), lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=n_steps, pct_start=0.15)
    order = torch.empty(0, dtype=torch.int64)
    since, total = time.monotonic(), 0.0
    for step in range(1, n_steps + 1):
        if len(order) < TRAIN_BATCH:
            order = torch.randperm(len(some))
        pick, order = [some[i] for i in order[:TRAIN_BATCH].tolist()], order[TRAIN_BATCH:]
        wanted = [targets(priors, scene) for scene in pick]
        want_loc = torch.tensor(np.stack([loc for loc, _ in wanted]))
        want_class = torch.tensor(np.stack([label for _, label in wanted]))
        loc, conf = forward(transformed(pick), learnt, counted, training=True)
        loss = multibox_loss(loc, conf, want_loc, want_class)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 50 == 0:
            print(f"step {step}: loss {total / 50:.4f}, {time.monotonic() - since:.0f} s", file=sys.stderr)
            total = 0.0
    return {name: tensor.detach() for name, tensor in learnt.items()}, counted


def score(test: Sequence[Scene], learnt: Parameters, counted: Parameters) -> float:
    """mAP on `test`."""
    priors = all_priors(tuple(HEADS.values()))
    with torch.no_grad():
        loc, conf = forward(transformed(test), learnt, counted, training=False)
    pairs = zip(loc.numpy(), conf.softmax(2).numpy(), strict=True)
    return mean_average_precision([detections(priors, code, scores) for code, scores in pairs], test)


# ---- Caffe files


def data_layer() -> caffe_pb2.LayerParameter:
    """The test scenes in LMDB, found beside the prototxt."""
    return layer(f"""name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: TEST }}
        transform_param {{ scale: {SCALE} mean_value: {MEAN} }}
        data_param {{ source: "digit_scenes_test_lmdb" batch_size: {BATCH} backend: LMDB }}
        annotated_data_param {{ label_map_file: "labelmap.prototxt" }}""")


def head_layers(head: str, priors: Priors) -> Iterator[caffe_pb2.LayerParameter]:
    """loc and conf of a feature map, each put in the order of the priors, and the priors."""
    for name, n_out in head_shapes(head).items():
        yield layer(f"""name: "{name}" type: "Convolution" bottom: "{head}" top: "{name}"
            convolution_param {{ num_output: {n_out} kernel_size: 1 }}""")
        yield layer(f"""name: "{name}_perm" type: "Permute" bottom: "{name}" top: "{name}_perm"
            permute_param {{ order: 0 order: 2 order: 3 order: 1 }}""")
        yield layer(f"""name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" top: "{name}_flat"
            flatten_param {{ axis: 1 }}""")
    variances = " ".join(f"variance: {variance}" for variance in VARIANCES)
    yield layer(f"""name: "{head}_mbox_priorbox" type: "PriorBox" bottom: "{head}" bottom: "data"
        top: "{head}_mbox_priorbox" prior_box_param {{ min_size: {priors.min_size} max_size: {priors.max_size}
        aspect_ratio: {priors.aspect} flip: false clip: false {variances} step: {SIDE / priors.side} offset: 0.5 }}""")


def net_layers() -> Iterator[caffe_pb2.LayerParameter]:
    """The whole net as `caffe test -detection` takes it: top detection_eval."""
    yield data_layer()
    for conv in CONVS:
        yield from depthwise.conv_layers(conv)
    for head, priors in HEADS.items():
        yield from head_layers(head, priors)
    yield from joined(list(HEADS), N_CLASSES)
    yield layer(f"""name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc" bottom: "mbox_conf_flatten"
        bottom: "mbox_priorbox" top: "detection_out" include {{ phase: TEST }}
        detection_output_param {{ num_classes: {N_CLASSES} share_location: true background_label_id: 0
        nms_param {{ nms_threshold: 0.45 top_k: 400 }} code_type: CENTER_SIZE keep_top_k: 50
        confidence_threshold: 0.01 }}""")
    yield layer(f"""name: "detection_eval" type: "DetectionEvaluate" bottom: "detection_out" bottom: "label"
        top: "detection_eval" include {{ phase: TEST }} detection_evaluate_param {{ num_classes: {N_CLASSES}
        background_label_id: 0 overlap_threshold: 0.5 evaluate_difficult_gt: false }}""")


def label_map() -> str:
    """Label 0 is the background, label n + 1 the digit n."""
    items = caffe_pb2.LabelMap()
    for label, name in enumerate(["background", *map(str, range(10))]):
        items.item.add(name=name, label=label, display_name=name)
    return text_format.MessageToString(items)


def write_all(folder: Path, test: Sequence[Scene], learnt: Parameters, counted: Parameters) -> None:
    """The four things that make the example."""
    folder.mkdir(parents=True, exist_ok=True)
    net = caffe_pb2.NetParameter(name="digit_scenes", layer=net_layers())
    weights = depthwise.caffe_weights(CONVS, learnt, counted)
    for head in HEADS:
        for name in head_shapes(head):
            weights[name] = (learnt[name].numpy(), learnt[name + ".bias"].numpy())
    write_atomically(folder / "digit_scenes.prototxt", net_text(net))
    write_atomically(folder / "labelmap.prototxt", label_map())
    write_weights(folder / "digit_scenes.caffemodel", net.name, net.layer, weights)
    write_lmdb(folder / "digit_scenes_test_lmdb", map(annotated, test))


def main() -> None:
    """Train, rescale, write; mAP goes to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (examples/digit_scenes)")
    parser.add_argument("--seed", type=int, default=1, help="of the split, the scenes and the weights (1)")
    parser.add_argument("--scenes", type=int, default=6000, help="scenes that train the net (6000)")
    parser.add_argument("--steps", type=int, default=650, help=f"steps of training, {TRAIN_BATCH} scenes each (650)")
    parser.add_argument(
        "--hard",
        type=Hard.parse,
        nargs="*",
        default=HARD,
        metavar="LAYER:CHANNELS:EXPONENT",
        help=f"multiply so many output channels of a depthwise layer by 2^EXPONENT ({' '.join(map(str, HARD))})",
    )
    options = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the order of additions depends on the number of threads
    seen, unseen = digits(options.seed)
    learnt, counted = train(scenes(*seen, options.scenes, options.seed), options.steps, options.seed)
    test = scenes(*unseen, N_TEST, options.seed + 1)
    before = score(test, learnt, counted)
    depthwise.rescale(CONVS, learnt, options.hard, options.seed)
    after = score(test, learnt, counted)
    write_all(options.out, test, learnt, counted)
    print(f"{options.out}: mAP on {N_TEST} test scenes {after:.6f}, before rescaling {before:.6f}")


if __name__ == "__main__":
    main()
