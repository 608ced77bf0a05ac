"""Quantized layers by themselves, with large random integers, and what they give in NumPy's int64."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from google.protobuf import text_format
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, build_graph
from distcalib.engine.arithmetic import Arithmetic
from distcalib.engine.builder import build_model
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.layers import FileBlobs

Whole = NDArray[np.int64]
Dot = Callable[[Whole, Whole], Whole]
"""Sums of products: patches (..., K) and weights (M, K) to (..., M)."""


def exact(patches: Whole, weight: Whole) -> Whole:
    """Σ x·w."""
    return np.asarray(patches @ weight.T)


def saturating(patches: Whole, weight: Whole) -> Whole:
    """Σ over pairs of inputs of their two products, each pair saturated to 16 bits.

    The inputs of a position are K = channels, in the order in which kernels take them: neighbours are a pair.
    """
    if patches.shape[-1] % 2:
        patches = np.concatenate([patches, np.zeros_like(patches[..., :1])], axis=-1)
        weight = np.concatenate([weight, np.zeros_like(weight[:, :1])], axis=-1)
    products = patches[..., None, :] * weight
    pairs = products[..., 0::2] + products[..., 1::2]
    return np.asarray(np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=-1))


@dataclass(frozen=True)
class Case:
    """A Convolution of c channels of h x h to m, or an InnerProduct (k = 0) of c·h·h inputs to m."""

    c: int
    h: int
    m: int
    k: int = 3
    group: int = 1
    pad: int = 0
    stride: int = 1
    dilation: int = 1
    n: int = 2
    largest: int = 127
    """Of the weights."""

    @property
    def n_inputs(self) -> int:
        """Products of each sum."""
        return self.c * self.h * self.h if self.k == 0 else self.c // self.group * self.k * self.k

    def numbers(self, signed: bool) -> tuple[Whole, Whole, Whole]:
        """Integers: x (N, C, H, H) u8 or s8, W (M, ...) s8, b (M,)."""
        rng = np.random.default_rng([self.c, self.h, self.m, self.k, self.group, signed])
        low, end = (-128, 128) if signed else (0, 256)
        x = rng.integers(low, end, (self.n, self.c, self.h, self.h))
        shape = (self.m, self.n_inputs) if self.k == 0 else (self.m, self.c // self.group, self.k, self.k)
        weight = rng.integers(-self.largest, self.largest + 1, shape)
        return x, weight, rng.integers(-100_000, 100_000, self.m)

    def sums(self, x: Whole, weight: Whole, dot: Dot = exact) -> Whole:
        """Σ x·w (N, M, ...), a position of the kernel at a time, its channels by `dot`."""
        if self.k == 0:
            return dot(x.reshape(self.n, -1), weight)
        padded = np.pad(x, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        reach = self.dilation * (self.k - 1) + 1
        windows = sliding_window_view(padded, (reach, reach), axis=(2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride, :: self.dilation, :: self.dilation]
        found = []
        for g in range(self.group):
            c, m = self.c // self.group, self.m // self.group
            mine, w = windows[:, g * c : (g + 1) * c], weight[g * m : (g + 1) * m]
            total = sum(
                dot(np.moveaxis(mine[..., i, j], 1, -1), w[:, :, i, j]) for i in range(self.k) for j in range(self.k)
            )
            found.append(np.moveaxis(np.asarray(total), -1, 1))
        return np.concatenate(found, axis=1)

    def layer(self, signed: bool, scale_in: float, scale_out: float | None, scales: NDArray[np.float32]) -> str:
        """Prototxt of the net: x, then the layer, whose top is y, with a ReLU where it is stored u8."""
        form = (
            f"convolution_param {{ num_output: {self.m} kernel_size: {self.k} group: {self.group} pad: {self.pad} "
            f"stride: {self.stride} dilation: {self.dilation} }}"
            if self.k
            else f"inner_product_param {{ num_output: {self.m} }}"
        )
        return f"""
layer {{ name: "x" type: "Input" top: "x"
  input_param {{ shape {{ dim: {self.n} dim: {self.c} dim: {self.h} dim: {self.h} }} }} }}
layer {{ name: "f" type: "{"Convolution" if self.k else "InnerProduct"}" bottom: "x" top: "y" {form}
  quantization_param {{ bw_layer_in: 8 bw_layer_out: {32 if scale_out is None else 8} bw_params: 8
    scale_in: {scale_in!r} scale_out: {1.0 if scale_out is None else scale_out!r}
    {" ".join(f"scale_params: {float(scale)!r}" for scale in scales)}
    is_negative_input: {"true" if signed else "false"} }} }}
"""


def run(text: str, x: NDArray[np.float32], blobs: tuple[NDArray[np.float32], ...], arithmetic: Arithmetic) -> Program:
    """Compile a net of `Case.layer`."""
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    built = build_model(graph, FileBlobs({"f": blobs}, "w"), {"x": x.shape}, "net", arithmetic=arithmetic)
    return Program(compile_program(built, NetSpec(b"", "net"), 1), 1)


def sums_of(case: Case, signed: bool, arithmetic: Arithmetic) -> NDArray[np.float32]:
    """What the engine makes of the case's integers, all scales 1: Σ x·w, without bias."""
    x, weight, _ = case.numbers(signed)
    text = case.layer(signed, 1.0, None, np.ones(1, np.float32))
    blobs = (weight.astype(np.float32), np.zeros(case.m, np.float32))
    [y] = run(text, x.astype(np.float32), blobs, arithmetic).run({"x": x.astype(np.float32)})[0].values()
    return y


Y = Blob("y", 0)
