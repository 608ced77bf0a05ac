"""Upsample and Interp: layers of forks that make maps larger, and their shapes.

Upsample is two layers of one name: with a second bottom, the mask of a MAX Pooling, it is SegNet's; with one bottom it
is that of the YOLO v3 forks."""

from __future__ import annotations

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of


@converts("Upsample", bottoms=(1, 2))
def upsample(layer: Layer, x: Output, mask: Output | None = None) -> Output:
    """With a mask, each value where the maximum was, zeros elsewhere; without, each value `scale` by `scale` times.

    x (N, C, h, w), mask of the same shape: indices into a map of H·W -> (N, C, H, W).  H and W are upsample_h and
    upsample_w, or h·scale_h - pad_out_h and w·scale_w - pad_out_w (alexgkendall/caffe-segnet, upsample_layer.cpp;
    `scale` is 2 there if it is not given).  Without a mask: h·scale and w·scale, 1 if not given
    (eric612/MobileNet-YOLO, upsample_layer.cpp).
    """
    p = layer.param("upsample_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    n, c, h, w = shape
    if mask is None:
        sized = [
            name for name in ("scale_h", "scale_w", "upsample_h", "upsample_w", "height", "width") if p.HasField(name)
        ]
        layer.require(not sized, f"{', '.join(sized)} without a mask is not converted; scale is")
        scale = p.scale if p.HasField("scale") else 1
        layer.require(scale >= 1, "scale=0; it must be at least 1")
        return _repeated(x, scale)
    layer.require(
        shape_of(mask) == shape, f"its mask has shape {shape_of(mask)} and its input {shape}; they must be one"
    )
    layer.require(
        not (p.HasField("height") or p.HasField("width")), "height and width are not converted; upsample_h is"
    )
    rows, columns = _sizes(layer, (h, w))
    flat = [reshape(value, (n, c, h * w)) for value in (x, mask)]
    zeros = constant(np.zeros((n, c, rows * columns), np.float32))
    places = ops.minimum(ops.convert(flat[1], "i64"), ops.constant(np.int64(rows * columns - 1)))
    return reshape(ops.scatter_elements_update(zeros, places, flat[0], integers([2])).output(0), (n, c, rows, columns))


def _repeated(x: Output, scale: int) -> Output:
    """Each pixel `scale` by `scale` times."""
    n, c, h, w = shape_of(x)
    if scale == 1:
        return x
    tiled = ops.tile(reshape(x, (n, c, h, 1, w, 1)), integers([1, 1, 1, scale, 1, scale])).output(0)
    return reshape(tiled, (n, c, h * scale, w * scale))


def _sizes(layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of SegNet's Upsample."""
    p = layer.param("upsample_param")
    if p.HasField("upsample_h") and p.HasField("upsample_w"):
        layer.require(
            p.upsample_h > 1 and p.upsample_w > 1,
            f"upsample_h={p.upsample_h}, upsample_w={p.upsample_w}; both must be above 1",
        )
        return p.upsample_h, p.upsample_w
    layer.require(p.HasField("scale_h") == p.HasField("scale_w"), "scale_h and scale_w go together; give both")
    scales = (p.scale_h, p.scale_w) if p.HasField("scale_h") else (p.scale, p.scale)
    layer.require(min(scales) > 1, f"its scale is {scales}; it must be above 1")
    pads = (int(p.pad_out_h), int(p.pad_out_w))
    layer.require(
        all(scale == 2 or not pad for scale, pad in zip(scales, pads, strict=True)),
        "pad_out_h and pad_out_w need a scale of 2; give upsample_h and upsample_w instead",
    )
    return size[0] * scales[0] - pads[0], size[1] * scales[1] - pads[1]


@converts("Interp", bottoms=(1, 2))
def interp(layer: Layer, x: Output, like: Output | None = None) -> Output:
    """Bilinear, the corners' centers on each other:  x (N, C, h, w) -> (N, C, H, W).

    Of the input, -pad_beg pixels are cut off before and -pad_end behind. H follows from shrink_factor, (h - 1)/s + 1
    rounded down, or zoom_factor, h + (h - 1)·(z - 1), or height; of both factors, first one, then the other
    (hszhao/PSPNet, interp_layer.cpp).  A second bottom gives the sizes where no parameter does, as in DeepLab.
    """
    p = layer.param("interp_param")
    shape = shape_of(x)
    layer.require(len(shape) == 4, f"its input has {len(shape)} axes; 4 (N, C, H, W) are converted")
    layer.require(
        p.pad_beg <= 0 and p.pad_end <= 0, f"pad_beg={p.pad_beg}, pad_end={p.pad_end}; only zero and below, which cut"
    )
    sizes = [size + p.pad_beg + p.pad_end for size in shape[2:]]
    layer.require(min(sizes) > 0, f"pad_beg={p.pad_beg} and pad_end={p.pad_end} leave nothing of {shape}")
    if p.pad_beg or p.pad_end:
        ends = [-p.pad_beg + size for size in sizes]
        x = ops.slice(x, integers([-p.pad_beg] * 2), integers(ends), integers([1, 1]), integers([2, 3])).output(0)
    wanted = _interp_sizes(layer, sizes, None if like is None else shape_of(like))
    if wanted == sizes:
        return x
    made = ops.interpolate(
        x,
        integers(wanted),
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode="align_corners",
        axes=integers([2, 3]),
    )
    return made.output(0)


def _interp_sizes(layer: Layer, sizes: list[int], like: tuple[int, ...] | None) -> list[int]:
    p = layer.param("interp_param")
    shrinks, zooms = p.HasField("shrink_factor"), p.HasField("zoom_factor")
    if not (shrinks or zooms):
        if p.HasField("height") and p.HasField("width"):
            layer.require(p.height > 0 and p.width > 0, f"height={p.height}, width={p.width}; both must be above zero")
            return [p.height, p.width]
        layer.require(
            like is not None and len(like) == 4, "no size is given; zoom_factor, or height and width, would do"
        )
        assert like is not None
        return list(like[2:])
    sized = p.HasField("height") and p.HasField("width") and shrinks and zooms
    layer.require(p.shrink_factor >= 1 and p.zoom_factor >= 1, "a factor is below 1; it must not be")
    if sized:
        return [p.height, p.width]
    sizes = [(size - 1) // p.shrink_factor + 1 for size in sizes]
    return [size + (size - 1) * (p.zoom_factor - 1) for size in sizes]
