"""What the data layer does to an image, in front of the net: `--preprocess`, for u8 images.

The order is that of data/transform.py: resize, crop at the centre, mean, scale. Resizing gives the bytes of OpenCV,
whose fixed-point arithmetic is written out here: a runtime's own bilinear, rounded, has one pixel in eight off by one.
Mean and scale give the data layer's values to the last bit but one, since a runtime may join two operations. What the
data layer does beyond that is refused, not left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe import caffe_pb2
from distcalib.caffe.caffe_pb2 import ResizeParameter
from distcalib.caffe.graph import Graph, Node
from distcalib.data import Pixels, mean_of
from distcalib.errors import UnsupportedError
from distcalib.exporters.building import Exported
from distcalib.layers.shapes import constant, integers

LAYOUTS = ("nhwc", "nchw")
COLOURS = ("bgr", "rgb", "gray")
FORMS = tuple(f"{layout}-{colours}" for layout in LAYOUTS for colours in COLOURS)
"""What --preprocess takes."""
_IMAGES = frozenset({"AnnotatedData", "Data", "ImageData"})


def in_form(images: Sequence[Pixels], form: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Images (C, H, W) in BGR as a file takes them: those of each size together, with their places among all."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(place)
    layout, colours = form.split("-")
    for places in by_size.values():
        stacked = np.stack([np.asarray(images[place], np.uint8) for place in places])
        if colours == "rgb":
            stacked = stacked[:, ::-1]
        if layout == "nhwc":
            stacked = stacked.transpose(0, 2, 3, 1)
        yield np.array(places, np.int64), np.ascontiguousarray(stacked)


@dataclass(frozen=True)
class Steps:
    """What is done: `size` (height, width) to resize to, `crop` likewise, mean (C, 1, 1) or (C, H, W), and scale."""

    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    mean: NDArray[np.float32]
    scale: np.float32


def steps_of(graph: Graph, prototxt: Path, where: str) -> Steps:
    """Those of the data layer whose images the net reads.  Raises UnsupportedError for what cannot be in a file."""
    layers = [node for node in graph if node.type in _IMAGES]
    if len(layers) != 1:
        raise UnsupportedError(
            f"{where}: --preprocess: does what one Data, ImageData or AnnotatedData layer does, and the net has "
            f"{len(layers) or 'none'}; leave it out"
        )
    [node] = layers
    p, faults = node.layer.transform_param, _faults(node)
    if faults:
        raise UnsupportedError(
            f"{where}: layer '{node.name}' ({node.type}): --preprocess: {'; '.join(faults)}; leave it out"
        )
    images = node.layer.image_data_param
    size = (p.resize_param.height, p.resize_param.width) if p.HasField("resize_param") else None
    if node.type == "ImageData" and images.new_height:
        size = (images.new_height, images.new_width)
    crop = (p.crop_size, p.crop_size) if p.crop_size else (p.crop_h, p.crop_w) if p.crop_h else None
    return Steps(size, crop, mean_of(p, prototxt, where, crop), np.float32(p.scale))


def _faults(node: Node) -> list[str]:
    p = node.layer.transform_param
    faults = []
    if p.HasField("random_resize_param"):
        faults.append("random_resize_param is not done in a file")
    if p.pad:
        faults.append("pad is not done in a file")
    if p.HasField("resize_param"):
        param: caffe_pb2.ResizeParameter = p.resize_param
        if param.resize_mode != ResizeParameter.WARP:
            faults.append("of resize_mode only WARP is done in a file")
        if any(mode != ResizeParameter.LINEAR for mode in param.interp_mode):
            faults.append("of interp_mode only LINEAR is done in a file")
        if p.crop_size or p.crop_h:
            faults.append("resize_param with a crop, which Caffe cuts out of the image before resizing")
    return faults


def preprocessed(made: Exported, steps: Steps, form: str, where: str) -> Exported:
    """`made` with an input of u8 images in `form`, such as nhwc-bgr; changes its model.  Raises UnsupportedError."""
    layout, colours = form.split("-")
    [old, *others] = made.model.get_parameters()
    shape = old.get_output_partial_shape(0)
    if others or len(shape) != 4:
        raise UnsupportedError(f"{where}: --preprocess: the net has inputs beside its images; leave it out")
    channels = int(shape[1].get_length())
    if (channels == 1) != (colours == "gray") or channels not in (1, 3):
        forms = {1: f"{layout}-gray", 3: f"{layout}-bgr or {layout}-rgb"}
        remedy = f"give {forms[channels]}" if channels in forms else "leave it out"
        many = "1 channel" if channels == 1 else f"{channels} channels"
        raise UnsupportedError(f"{where}: --preprocess {form}: the net reads images of {many}; {remedy}")
    height, width = (int(shape[axis].get_length()) for axis in (2, 3))
    free = steps.size is not None or steps.crop is not None
    sizes = [-1, -1] if free else [height, width]
    batch = -1 if shape[0].is_dynamic else int(shape[0].get_length())
    dims = [batch, *sizes, channels] if layout == "nhwc" else [batch, channels, *sizes]
    images = ops.parameter(ov.PartialShape(dims), np.uint8, made.inputs[0])
    x = ops.convert(images, "f32").output(0)
    if layout == "nhwc":
        x = ops.transpose(x, integers([0, 3, 1, 2])).output(0)
    if colours == "rgb":
        x = ops.gather(x, integers([2, 1, 0]), integers([1])).output(0)
    if steps.size is not None:
        x = _resized(x, steps.size)
    if steps.crop is not None:
        x = _cropped(x, steps.crop)
    if free:
        x = ops.reshape(x, integers([batch, channels, height, width]), special_zero=False).output(0)
    if steps.mean.any():
        x = ops.subtract(x, constant(steps.mean[None])).output(0)
    if steps.scale != 1.0:
        x = ops.multiply(x, constant(float(steps.scale))).output(0)
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(x)
    made.model.add_parameters([images])
    made.model.remove_parameter(old)
    images.output(0).get_tensor().set_names({made.inputs[0]})
    images.set_friendly_name(made.inputs[0])
    made.model.validate_nodes_and_infer_types()
    return made


def _resized(x: Output, size: tuple[int, int]) -> Output:
    """OpenCV's INTER_LINEAR of bytes, f32: (N, C, H, W) -> (N, C, *size), the same whole numbers.

    As there columns come first, each weight is a whole number of 1/2048, and what is cut off is cut off at the same
    places: four bits of the sum of two columns, sixteen of each product with the weight of a row, and two at the end
    with a half added.
    """
    height, width = (_extent(x, axis) for axis in (2, 3))
    places, weights = _columns(width, size[1])
    columns = [
        ops.multiply(ops.gather(x, place, integers([3])), weight) for place, weight in zip(places, weights, strict=True)
    ]
    sums = _cut(ops.add(*columns), 1 / 16)  # 32,655 at most, so that all below stays exact in f32
    places, weights = _rows(height, size[0])
    rows = [
        _times_row(ops.gather(sums, place, integers([2])).output(0), weight)
        for place, weight in zip(places, weights, strict=True)
    ]
    return _cut(ops.add(ops.add(*rows), constant(2.0)), 1 / 4)


def _extent(x: Output, axis: int) -> Output:
    """The size along `axis`, f32 (1,)."""
    return ops.convert(ops.gather(ops.shape_of(x), integers([axis]), integers([0])), "f32").output(0)


def _columns(extent: Output, size: int) -> tuple[list[Output], list[Output]]:
    """By column of the result the two columns it is made of, and their weights: beyond the ends the last one alone."""
    last = ops.subtract(extent, constant(1.0))
    at = ops.minimum(ops.maximum(_positions(extent, size), constant(0.0)), last)
    before = ops.floor(at)
    after = ops.minimum(ops.add(before, constant(1.0)), last)
    return [_whole(before), _whole(after)], _weights(ops.subtract(at, before).output(0))


def _rows(extent: Output, size: int) -> tuple[list[Output], list[Output]]:
    """By row of the result the two rows it is made of, and their weights (size, 1): beyond the ends the last one
    twice.
    """
    last = ops.subtract(extent, constant(1.0))
    at = _positions(extent, size)
    floor = ops.floor(at)
    ends = [ops.minimum(ops.maximum(ops.add(floor, constant(d)), constant(0.0)), last) for d in (0.0, 1.0)]
    weights = _weights(ops.subtract(at, floor).output(0))
    upright = [ops.reshape(weight, integers([size, 1]), special_zero=False).output(0) for weight in weights]
    return [_whole(end) for end in ends], upright


def _positions(extent: Output, size: int) -> Output:
    """Where the middles of the result's pixels lie in the image, (size,): OpenCV computes it in f64 and rounds to f32.

    That is a quotient of whole numbers, rounded once, as long as they have less than 24 bits: in images of up to 27,000
    pixels for a size of 300.  OpenVINO multiplies by a reciprocal where it should divide, and is a last bit off at some
    places, so what is left over is put right.
    """
    divisor, share = constant(2.0 * size), constant(1.0 / (2.0 * size))
    odd = constant(2.0 * np.arange(size, dtype=np.float32) + np.float32(1.0))
    above = ops.subtract(ops.multiply(odd, extent), constant(float(size)))
    near = ops.multiply(above, share)
    left, rest = above, near
    for unit in (1.0, 2048.0):  # in parts so short that their products are exact
        part = ops.multiply(ops.floor(ops.multiply(rest, constant(unit))), constant(1.0 / unit))
        left, rest = ops.subtract(left, ops.multiply(part, divisor)), ops.subtract(rest, part)
    left = ops.subtract(left, ops.multiply(rest, divisor))
    return ops.add(near, ops.multiply(left, share)).output(0)


def _weights(part: Output) -> list[Output]:
    """Of the pixel before and the one after, in 1/2048, ties to even."""
    shares = [ops.subtract(constant(1.0), part).output(0), part]
    return [ops.round(ops.multiply(share, constant(2048.0)), "half_to_even").output(0) for share in shares]


def _times_row(x: Output, weight: Output) -> Output:
    """Whole numbers times a weight, over 65,536, rounded down; products have 26 bits, so the two last ones of the
    weight come in apart.
    """
    high = ops.floor(ops.multiply(weight, constant(0.25))).output(0)
    low = ops.subtract(ops.multiply(weight, constant(0.25)), high)
    return _cut(ops.add(ops.multiply(x, high), ops.floor(ops.multiply(x, low))), 1 / 16384)


def _cut(x: Output | ov.Node, share: float) -> Output:
    """A share of whole numbers, a power of 2, rounded down."""
    return ops.floor(ops.multiply(x, constant(share))).output(0)


def _whole(x: Output | ov.Node) -> Output:
    return ops.convert(x, "i32").output(0)


def _cropped(x: Output, crop: tuple[int, int]) -> Output:
    """The window in the middle; of two middles the upper left."""
    extent = ops.gather(ops.shape_of(x), integers([2, 3]), integers([0]))
    begin = ops.divide(ops.subtract(extent, integers(crop)), integers([2]))
    end = ops.add(begin, integers(crop))
    return ops.slice(x, begin, end, integers([1, 1]), integers([2, 3])).output(0)
