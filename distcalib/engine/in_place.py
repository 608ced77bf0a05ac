"""An FP32 convolution that is summed onto its own input, as Intel Caffe runs it: over what it still reads.

Its output lies in the memory of its input, so each stretch of a row is computed from what the ones before have left
there (golden_rules c06, c19). What comes of that hangs on the kernel and on the threads: this is mkl-dnn's AVX2 kernel
(jit_avx2_conv_kernel_f32.cpp: a row at a time, three columns at a time) with one block of 8 channels and one thread, as
recorded; elsewhere other numbers come out, which `inspect` says. `calibrate` never writes such a sum.
"""

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers import Layer
from distcalib.layers.geometry import kernel_geometry

COLUMNS = 3
"""ur_w of the kernel."""
CHANNELS = 8
# A node or more a stretch: beyond that many a net takes too long to compile, and has more blocks than one anyway.
MOST_STRETCHES = 256


def can_follow(layer: Layer, x: Output) -> bool:
    """Whether what overwriting does is foreseen: small images of one block of channels, and neighbours to be read."""
    _, channels, height, width = (int(d) for d in x.get_shape())
    several = max(kernel_geometry(layer).kernel) > 1
    one_block = layer.proto.convolution_param.group == 1 and channels <= CHANNELS
    return several and one_block and height * -(-width // COLUMNS) <= MOST_STRETCHES


def sum_in_place(
    layer: Layer, x: Output, weight: NDArray[np.float32], bias: NDArray[np.float32], slope: float | None
) -> Output:
    """relu(x * W + b + x), x (N, C, H, W) f32 overwritten stretch by stretch."""
    height, width = (int(d) for d in x.get_shape()[2:])
    geometry = kernel_geometry(layer)
    (pad_h, pad_w), dilation = geometry.pad, geometry.dilation
    span = (weight.shape[2] - 1) * dilation[0] + 1
    kernel, offset = ops.constant(weight), ops.constant(bias.reshape(1, -1, 1, 1))
    rows = [_cut(x, 2, h, h + 1) for h in range(height)]
    zeros = ops.multiply(rows[0], np.float32(0.0)).output(0)
    for h in range(height):
        for begin in range(0, width, COLUMNS):
            end = min(begin + COLUMNS, width)
            seen = [rows[i] if 0 <= i < height else zeros for i in range(h - pad_h, h - pad_h + span)]
            slab = ops.pad(
                ops.concat(seen, 2), np.array([0, 0, 0, pad_w]), np.array([0, 0, 0, pad_w]), "constant", np.float32(0.0)
            )
            part = _cut(slab.output(0), 3, begin, end + (weight.shape[3] - 1) * dilation[1])
            y = ops.convolution(part, kernel, [1, 1], [0, 0], [0, 0], list(dilation))
            y = ops.add(ops.add(y, offset), _cut(rows[h], 3, begin, end))
            if slope is not None:
                y = ops.prelu(y, ops.constant(np.array([slope], np.float32)))
            pieces = [_cut(rows[h], 3, 0, begin)] if begin else []
            pieces += [y.output(0)] + ([_cut(rows[h], 3, end, width)] if end < width else [])
            rows[h] = ops.concat(pieces, 3).output(0)
    return ops.concat(rows, 2).output(0)


def _cut(x: Output, axis: int, begin: int, end: int) -> Output:
    return ops.slice(x, np.array([begin]), np.array([end]), np.array([1]), np.array([axis])).output(0)
