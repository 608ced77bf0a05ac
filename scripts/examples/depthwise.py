"""What the makers of the examples share: depthwise-separable blocks in PyTorch and in Caffe, and what INT8
finds hard in them.

A block is a convolution without bias, its BatchNorm and Scale, and ReLU. `rescale` makes one hard for INT8 and leaves
FP32 as it is: see there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from distcalib.caffe import caffe_pb2

Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Parameters = dict[str, torch.Tensor]

EPS = 1e-5


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, its BatchNorm and Scale, the sum with the blob `add` if there is one, and ReLU."""

    name: str
    bottom: str
    n_in: int
    n_out: int
    kernel: int
    stride: int = 1
    depthwise: bool = False
    add: str | None = None

    @property
    def top(self) -> str:
        """The blob behind the sum."""
        return f"{self.name}_sum" if self.add else self.name


# ---- PyTorch


def add_parameters(convs: Sequence[Conv], learnt: Parameters, counted: Parameters) -> None:
    """What the blocks learn (He's initialization) and what is only counted: the statistics of the BatchNorms."""
    for conv in convs:
        n_in = 1 if conv.depthwise else conv.n_in
        shape = (conv.n_out, n_in, conv.kernel, conv.kernel)
        learnt[conv.name] = torch.randn(shape) * math.sqrt(2 / (conv.kernel**2 * n_in))
        learnt[conv.name + ".gamma"] = torch.ones(conv.n_out)
        learnt[conv.name + ".beta"] = torch.zeros(conv.n_out)
        counted[conv.name + ".mean"] = torch.zeros(conv.n_out)
        counted[conv.name + ".var"] = torch.ones(conv.n_out)


def run_convs(
    convs: Sequence[Conv], x: torch.Tensor, learnt: Parameters, counted: Parameters, training: bool
) -> Parameters:
    """All blobs by name for x (N, C, H, W); `training` takes the statistics of the batch and counts them."""
    blobs = {"data": x}
    for conv in convs:
        y = F.conv2d(
            blobs[conv.bottom],
            learnt[conv.name],
            stride=conv.stride,
            padding=conv.kernel // 2,
            groups=conv.n_in if conv.depthwise else 1,
        )
        y = F.batch_norm(
            y,
            counted[conv.name + ".mean"],
            counted[conv.name + ".var"],
            learnt[conv.name + ".gamma"],
            learnt[conv.name + ".beta"],
            training,
            eps=EPS,
        )
        blobs[conv.top] = F.relu(y + blobs[conv.add] if conv.add else y)
    return blobs


# ---- what INT8 finds hard


@dataclass(frozen=True)
class Hard:
    """Output channels of a depthwise convolution that get 2^exponent of their range."""

    layer: str
    n_channels: int
    exponent: int

    @classmethod
    def parse(cls, text: str) -> Hard:
        """LAYER:CHANNELS:EXPONENT"""
        layer, n_channels, exponent = text.split(":")
        return cls(layer, int(n_channels), int(exponent))

    def __str__(self) -> str:
        return f"{self.layer}:{self.n_channels}:{self.exponent}"


def rescale(convs: Sequence[Conv], learnt: Parameters, hard: Sequence[Hard], seed: int) -> None:
    """Multiply channels through gamma and beta, divide the next layer's weights: relu(s·x)·w/s = relu(x)·w for s > 0.

    A power of two changes exponents only, so that FP32 answers stay the same to the bit."""
    rng = np.random.default_rng(seed)
    for item in hard:
        [consumer] = [conv for conv in convs if conv.bottom == item.layer]
        n_out = len(learnt[item.layer + ".gamma"])
        channels = torch.tensor(rng.choice(n_out, item.n_channels, replace=False))
        factor = 2.0**item.exponent
        learnt[item.layer + ".gamma"][channels] *= factor
        learnt[item.layer + ".beta"][channels] *= factor
        learnt[consumer.name][:, channels] /= factor


# ---- Caffe files


def conv_layers(conv: Conv) -> Iterator[caffe_pb2.LayerParameter]:
    """Convolution, BatchNorm, Scale, then the sum if there is one, and ReLU."""
    layer = caffe_pb2.LayerParameter(name=conv.name, type="Convolution", bottom=[conv.bottom], top=[conv.name])
    param = layer.convolution_param
    param.num_output, param.bias_term = conv.n_out, False
    param.kernel_size.append(conv.kernel)
    param.pad.append(conv.kernel // 2)
    param.stride.append(conv.stride)
    if conv.depthwise:
        param.group = conv.n_in
    yield layer
    norm = caffe_pb2.LayerParameter(name=f"{conv.name}_bn", type="BatchNorm", bottom=[conv.name], top=[conv.name])
    norm.batch_norm_param.use_global_stats, norm.batch_norm_param.eps = True, EPS
    yield norm
    scale = caffe_pb2.LayerParameter(name=f"{conv.name}_scale", type="Scale", bottom=[conv.name], top=[conv.name])
    scale.scale_param.bias_term = True
    yield scale
    if conv.add:
        eltwise = caffe_pb2.LayerParameter(name=conv.top, type="Eltwise", bottom=[conv.add, conv.name], top=[conv.top])
        eltwise.eltwise_param.operation = caffe_pb2.EltwiseParameter.SUM
        yield eltwise
    yield caffe_pb2.LayerParameter(name=f"{conv.top}_relu", type="ReLU", bottom=[conv.top], top=[conv.top])


def caffe_weights(convs: Sequence[Conv], learnt: Parameters, counted: Parameters) -> dict[str, tuple[Array, ...]]:
    """Blobs by layer; a BatchNorm's third is the factor that mean and variance are divided by."""
    weights: dict[str, tuple[Array, ...]] = {}
    for conv in convs:
        mean, var = counted[conv.name + ".mean"].numpy(), counted[conv.name + ".var"].numpy()
        weights[conv.name] = (learnt[conv.name].numpy(),)
        weights[f"{conv.name}_bn"] = (mean, var, np.ones(1, np.float32))
        weights[f"{conv.name}_scale"] = (learnt[conv.name + ".gamma"].numpy(), learnt[conv.name + ".beta"].numpy())
    return weights
