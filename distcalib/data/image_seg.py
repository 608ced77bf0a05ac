"""The `ImageSegData` layer of DeepLab and PSPNet: images, and for each pixel of them a label.

A line of the list names an image and, by `label_type`, a file whose pixels are the labels (PIXEL), one label for all of
them (IMAGE), or nothing, and ignore_label is the label of all (NONE).  What is smaller than the crop gets a frame below
and on the right, of the mean in the image and of ignore_label in the labels; then the middle is cut out of both.  With
new_height and new_width both are resized in the same way, labels too, whose numbers are mixed (DeepLab v2 and PSPNet:
image_seg_data_layer.cpp, TransformImgAndSeg of data_transformer.cpp, ReadImageToCVMat of io.cpp).  A third top, where
there is one, has height and width of the image, at most those of the crop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import BadRecord, Bytes, Pixels, times
from distcalib.data.image_cache import MemoryBudget
from distcalib.data.image_list import ImageList, Line
from distcalib.data.left_out import Bad
from distcalib.data.pixel_labels import Pair, PairList, PixelLabelSource, sizing_faults
from distcalib.data.resize import resize, size_wrong
from distcalib.data.source import FloatArray, Index
from distcalib.data.transform import Transform
from distcalib.errors import DataError

_NONE, _IMAGE, _PIXEL = (
    caffe_pb2.ImageDataParameter.NONE,
    caffe_pb2.ImageDataParameter.IMAGE,
    caffe_pb2.ImageDataParameter.PIXEL,
)


class _Labelled(ImageList):
    pattern = re.compile(rb"[ \t]*(\S+)[ \t]+([+-]?[0-9]{1,9})[ \t]*\r?")
    wanted = "path, a space and a whole number"


class _Unlabelled(ImageList):
    pattern = re.compile(rb"[ \t]*(\S+)([ \t].*)?\r?")
    wanted = "path"

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        return Line(number, self._path(first), 0)


_LISTS: dict[int, type[ImageList]] = {_NONE: _Unlabelled, _IMAGE: _Labelled, _PIXEL: PairList}


class ImageSegSource(PixelLabelSource):
    """Images (N, C, H, W), labels (N, 1, H, W) and, if asked for, sizes (N, 1, 1, 2) of a list.

    Raises DataError for a list that cannot be used and for what the layer asks that is not done."""

    _remedy = "set a crop_size"

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        room: MemoryBudget | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        param, transform = layer.image_data_param, layer.transform_param
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        plain = caffe_pb2.TransformationParameter(mean_value=transform.mean_value, scale=transform.scale)
        values = Transform(plain, where, prototxt)
        list_of = _LISTS[param.label_type]
        images = list_of(resolve_path(param.source, prototxt), param.root_folder, prototxt, index)
        super().__init__(layer, param, where, images, room)
        self._param, self._values, self._crop = param, values, _crop(transform)
        self._transform = Transform(caffe_pb2.TransformationParameter(), where, prototxt)  # of values that are made
        self._sizes: dict[int, tuple[int, int]] = {}
        self._look()
        if len(self.tops) == 3:
            self.shapes[self.tops[2]] = (self.batch_size, 1, 1, 2)

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """See KeepingSource."""
        first = iteration * self.batch_size
        return self._with_sizes(super().batch(iteration, bad), range(first, first + self.batch_size))

    def pick(self, numbers: Sequence[int]) -> dict[str, FloatArray]:
        """See KeepingSource."""
        return self._with_sizes(super().pick(numbers), numbers)

    def _with_sizes(self, batch: dict[str, FloatArray], numbers: Sequence[int]) -> dict[str, FloatArray]:
        if len(self.tops) == 3:
            largest = self._image_shape[1:]
            sizes = [self._sizes.get(number % self.index.n_records, largest) for number in numbers]
            batch[self.tops[2]] = np.minimum(sizes, largest).astype(np.float32).reshape(-1, 1, 1, 2)
        return batch

    def _pair(self, line: Line) -> Pair:
        """A line's values (C, H, W) f32 and its labels (1, H, W). Raises BadRecord."""
        image = self._sized(self._decoded(line, self._flags))
        height, width = image.shape[:2]
        self._sizes[line.number - 1] = height, width
        if self._param.label_type == _PIXEL:
            labels = self._sized(self._labels_of(line))
        else:
            label = line.label if self._param.label_type == _IMAGE else self._param.ignore_label
            labels = np.full((height, width, 1), label & 255, np.uint8)
        if labels.shape[:2] != image.shape[:2]:
            raise BadRecord(
                f"image '{line.file}' is {times(image.shape[:2])} and its labels are {times(labels.shape[:2])}; "
                "correct the list"
            )
        values = self._values.finish(image.transpose(2, 0, 1)[None])[0]
        ignored = np.uint8(self._param.ignore_label & 255)
        return self._cut(values, np.float32(0.0)), self._cut(labels.transpose(2, 0, 1), ignored)

    def _sized(self, image: Bytes) -> Bytes:
        size = caffe_pb2.ResizeParameter(height=self._param.new_height, width=self._param.new_width)
        return resize(image, size) if self._param.new_height else image

    def _cut(self, pixels: Pixels, frame: np.float32 | np.uint8) -> Pixels:
        """The crop at the middle of pixels (C, H, W), which are framed below and on the right to hold it."""
        if not self._crop[0]:
            return pixels
        lacking = [max(crop - size, 0) for crop, size in zip(self._crop, pixels.shape[1:], strict=True)]
        framed = np.pad(pixels, [(0, 0), *((0, n) for n in lacking)], constant_values=frame)
        top, left = ((size - crop) // 2 for crop, size in zip(self._crop, framed.shape[1:], strict=True))
        return cast(Pixels, framed[:, top : top + self._crop[0], left : left + self._crop[1]].copy())


def _crop(transform: caffe_pb2.TransformationParameter) -> tuple[int, int]:
    """Height and width of the crop; (0, 0) if there is none."""
    if transform.crop_size:
        return transform.crop_size, transform.crop_size
    return transform.crop_height, transform.crop_width


def _faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What the layer asks that is not done, each with its remedy."""
    param, transform = layer.image_data_param, layer.transform_param
    faults = []
    if len(layer.top) not in (2, 3):
        faults.append(f"has {len(layer.top)} tops; give two, for images and labels, or a third for their sizes")
    if not param.source:
        faults.append("image_data_param has no source; name a list of images and labels")
    faults += sizing_faults(param)
    if bool(transform.crop_height) != bool(transform.crop_width):
        faults.append("crop_height and crop_width belong together; give both, or crop_size")
    elif wrong := size_wrong(*_crop(transform)):
        faults.append(f"the crop: {wrong}; correct it")
    if param.rand_skip or transform.scale_factors:
        faults.append(
            "rand_skip and scale_factors are drawn at random, so no score could be measured twice; take them out"
        )
    if len(transform.mean_value) not in (0, 1, 3):
        faults.append(f"{len(transform.mean_value)} mean_value are given; one, or one per channel, fits")
    for name in ("mean_file", "pad", "resize_param", "random_resize_param", "force_color", "force_gray"):
        if transform.HasField(name) and getattr(transform, name):
            faults.append(f"transform_param.{name} has no effect on it in Caffe, or is refused there; take it out")
    return faults
