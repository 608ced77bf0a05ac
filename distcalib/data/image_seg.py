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
from distcalib.data.datum import COLOR, GRAY, BadRecord, Bytes, Mismatch, Pixels, decode, stacked, times
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.image_list import ImageList, Line
from distcalib.data.left_out import Bad, Reading
from distcalib.data.resize import resize, size_wrong
from distcalib.data.source import FloatArray, Index
from distcalib.data.transform import Transform
from distcalib.errors import DataError

_NONE, _IMAGE, _PIXEL = (
    caffe_pb2.ImageDataParameter.NONE,
    caffe_pb2.ImageDataParameter.IMAGE,
    caffe_pb2.ImageDataParameter.PIXEL,
)
_Pair = tuple[Pixels, Pixels]


class _Pairs(ImageList):
    pattern = re.compile(rb"[ \t]*(\S+)[ \t]+(\S+)[ \t]*\r?")
    wanted = "two paths with a space between, of an image and of its labels"

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        return Line(number, self._path(first), 0, self._path(second))


class _Labelled(ImageList):
    pattern = re.compile(rb"[ \t]*(\S+)[ \t]+([+-]?[0-9]{1,9})[ \t]*\r?")
    wanted = "path, a space and a whole number"


class _Unlabelled(ImageList):
    pattern = re.compile(rb"[ \t]*(\S+)([ \t].*)?\r?")
    wanted = "path"

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        return Line(number, self._path(first), 0)


_LISTS: dict[int, type[ImageList]] = {_NONE: _Unlabelled, _IMAGE: _Labelled, _PIXEL: _Pairs}


class ImageSegSource(KeepingSource):
    """Images (N, C, H, W), labels (N, 1, H, W) and, if asked for, sizes (N, 1, 1, 2) of a list.

    Raises DataError for a list that cannot be used and for what the layer asks that is not done."""

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        room: MemoryBudget | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        super().__init__(where, room)
        self._param, transform = layer.image_data_param, layer.transform_param
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        plain = caffe_pb2.TransformationParameter(mean_value=transform.mean_value, scale=transform.scale)
        self._values = Transform(plain, where, prototxt)
        self._transform = Transform(caffe_pb2.TransformationParameter(), where, prototxt)  # of values that are made
        self._crop = _crop(transform)
        self._flags = COLOR if self._param.is_color else GRAY
        list_of = _LISTS[self._param.label_type]
        self._list = list_of(resolve_path(self._param.source, prototxt), self._param.root_folder, prototxt, index)
        self.tops = tuple(layer.top)
        self.batch_size = int(self._param.batch_size)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._image_shape: tuple[int, ...] = ()  # not known yet
        self._reading = Reading(
            layer.name,
            str(self._list.path),
            False,
            n_records=lambda: self.index.n_records,
            decode=self._pair,
            told=lambda line: f"line {line.number}:",
            key=lambda line: f"line {line.number}",
        )
        self._image_shape = self._reading.first(self._list.read(0, 1))[0].shape
        _, height, width = self._image_shape
        self.shapes = self._shapes(self._image_shape, (self.batch_size, 1, height, width))
        if len(self.tops) == 3:
            self.shapes[self.tops[2]] = (self.batch_size, 1, 1, 2)

    @property
    def index(self) -> Index:
        """Where lines of the list begin, and the folder that relative names start from."""
        return self._list.index

    def close(self) -> None:
        """Nothing to let go of: files are open while they are read."""

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

    def _decode(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> Decoded:
        first = iteration * self.batch_size
        pairs = self._reading.rows(first, self._list.read(first, self.batch_size), bad, rows)
        labels = np.stack([labels for _, labels in pairs]).astype(np.float32)
        return Decoded(stacked([image for image, _ in pairs]), labels, bad or {})

    def _images(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> list[Pixels]:
        first = iteration * self.batch_size
        reading = self._reading.making(lambda line, _: self._decoded(line, self._flags))
        images = reading.rows(first, self._list.read(first, self.batch_size), bad, rows)
        return [image.transpose(2, 0, 1) for image in images]

    def _pair(self, line: Line, row: int) -> _Pair:
        """A line's values (C, H, W) f32 and its labels (1, H, W). Raises BadRecord."""
        image = self._sized(self._decoded(line, self._flags))
        height, width = image.shape[:2]
        self._sizes[line.number - 1] = height, width
        if self._param.label_type == _PIXEL:
            labels = self._sized(self._decoded(line._replace(file=line.labels_file), GRAY))
        else:
            label = line.label if self._param.label_type == _IMAGE else self._param.ignore_label
            labels = np.full((height, width, 1), label & 255, np.uint8)
        if labels.shape[:2] != image.shape[:2]:
            raise BadRecord(
                f"image '{line.file}' is {times(image.shape[:2])} and its labels are {times(labels.shape[:2])}; "
                "correct the list"
            )
        values = self._values.finish(image.transpose(2, 0, 1)[None])[0]
        made = self._cut(values, np.float32(0.0)), self._cut(labels.transpose(2, 0, 1), np.uint8(self._ignored))
        if made[0].shape != self._image_shape and self._image_shape:
            raise Mismatch(
                f"gives {times(made[0].shape)} values where the first image gives {times(self._image_shape)}; set a "
                "crop_size to make sizes equal"
            )
        return made

    @property
    def _ignored(self) -> int:
        return int(self._param.ignore_label) & 255

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

    def _decoded(self, line: Line, flags: int) -> Bytes:
        """A file's image (H, W, C). Raises BadRecord that names it."""
        try:
            return decode(self._list.contents(line), flags)
        except BadRecord as error:
            raise type(error)(f"image '{line.file}' {error}") from error


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
    if not param.batch_size:
        faults.append("batch_size is 0; give the number of images an iteration")
    if bool(param.new_height) != bool(param.new_width):
        faults.append("new_height and new_width belong together; give both or none")
    elif wrong := size_wrong(param.new_height, param.new_width):
        faults.append(f"new_height and new_width: {wrong}; correct them")
    if bool(transform.crop_height) != bool(transform.crop_width):
        faults.append("crop_height and crop_width belong together; give both, or crop_size")
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
