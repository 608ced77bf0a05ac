"""Layers that join, cut or pass on blobs: Concat, Slice, Split, Crop, Dropout, Silence.

What passes its input on makes no node: an identity in the graph would stand between a convolution and what it is fused
with.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, reshape, shape_of


@converts("Concat", bottoms=(1, None))
def concat(layer: Layer, *inputs: Output) -> Output:
    """The bottoms one after the other along `axis` (or the older concat_dim); all other sizes must agree.

    With Intel's per_fla_fuse each (N, C, H, W) comes as (N, H·W·C, 1, 1): the Permute and Flatten of an SSD head, and
    so sizes may differ.
    """
    axis = _axis(layer, layer.param("concat_param"), "concat_dim", len(shape_of(inputs[0])))
    if layer.param("concat_param").per_fla_fuse:
        layer.require(axis == 1, f"per_fla_fuse with axis={axis}; only axis=1 is converted")
        inputs = tuple(_channels_last(layer, x) for x in inputs)
    shapes = [shape_of(x) for x in inputs]
    rest = {(*s[:axis], -1, *s[axis + 1 :]) for s in shapes}
    layer.require(
        len(rest) == 1, f"its bottoms have shapes {', '.join(map(str, shapes))}; they may differ along axis {axis} only"
    )
    return inputs[0] if len(inputs) == 1 else ops.concat(list(inputs), axis).output(0)


def _channels_last(layer: Layer, x: Output) -> Output:
    """x (N, C, H, W) -> (N, H·W·C, 1, 1)."""
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"per_fla_fuse of an input with {len(shape)} axes; 4 (N, C, H, W) are converted")
    moved = ops.transpose(x, integers([0, 2, 3, 1])).output(0)
    return reshape(moved, (shape[0], prod(shape[1:]), 1, 1))


@converts("Slice", tops=(1, None))
def slice_(layer: Layer, x: Output) -> tuple[Output, ...]:
    """Pieces along `axis` (or the older slice_dim), cut at each slice_point, or of one size if there is none."""
    p = layer.param("slice_param")
    shape = shape_of(x)
    axis = _axis(layer, p, "slice_dim", len(shape))
    n_tops, size = len(layer.tops), shape[axis]
    if p.slice_point:
        points = [0, *p.slice_point, size]
        layer.require(
            len(points) == n_tops + 1, f"{n_tops} tops with {len(p.slice_point)} slice_point; {n_tops - 1} would do"
        )
        lengths = [b - a for a, b in itertools.pairwise(points)]
        layer.require(
            min(lengths) > 0, f"slice_point {list(p.slice_point)} of {size} along axis {axis}; they must rise inside it"
        )
    else:
        layer.require(size % n_tops == 0, f"{size} along axis {axis} do not part into {n_tops} tops; give slice_point")
        lengths = [size // n_tops] * n_tops
    if n_tops == 1:
        return (x,)
    return tuple(ops.variadic_split(x, ops.constant(axis), integers(lengths)).outputs())


@converts("Split", tops=(1, None))
def split(layer: Layer, x: Output) -> tuple[Output, ...]:
    """The bottom itself, once a top."""
    return (x,) * len(layer.tops)


@converts("Crop", bottoms=(2, 2))
def crop(layer: Layer, x: Output, like: Output) -> Output:
    """The first bottom, cut from `axis` on to the sizes of the second, starting at `offset` (one, or one an axis)."""
    p = layer.param("crop_param")
    shape, wanted = shape_of(x), shape_of(like)
    axis = canonical_axis(layer, p.axis, len(shape))
    layer.require(len(wanted) == len(shape), f"its bottoms are {shape} and {wanted}; they must have as many axes")
    n_cut = len(shape) - axis
    layer.require(
        len(p.offset) in (0, 1, n_cut),
        f"{len(p.offset)} offset for {n_cut} axes from axis {axis} on; 0, 1 or {n_cut} fit",
    )
    starts = (list(p.offset) or [0]) * (1 if len(p.offset) > 1 else n_cut)
    ends = [start + n for start, n in zip(starts, wanted[axis:], strict=True)]
    fits = all(end <= n for end, n in zip(ends, shape[axis:], strict=True))
    layer.require(fits, f"{wanted} at offset {starts} from axis {axis} on reaches beyond {shape}; lower the offset")
    if not any(starts) and tuple(ends) == shape[axis:]:
        return x
    axes = list(range(axis, len(shape)))
    return ops.slice(x, integers(starts), integers(ends), integers([1] * n_cut), integers(axes)).output(0)


@converts("Dropout", "SpatialDropout")
def dropout(layer: Layer, x: Output) -> Output:
    """The bottom itself: Caffe scales while training, so that nothing remains to do in TEST.

    With `scale_train: false` training does not scale, and TEST multiplies by 1 - dropout_ratio (rbgirshick's fork,
    dropout_layer.cpp).
    """
    p = layer.param("dropout_param")
    if layer.type != "Dropout" or p.scale_train:
        return x
    return ops.multiply(x, constant(1.0 - p.dropout_ratio)).output(0)


@converts("Silence", bottoms=(1, None), tops=(0, 0))
def silence(layer: Layer, *inputs: Output) -> tuple[Output, ...]:
    """No top: it keeps its bottoms from being reported as outputs of the net."""
    return ()


def _axis(layer: Layer, p: Any, legacy: str, rank: int) -> int:
    """`axis`, or the older unsigned field that Caffe still reads when it alone is given."""
    if not p.HasField(legacy):
        return canonical_axis(layer, p.axis, rank)
    layer.require(not p.HasField("axis"), f"axis and {legacy} are both given; one of them must go")
    return canonical_axis(layer, getattr(p, legacy), rank, legacy)


@converts("Gather", bottoms=(1, None), tops=(1, None))
def gather(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """Each top is its bottom: under MPI alone others' batches come behind it (yjxiong/caffe, gather_layer.cpp)."""
    layer.require(len(layer.tops) == len(inputs), f"{len(inputs)} bottoms and {len(layer.tops)} tops; as many fit")
    return inputs
