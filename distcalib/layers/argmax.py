"""ArgMax: the indices, or the values, of the top_k largest; indices are floats, as every Caffe blob.

Among equal values Caffe puts the larger index first: it sorts (value, index) pairs in descending order. OpenVINO's
stable TopK puts the smaller first, so it is given the reversed axis. In an INT8 net ties are common.
"""

from __future__ import annotations

from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, reshape, shape_of


@converts("ArgMax")
def argmax(layer: Layer, x: Output) -> Output:
    """With `axis`: that axis becomes top_k indices, or values if out_max_val.

    Without: x (N, ...) -> (N, 1, top_k) indices, or (N, 2, top_k) indices and values, with as many axes as x at least.
    """
    p = layer.param("argmax_param")
    shape = shape_of(x)
    layer.require(len(shape) > 0, "its input is a scalar; at least one axis (N) is needed")
    if p.HasField("axis"):
        axis = canonical_axis(layer, p.axis, len(shape))
        indices, values = _top(layer, x, axis, p.top_k)
        return values if p.out_max_val else indices
    flat = reshape(x, (shape[0], prod(shape[1:])))
    indices, values = _top(layer, flat, 1, p.top_k)
    wanted = (shape[0], 1 + p.out_max_val, p.top_k) + (1,) * (len(shape) - 3)
    both = ops.concat([indices, values], 1).output(0) if p.out_max_val else indices
    return reshape(both, wanted)


def _top(layer: Layer, x: Output, axis: int, k: int) -> tuple[Output, Output]:
    """Indices (as f32) and values of the k largest along `axis`, in Caffe's order."""
    n = shape_of(x)[axis]
    layer.require(1 <= k <= n, f"top_k={k} of {n} values; 1 to {n} can be asked for")
    backwards = ops.gather(x, integers(np.arange(n)[::-1].tolist()), integers([axis]))
    top = ops.topk(backwards, ops.constant(k), axis, "max", "value", "i32", stable=True)
    indices = ops.subtract(constant(float(n - 1)), ops.convert(top.output(1), "f32"))
    return indices.output(0), top.output(0)
