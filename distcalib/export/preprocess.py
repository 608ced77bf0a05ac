"""What the data layer does to an image, in front of the net: `--preprocess`, for u8 images.

The order is that of data/transform.py: resize, crop at the centre, mean, scale. Crop, mean and scale give the data
layer's values to the last bit but one, since a runtime may join two operations. Resizing is a runtime's bilinear
rounded to whole pixels, where OpenCV counts in 1/2048: one pixel in eight may be off by one step. What the data layer
does beyond that is refused, not left out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset11 as ops11
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe import caffe_pb2
from distcalib.caffe.caffe_pb2 import ResizeParameter
from distcalib.caffe.graph import Graph, Node
from distcalib.data import mean_of
from distcalib.errors import UnsupportedError
from distcalib.export.building import Exported
from distcalib.layers.shapes import constant, integers

LAYOUTS = ("nhwc", "nchw")
COLOURS = ("bgr", "rgb", "gray")
FORMS = tuple(f"{layout}-{colours}" for layout in LAYOUTS for colours in COLOURS)
"""What --preprocess takes."""
_IMAGES = frozenset({"AnnotatedData", "Data", "ImageData"})


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
    found = []
    if p.HasField("random_resize_param"):
        found.append("random_resize_param is not done in a file")
    if p.pad:
        found.append("pad is not done in a file")
    if p.HasField("resize_param"):
        param: caffe_pb2.ResizeParameter = p.resize_param
        if param.resize_mode != ResizeParameter.WARP:
            found.append("of resize_mode only WARP is done in a file")
        if any(mode != ResizeParameter.LINEAR for mode in param.interp_mode):
            found.append("of interp_mode only LINEAR is done in a file")
        if p.crop_size or p.crop_h:
            found.append("resize_param with a crop, which Caffe cuts out of the image before resizing")
    return found


def preprocessed(made: Exported, steps: Steps, form: str, where: str) -> Exported:
    """`made` with an input of u8 images in `form`, such as nhwc-bgr; changes its model.  Raises UnsupportedError."""
    layout, colours = form.split("-")
    [old, *others] = made.model.get_parameters()
    shape = old.get_output_partial_shape(0)
    if others or len(shape) != 4:
        raise UnsupportedError(f"{where}: --preprocess: the net has inputs beside its images; leave it out")
    channels = int(shape[1].get_length())
    if (channels == 1) != (colours == "gray") or channels not in (1, 3):
        wanted = {1: "gray", 3: "bgr or rgb"}.get(channels, "no colours that have a name")
        raise UnsupportedError(f"{where}: --preprocess {form}: the net takes {channels} channels: {wanted}")
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
    """Bilinear, whole pixels, halves rounded up as OpenCV does."""
    y = ops11.interpolate(x, integers(size), "linear_onnx", "sizes", axes=integers([2, 3]))
    return ops.floor(ops.add(y, constant(0.5))).output(0)


def _cropped(x: Output, crop: tuple[int, int]) -> Output:
    """The window in the middle; of two middles the upper left."""
    extent = ops.gather(ops.shape_of(x), integers([2, 3]), integers([0]))
    begin = ops.divide(ops.subtract(extent, integers(crop)), integers([2]))
    end = ops.add(begin, integers(crop))
    return ops.slice(x, begin, end, integers([1, 1]), integers([2, 3])).output(0)
