"""Train the net of examples/digits, and write it with its test set as Caffe files.

    pip install -e '.[examples]'
    python -m scripts.examples.make_digits                  # about a minute on one core

The images are scikit-learn's handwritten digits (1,797 real ones, part of the package): half train the net, half are
the test set. PyTorch is needed for training only. Two runs on one machine give the same bytes; another CPU or PyTorch
adds in another order and gives weights, and perhaps a digit, that differ in the last places.

After training, some output channels of depthwise convolutions are multiplied by a power of two and the layer behind
divides by it (`--hard`). In FP32 the net answers the same to the last bit. In INT8 it does not: one scale serves a
whole layer, so the widest channel leaves few steps to the others. MobileNets get such channels from training on
ImageNet; a net as small as this one, trained for a minute, does not: in INT8 it loses nothing (measured), and would
show nothing of what distcalib is for.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from distcalib.caffe import caffe_pb2, net_text, write_atomically, write_weights
from scripts.examples import depthwise
from scripts.examples.depthwise import Conv, Hard, Images, Parameters
from scripts.examples.split import split_by_label
from scripts.tools.write_lmdb import write_lmdb

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "digits"
SIDE = 16  # pixels; the digits have 8, too few for two strides
N_TEST = 900
BATCH = 50  # 18 iterations see each test image once
MEAN, SCALE = 78.0, 0.01  # of the pixels 0..255: near mean 0, deviation 1
N_CLASSES = 10

CONVS = (
    Conv("conv1", "data", 1, 16, 3),
    Conv("conv2_dw", "conv1", 16, 16, 3, depthwise=True),
    Conv("conv2_pw", "conv2_dw", 16, 32, 1),
    Conv("conv3_dw", "conv2_pw", 32, 32, 3, stride=2, depthwise=True),
    Conv("conv3_pw", "conv3_dw", 32, 64, 1),
    Conv("conv4_dw", "conv3_pw", 64, 64, 3, depthwise=True),
    Conv("conv4_pw", "conv4_dw", 64, 64, 1, add="conv3_pw"),
    Conv("conv5_dw", "conv4_pw_sum", 64, 64, 3, stride=2, depthwise=True),
    Conv("conv5_pw", "conv5_dw", 64, 96, 1),
)
FC = "fc6"


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, SIDE, SIDE) u8 and their labels (N,), split in two with equal shares of every digit."""

    train_images: Images
    train_labels: npt.NDArray[np.int64]
    test_images: Images
    test_labels: npt.NDArray[np.int64]


def read_digits(seed: int) -> Digits:
    """scikit-learn's digits, 0..16 stretched to 0..255 and enlarged to SIDE, in a random order."""
    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float64)[:, None] * (255 / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    images = large.round().clamp(0, 255).numpy().astype(np.uint8)
    labels = np.asarray(bunch.target, np.int64)
    train, test = split_by_label(labels, N_TEST, seed)
    test = np.random.default_rng(seed + 1).permutation(test)
    return Digits(images[train], labels[train], images[test], labels[test])


# ---- training


def new_parameters() -> tuple[Parameters, Parameters]:
    """What is learnt (He's initialization) and what is only counted: the statistics of the BatchNorms."""
    learnt: Parameters = {}
    counted: Parameters = {}
    depthwise.add_parameters(CONVS, learnt, counted)
    learnt[FC] = torch.randn(N_CLASSES, CONVS[-1].n_out) * math.sqrt(1 / CONVS[-1].n_out)
    learnt[FC + ".bias"] = torch.zeros(N_CLASSES)
    return learnt, counted


def forward(x: torch.Tensor, learnt: Parameters, counted: Parameters, training: bool) -> torch.Tensor:
    """Logits (N, 10) of x (N, 1, SIDE, SIDE); `training` takes the statistics of the batch and counts them."""
    blobs = depthwise.run_convs(CONVS, x, learnt, counted, training)
    pooled = blobs[CONVS[-1].top].mean(dim=(2, 3))
    return F.linear(pooled, learnt[FC], learnt[FC + ".bias"])


def distorted(images: torch.Tensor) -> torch.Tensor:
    """`images` turned, sheared, enlarged and shifted a little, each differently."""
    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.5
    zoom = 1 + (torch.rand(n) - 0.5) * 0.3
    shear = (torch.rand(n) - 0.5) * 0.3
    shift = (torch.rand(n, 2) - 0.5) * 0.3
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [torch.stack([cos, shear - sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def transformed(images: Images) -> torch.Tensor:
    """What the transform_param of the Data layer makes of `images`."""
    return (torch.tensor(images, dtype=torch.float32) - MEAN) * SCALE


def train(digits: Digits, n_epochs: int, seed: int) -> tuple[Parameters, Parameters]:
    """Adam with a rate that rises, then falls to zero; progress goes to stderr."""
    torch.manual_seed(seed)
    learnt, counted = new_parameters()
    for tensor in learnt.values():
        tensor.requires_grad_()
    images, labels = torch.tensor(digits.train_images, dtype=torch.float32), torch.tensor(digits.train_labels)
    starts = range(0, len(images) - 63, 64)
    optimizer = torch.optim.AdamW(learnt.values(), lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=n_epochs * len(starts))
    for epoch in range(n_epochs):
        order = torch.randperm(len(images))
        total = 0.0
        for start in starts:
            pick = order[start : start + 64]
            logits = forward((distorted(images[pick]) - MEAN) * SCALE, learnt, counted, training=True)
            loss = F.cross_entropy(logits, labels[pick], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(starts):.4f}", file=sys.stderr)
    return {name: tensor.detach() for name, tensor in learnt.items()}, counted


def accuracy(digits: Digits, learnt: Parameters, counted: Parameters) -> float:
    """Fraction of the test images that the net knows."""
    with torch.no_grad():
        logits = forward(transformed(digits.test_images), learnt, counted, training=False)
    return float((logits.argmax(1).numpy() == digits.test_labels).mean())


# ---- what INT8 finds hard


#: A quarter of the channels each. One of the two layers in FP32 does not restore the accuracy, both do.
HARD = (Hard("conv3_dw", 8, 5), Hard("conv5_dw", 16, 6))


# ---- Caffe files


def data_layer() -> caffe_pb2.LayerParameter:
    """The test set in LMDB, found beside the prototxt."""
    layer = caffe_pb2.LayerParameter(name="data", type="Data", top=["data", "label"])
    layer.include.add(phase=caffe_pb2.TEST)
    layer.transform_param.scale = SCALE
    layer.transform_param.mean_value.append(MEAN)
    layer.data_param.source = "digits_test_lmdb"
    layer.data_param.batch_size = BATCH
    layer.data_param.backend = caffe_pb2.DataParameter.LMDB
    return layer


def net_layers() -> Iterator[caffe_pb2.LayerParameter]:
    """The whole net as `caffe test` takes it: tops loss and accuracy-top1."""
    yield data_layer()
    for conv in CONVS:
        yield from depthwise.conv_layers(conv)
    pool = caffe_pb2.LayerParameter(name="pool6", type="Pooling", bottom=[CONVS[-1].top], top=["pool6"])
    pool.pooling_param.pool, pool.pooling_param.global_pooling = caffe_pb2.PoolingParameter.AVE, True
    yield pool
    fc = caffe_pb2.LayerParameter(name=FC, type="InnerProduct", bottom=["pool6"], top=[FC])
    fc.inner_product_param.num_output = N_CLASSES
    yield fc
    yield caffe_pb2.LayerParameter(name="loss", type="SoftmaxWithLoss", bottom=[FC, "label"], top=["loss"])
    top1 = caffe_pb2.LayerParameter(name="accuracy-top1", type="Accuracy", bottom=[FC, "label"], top=["accuracy-top1"])
    top1.include.add(phase=caffe_pb2.TEST)
    top1.accuracy_param.top_k = 1
    yield top1


def records(images: Images, labels: npt.NDArray[np.int64]) -> Iterator[caffe_pb2.Datum]:
    """A Datum an image."""
    for image, label in zip(images, labels, strict=True):
        channels, height, width = image.shape
        yield caffe_pb2.Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=int(label))


def write_all(folder: Path, digits: Digits, learnt: Parameters, counted: Parameters) -> None:
    """The three things that make the example."""
    folder.mkdir(parents=True, exist_ok=True)
    net = caffe_pb2.NetParameter(name="digits", layer=net_layers())
    write_atomically(folder / "digits.prototxt", net_text(net))
    weights = depthwise.caffe_weights(CONVS, learnt, counted)
    weights[FC] = (learnt[FC].numpy(), learnt[FC + ".bias"].numpy())
    write_weights(folder / "digits.caffemodel", net.name, net.layer, weights)
    write_lmdb(folder / "digits_test_lmdb", records(digits.test_images, digits.test_labels))


def main() -> None:
    """Train, rescale, write; the accuracies go to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (examples/digits)")
    parser.add_argument("--seed", type=int, default=1, help="of the split, the weights and the channels (1)")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training images (60)")
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
    digits = read_digits(options.seed)
    learnt, counted = train(digits, options.epochs, options.seed)
    before = accuracy(digits, learnt, counted)
    depthwise.rescale(CONVS, learnt, options.hard, options.seed)
    after = accuracy(digits, learnt, counted)
    write_all(options.out, digits, learnt, counted)
    print(f"{options.out}: accuracy on {N_TEST} test images {after:.4f}, before rescaling {before:.4f}")


if __name__ == "__main__":
    main()
