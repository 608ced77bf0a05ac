"""Flatten, Reshape, Permute, Reorg, Tile: the same elements under another shape, worked out before compiling."""

from __future__ import annotations

from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.aliases import SHARED
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, constant, integers, reshape, shape_of


@converts("Flatten")
def flatten(layer: Layer, x: Output) -> Output:
    """Axes `axis` to `end_axis`, both included, become one."""
    p = layer.param("flatten_param")
    shape = shape_of(x)
    first = canonical_axis(layer, p.axis, len(shape))
    last = canonical_axis(layer, p.end_axis, len(shape), "end_axis")
    layer.require(first <= last, f"axis={p.axis} lies behind end_axis={p.end_axis}; it must not")
    return reshape(x, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


@converts("Reshape")
def reshape_layer(layer: Layer, x: Output) -> Output:
    """`num_axes` axes from `axis` on become `shape`; there 0 keeps the size of the axis and one -1 takes what remains.

    A negative `axis` counts from behind the last axis: -1 appends (reshape_layer.cpp).
    """
    p = layer.param("reshape_param")
    layer.require(p.pixelshuffler == 1, f"pixelshuffler={p.pixelshuffler} is not converted; only 1, no shuffling, is")
    shape = shape_of(x)
    rank = len(shape)
    first = p.axis if p.axis >= 0 else rank + p.axis + 1
    layer.require(0 <= first <= rank, f"axis={p.axis} of an input with {rank} axes; {-rank - 1} to {rank} exist")
    layer.require(p.num_axes >= -1, f"num_axes={p.num_axes}; it must be -1 (to the end) or more")
    end = rank if p.num_axes == -1 else first + p.num_axes
    layer.require(end <= rank, f"axis={p.axis} with num_axes={p.num_axes} reaches beyond an input of {rank} axes")
    dims = [int(d) for d in p.shape.dim]
    for i, dim in enumerate(dims):
        layer.require(dim >= -1, f"shape has a size of {dim}; sizes, 0 (keep) and -1 (infer) are allowed")
        if dim == 0:
            layer.require(first + i < rank, f"shape keeps axis {first + i} of an input with {rank} axes; name the size")
            dims[i] = shape[first + i]
    layer.require(dims.count(-1) <= 1, f"shape has {dims.count(-1)} sizes of -1; at most one can be inferred")
    wanted = [*shape[:first], *dims, *shape[end:]]
    if -1 in wanted:
        known = prod(n for n in wanted if n != -1)
        layer.require(prod(shape) % known == 0, f"{prod(shape)} elements do not divide by the {known} of its shape")
        wanted[wanted.index(-1)] = prod(shape) // known
    layer.require(prod(wanted) == prod(shape), f"{shape} cannot take the shape {tuple(wanted)}; the counts differ")
    return reshape(x, wanted)


@converts("Permute")
def permute(layer: Layer, x: Output) -> Output:
    """The axes in the given order; those that it does not name follow as they are (permute_layer.cpp of SSD)."""
    order = [int(axis) for axis in layer.param("permute_param").order]
    rank = len(shape_of(x))
    layer.require(
        len(set(order)) == len(order) and all(axis < rank for axis in order),
        f"order {order} of an input with {rank} axes; each axis from 0 to {rank - 1} may stand there once",
    )
    order += [axis for axis in range(rank) if axis not in order]
    return x if order == list(range(rank)) else ops.transpose(x, integers(order)).output(0)


@converts("Reorg")
def reorg(layer: Layer, x: Output) -> Output:
    """Squares of s·s pixels become channels, s the stride:  (N, C, H, W) -> (N, C·s·s, H/s, W/s); back with `reverse`.

    As in darknet, the way there reads its input as (N, C/s², H·s, W·s) and writes (N, C, H, W), both of them under a
    shape that is not their own; so C must divide by s² too (reorg_layer.hpp).
    """
    p = layer.param("reorg_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(p.HasField("stride"), "no stride is given; 2 is usual")
    layer.require(p.stride > 0, "stride=0; 2 is usual")
    n, c, h, w = shape
    s = p.stride
    sizes = {"channels": (c, s * s)} if p.reverse else {"channels": (c, s * s), "rows": (h, s), "columns": (w, s)}
    for name, (size, by) in sizes.items():
        layer.require(size % by == 0, f"stride={s} with {size} {name}; {name} must divide by {by}")
    if p.reverse:
        blocks = ops.transpose(reshape(x, (n, s, s, c // s**2, h, w)), integers([0, 3, 4, 1, 5, 2]))
        return reshape(blocks.output(0), (n, c // s**2, h * s, w * s))
    pixels = ops.transpose(reshape(x, (n, c // s**2, h, s, w, s)), integers([0, 3, 5, 1, 2, 4]))
    return reshape(pixels.output(0), (n, c * s**2, h // s, w // s))


@converts("ShuffleChannel")
def shuffle_channel(layer: Layer, x: Output) -> Output:
    """Channel j of group i of G becomes channel i of group j:  x (N, C, ...), C = G·k -> the same shape.

    Source: farmingyard/ShuffleNet, shuffle_channel_layer.cpp.
    """
    group = layer.param("shuffle_channel_param").group
    shape = shape_of(x)
    layer.require(len(shape) >= 2, f"its input has {len(shape)} axes; at least 2 (N, C) are needed")
    layer.require(group > 0 and shape[1] % group == 0, f"group={group} does not divide its {shape[1]} channels")
    parted = reshape(x, (shape[0], group, shape[1] // group, prod(shape[2:])))
    return reshape(ops.transpose(parted, integers([0, 2, 1, 3])).output(0), shape)


@converts("Squeeze")
def squeeze(layer: Layer, x: Output) -> Output:
    """The axes of size 1 that squeeze_param names as `axis` or `dim` fall away; all of size 1, if it names none."""
    p = layer.param("squeeze_param")
    shape = shape_of(x)
    axes = [canonical_axis(layer, axis, len(shape)) for axis in (*p.axis, *p.dim)]
    wrong = [axis for axis in axes if shape[axis] != 1]
    layer.require(not wrong, f"axis {', '.join(map(str, wrong))} of {shape} is not of size 1; only such can fall away")
    return reshape(x, [n for i, n in enumerate(shape) if n != 1 or (axes and i not in axes)])


@converts(SHARED, bottoms=(2, 2))
def shared_memory(layer: Layer, written: Output, blob: Output) -> Output:
    """What was written to a blob's memory under another name, in the blob's shape; caffe/aliases.py puts it in."""
    return reshape(written, shape_of(blob))


@converts("Flip")
def flip(layer: Layer, x: Output) -> Output:
    """The columns backwards, unless flip_width is false; the rows, too, with flip_height:  x (N, C, H, W).

    Source: happynear/caffe-windows, flip_layer.cpp.
    """
    p = layer.param("flip_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    for axis, is_flipped in ((3, p.flip_width), (2, p.flip_height)):
        if is_flipped:
            backwards = integers(list(range(shape[axis]))[::-1])
            x = ops.gather(x, backwards, ops.constant(np.int64(axis))).output(0)
    return x


@converts("Unpooling", bottoms=(2, 2))
def unpooling(layer: Layer, x: Output, mask: Output) -> Output:
    """Each value where the maximum was, zeros elsewhere:  x and mask (N, C, h, w) -> (N, C, unpool_size, unpool_size).

    Source: HyeonwooNoh's DeconvNet, unpooling_layer.cpp, MAX; the mask is the second top of a Pooling.
    """
    p = layer.param("unpooling_param")
    layer.require(p.unpool == p.MAX, "its unpool is not converted; MAX is")
    layer.require(p.unpool_size > 0, "no unpool_size is given, from which the size of the map follows here")
    n, c, h, w = shape_of(x)
    layer.require(shape_of(mask) == (n, c, h, w), f"its mask has shape {shape_of(mask)}; that of its input is needed")
    side = int(p.unpool_size)
    zeros = ops.broadcast(constant(0.0), integers([n, c, side * side]))  # takes no memory before it is known to fit
    places = ops.convert(reshape(mask, (n, c, h * w)), "i64")
    last = ops.constant(np.int64(side * side - 1))
    filled = ops.scatter_elements_update(zeros, ops.minimum(places, last), reshape(x, (n, c, h * w)), integers([2]))
    return reshape(filled.output(0), (n, c, side, side))


@converts("Tile")
def tile(layer: Layer, x: Output) -> Output:
    """The input `tiles` times one after the other along `axis`."""
    p = layer.param("tile_param")
    rank = len(shape_of(x))
    axis = canonical_axis(layer, p.axis, rank)
    layer.require(p.tiles > 0, f"tiles={p.tiles}; it must be at least 1")
    return ops.tile(x, integers([p.tiles if i == axis else 1 for i in range(rank)])).output(0)
