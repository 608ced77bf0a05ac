"""Pooling: MAX and AVE, with Caffe's rounding up of the output size and its divisor.

Caffe rounds the size up, then drops a last window that would start in the padding. What an average is divided by is
that of Intel Caffe's mkldnn_pooling_layer.cpp: the area of the kernel where there is padding, what rounding up added
included (golden_rules, d_ave_k3s2p1_8: BVLC clips that), or where the kernel is 1 along an axis; the real pixels
without padding or with `avg_include_pad: false`. OpenVINO has both. With `engine: CAFFE` Intel Caffe runs BVLC's loops,
which divide by the part of a window inside the padded input [-pad, H + pad), whatever avg_include_pad says: the last
row and column are multiplied by a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino.opset1 as ops1
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import PoolingParameter
from distcalib.layers.blobs import FloatArray
from distcalib.layers.geometry import Pair, pads_by_side
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, shape_of


@dataclass(frozen=True)
class Window:
    """The windows along one axis: `n_out` of them over `size` pixels."""

    size: int
    kernel: int
    stride: int
    pad: int
    pad_end: int
    n_out: int

    @property
    def end(self) -> int:
        """The padding behind the input, in pixels, that the last window needs."""
        return max(0, (self.n_out - 1) * self.stride + self.kernel - self.size - self.pad)

    @property
    def overhangs(self) -> bool:
        """Whether the last window reaches beyond the padding, because the size was rounded up."""
        return self.end > self.pad_end

    def divisors(self) -> FloatArray:
        """What BVLC divides each window's sum by (n_out,): its length after clipping at size + pad."""
        starts = np.arange(self.n_out) * self.stride - self.pad
        ends = np.minimum(starts + self.kernel, self.size + self.pad_end)
        return np.asarray(ends - starts, np.float32)


@converts("NdPooling")
def nd_pooling(layer: Layer, x: Output) -> Output:
    """MAX or AVE over all axes behind the channels:  x (N, C, D, H, W) -> (N, C, D', H', W'), sizes rounded up.

    kernel_shape, stride_shape and pad_shape have a number for each axis.  AVE divides by the whole kernel, be it
    outside the input (CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING; chuckcho/video-caffe, cudnn_ndpooling_layer.cpp).
    """
    p = layer.param("pooling_param")
    sizes = shape_of(x)[2:]
    layer.require(len(sizes) in (1, 2, 3), f"its input has {len(sizes)} axes of positions; 1 to 3 are converted")
    known = p.pool in (PoolingParameter.MAX, PoolingParameter.AVE)
    layer.require(known, "its pool is not converted; MAX and AVE are")

    def values(name: str, default: int) -> list[int]:
        given = [int(n) for n in getattr(p, name).dim] or [default] * len(sizes)
        layer.require(len(given) == len(sizes), f"{name} has {len(given)} sizes; its input has {len(sizes)} axes")
        return given

    kernel = list(sizes) if p.global_pooling else values("kernel_shape", 0)
    strides, pads = values("stride_shape", 1), values("pad_shape", 0)
    layer.require(min(*kernel, *strides) > 0, f"kernel is {kernel} and stride {strides}; all must be above zero")
    ends = []
    for size, k, stride, pad in zip(sizes, kernel, strides, pads, strict=True):
        layer.require(
            0 <= pad < k and size + 2 * pad >= k, f"a kernel of {k} with a pad of {pad} on {size} does not fit"
        )
        n_out = -(-(size + 2 * pad - k) // stride) + 1
        if pad > 0 and (n_out - 1) * stride >= size + pad:
            n_out -= 1
        ends.append(max(0, (n_out - 1) * stride + k - size - pad))
    if p.pool == PoolingParameter.MAX:
        return ops1.max_pool(x, strides, pads, ends, kernel).output(0)
    framed = [0, 0]
    wide = ops.pad(x, np.array([*framed, *pads]), np.array([*framed, *ends]), "constant", np.float32(0.0))
    zeros = [0] * len(sizes)
    return ops.avg_pool(wide, strides, zeros, zeros, kernel, exclude_pad=False).output(0)


@converts("Pooling", tops=(1, 2))
def pooling(layer: Layer, x: Output) -> Sequence[Output]:
    """From x (N, C, H, W) to (N, C, H', W').

    A second top of MAX is the mask, of the same shape: the place y·W + x of each maximum in its map, the first of
    equals.  AVE_EXC_PAD, of Synopsys Caffe, divides by the real pixels.  H' is rounded up, or down with round_mode
    FLOOR (BVLC) or `ceil_mode: false`, its name in other forks.
    """
    p = layer.param("pooling_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(p.pool != PoolingParameter.STOCHASTIC, "pool=STOCHASTIC is not converted; MAX and AVE are")
    is_3d = bool(p.pad_3d or p.kernel_size_3d or p.stride_3d)
    layer.require(not is_3d, "3-D pooling is not converted; kernel_size, stride and pad are")
    layer.require(p.axis == 1, f"axis={p.axis}; only axis=1 (channels) is converted")
    windows = _windows(layer, p, (shape[2], shape[3]))
    strides = [w.stride for w in windows]
    begins, ends = [w.pad for w in windows], [w.end for w in windows]
    kernel = [w.kernel for w in windows]
    if p.pool == PoolingParameter.MAX:
        if len(layer.tops) == 1:
            return [ops1.max_pool(x, strides, begins, ends, kernel).output(0)]
        both = ops.max_pool(x, strides, [1, 1], begins, ends, kernel, index_element_type="i32", axis=2)
        return [both.output(0), ops.convert(both.output(1), "f32").output(0)]
    layer.require(len(layer.tops) == 1, "has two tops; only MAX has a mask")
    if p.pool == PoolingParameter.AVE_EXC_PAD:
        return [ops.avg_pool(x, strides, begins, ends, kernel, exclude_pad=True).output(0)]
    is_bvlc = _runs_bvlc(layer)
    padded = any(w.pad or w.pad_end for w in windows)
    includes = padded if is_bvlc else p.avg_include_pad and (padded or 1 in kernel)
    y = ops.avg_pool(x, strides, begins, ends, kernel, exclude_pad=not includes).output(0)
    if not (is_bvlc and includes and any(w.overhangs for w in windows)):
        return [y]
    rows, columns = (w.kernel / w.divisors() for w in windows)
    return [ops.multiply(y, constant(np.outer(rows, columns).astype(np.float32)[None, None])).output(0)]


def _runs_bvlc(layer: Layer) -> bool:
    """Whether the layer asks for Caffe's own loops, as pads by side do; by default Intel Caffe runs MKL-DNN."""
    if any(getattr(layer.proto.pooling_param, name) for name in ("pad_l", "pad_r", "pad_t", "pad_b")):
        return True
    engine = layer.proto.pooling_param.engine
    if engine == PoolingParameter.DEFAULT:
        return str(layer.proto.engine).split(":")[0] == "CAFFE"
    return bool(engine == PoolingParameter.CAFFE)


def _windows(layer: Layer, p: Any, size: Pair) -> tuple[Window, Window]:
    """The windows along H and W (pooling_layer.cpp; of Intel Caffe, which also clips for a kernel of 1)."""
    kernel, stride, pad = _spatial(layer, p, size)
    begins, ends = pads_by_side(layer, p, any(pad)) or (pad, pad)
    clips, floors = any(begins) or any(ends) or 1 in kernel, _rounds_down(layer, p)
    made = []
    for n, k, s, d, e in zip(size, kernel, stride, begins, ends, strict=True):
        room = n + d + e - k
        n_out = room // s + 1 if floors else -(room // -s) + 1
        layer.require(
            n_out > 0,
            f"its kernel of {k} with stride {s} leaves nothing of the input of {n} with pad {d}; shrink the kernel",
        )
        if clips and (n_out - 1) * s >= n + d:
            n_out -= 1
        layer.require(
            (n_out - 1) * s < n + d,
            f"stride {s} with kernel {k} puts a last window outside the input of {n}, where Caffe has no value; "
            f"choose a stride of at most the kernel",
        )
        made.append(Window(n, k, s, d, e, n_out))
    return made[0], made[1]


def _rounds_down(layer: Layer, p: Any) -> bool:
    """Whether sizes are rounded down."""
    layer.require(
        not (p.HasField("ceil_mode") and p.HasField("round_mode")), "ceil_mode and round_mode are both given; keep one"
    )
    return p.round_mode == PoolingParameter.FLOOR or not p.ceil_mode


def _spatial(layer: Layer, p: Any, size: Pair) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and pad, (height, width) each, from X or X_h with X_w, by the checks of pooling_layer.cpp."""
    has_kernel, has_kernel_2d = p.HasField("kernel_size"), p.HasField("kernel_h") or p.HasField("kernel_w")
    stride = _pair(layer, p, "stride")
    pad = _pair(layer, p, "pad")
    layer.require(min(stride) > 0, f"stride is {stride}; it must be above zero")
    if p.global_pooling:
        layer.require(
            not (has_kernel or has_kernel_2d), "global_pooling and a kernel are both given; one of them must go"
        )
        layer.require(
            pad == (0, 0) and stride == (1, 1),
            f"global_pooling with stride {stride} and pad {pad}; only 1 and 0 go with it",
        )
        return size, stride, pad
    layer.require(has_kernel or has_kernel_2d, "no kernel is given; kernel_size, or kernel_h and kernel_w, would do")
    kernel = _pair(layer, p, "kernel_size", "kernel")
    layer.require(min(kernel) > 0, f"kernel is {kernel}; it must be above zero")
    # Caffe has this only if there is padding at all; without any it holds by itself.
    layer.require(pad[0] < kernel[0] and pad[1] < kernel[1], f"pad {pad} is not below the kernel {kernel}; it must be")
    return kernel, stride, pad


def _pair(layer: Layer, p: Any, name: str, stem: str | None = None) -> Pair:
    h, w = f"{stem or name}_h", f"{stem or name}_w"
    n_given = p.HasField(h) + p.HasField(w)
    if n_given == 0:
        return int(getattr(p, name)), int(getattr(p, name))
    layer.require(not p.HasField(name), f"{name} and {h}/{w} are both given; one of them must go")
    layer.require(n_given == 2, f"only one of {h} and {w} is given; both are needed")
    return int(getattr(p, h)), int(getattr(p, w))
