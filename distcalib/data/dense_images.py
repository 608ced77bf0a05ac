"""The `DenseImageData` layer of caffe-segnet: image files and, for each, one whose pixels are the labels.

A line of the list names both, with blanks between (`dense_image_data_layer.cpp`).  The image is decoded and resized as
in an ImageData layer; the label image as gray values, resized to the nearest pixel, and neither mean nor scale touches
it.  All images must have one size, where the fork takes any with a batch_size of 1: the net is compiled for it."""

from __future__ import annotations

from pathlib import Path

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import BadRecord, times
from distcalib.data.image_cache import MemoryBudget
from distcalib.data.image_list import Line
from distcalib.data.pixel_labels import Pair, PairList, PixelLabelSource, sizing_faults
from distcalib.data.resize import resize
from distcalib.data.source import Index
from distcalib.data.transform import Transform
from distcalib.errors import DataError


class DenseImageSource(PixelLabelSource):
    """Images (N, C, H, W) and labels (N, 1, H, W) of a list.

    Raises DataError for a list that cannot be used and for what the layer asks that is not done."""

    _remedy = "set new_height and new_width"

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        room: MemoryBudget | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        param = layer.dense_image_data_param
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        transform = Transform(layer.transform_param, where, prototxt)
        images = PairList(resolve_path(param.source, prototxt), param.root_folder, prototxt, index)
        super().__init__(layer, param, where, images, room)
        self._transform = transform
        self._size = (param.new_height, param.new_width)
        self._look()

    def _pair(self, line: Line) -> Pair:
        """A line's image (C, H, W), before mean and scale, and its labels (1, H, W). Raises BadRecord."""
        image = self._decoded(line, self._flags)
        labels = self._labels_of(line)
        if labels.shape[:2] != image.shape[:2] and not self._size[0]:
            raise BadRecord(
                f"image '{line.file}' is {times(image.shape[:2])} and its labels are "
                f"{times(labels.shape[:2])}; correct the list, or set new_height and new_width"
            )
        if self._size[0]:
            height, width = self._size
            image = resize(image, caffe_pb2.ResizeParameter(height=height, width=width))
            nearest = [caffe_pb2.ResizeParameter.NEAREST]
            labels = resize(labels, caffe_pb2.ResizeParameter(height=height, width=width, interp_mode=nearest))
        return self._transform.image(image), labels.transpose(2, 0, 1)


def _faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What the layer asks that is not done, each with its remedy."""
    param, transform = layer.dense_image_data_param, layer.transform_param
    faults = []
    if len(layer.top) != 2:
        faults.append(f"has {len(layer.top)} tops; give two, for the images and for the labels")
    if not param.source:
        faults.append("dense_image_data_param has no source; name a list of images and label images")
    faults += sizing_faults(param)
    random = [name for name in ("rand_skip", "mirror", "crop_height", "crop_width") if getattr(param, name)]
    if random:
        faults.append(f"{', '.join(random)}: drawn at random, so no score could be measured twice; take it out")
    if param.mean_file:
        faults.append("dense_image_data_param.mean_file has no effect in Caffe; write it in transform_param")
    moving = ("crop_size", "crop_h", "crop_w", "mirror", "pad", "resize_param", "random_resize_param")
    moved = [name for name in moving if transform.HasField(name) and getattr(transform, name)]
    if moved:
        faults.append(
            f"transform_param: {', '.join(moved)} would move the image and not its labels, which Caffe refuses; take "
            "it out, or use new_height and new_width"
        )
    return faults
