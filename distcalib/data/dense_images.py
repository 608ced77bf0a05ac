"""The `DenseImageData` layer of caffe-segnet: image files and, for each, one whose pixels are the labels.

A line of the list names both, with blanks between (`dense_image_data_layer.cpp`).  The image is decoded and resized as
in an ImageData layer; the label image as gray values, resized to the nearest pixel, and neither mean nor scale touches
it.  All images must have one size, where the fork takes any with a batch_size of 1: the net is compiled for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import COLOR, GRAY, BadRecord, Bytes, Mismatch, Pixels, decode, stacked, times
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.image_list import ImageList, Line
from distcalib.data.left_out import Bad, Reading
from distcalib.data.resize import resize, size_wrong
from distcalib.data.source import Index
from distcalib.data.transform import Transform
from distcalib.errors import DataError

_Pair = tuple[Pixels, Pixels]


class PairList(ImageList):
    """A list of two files a line; see ImageList."""

    pattern = re.compile(rb"[ \t]*(\S+)[ \t]+(\S+)[ \t]*\r?")
    wanted = "two paths with a space between, of an image and of its labels"

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        """What the two parts of a line say."""
        return Line(number, self._path(first), 0, self._path(second))


class DenseImageSource(KeepingSource):
    """Images (N, C, H, W) and labels (N, 1, H, W) of a list.

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
        param = layer.dense_image_data_param
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        self._transform = Transform(layer.transform_param, where, prototxt)
        self._flags = COLOR if param.is_color else GRAY
        self._size = (param.new_height, param.new_width)
        self._list = PairList(resolve_path(param.source, prototxt), param.root_folder, prototxt, index)
        self.tops = tuple(layer.top)
        self.batch_size = int(param.batch_size)
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

    @property
    def index(self) -> Index:
        """Where lines of the list begin, and the folder that relative names start from."""
        return self._list.index

    def close(self) -> None:
        """Nothing to let go of: files are open while they are read."""

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
        """A line's image (C, H, W), before mean and scale, and its labels (1, H, W). Raises BadRecord."""
        image = self._decoded(line, self._flags)
        labels = self._decoded(line._replace(file=line.labels_file), GRAY)
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
        pixels = self._transform.image(image)
        if pixels.shape != self._image_shape and self._image_shape:
            raise Mismatch(
                f"gives {times(pixels.shape)} values where the first image gives {times(self._image_shape)}; "
                "set new_height and new_width to make sizes equal"
            )
        return pixels, labels.transpose(2, 0, 1)

    def _decoded(self, line: Line, flags: int) -> Bytes:
        """A file's image (H, W, C). Raises BadRecord that names it."""
        try:
            return decode(self._list.contents(line), flags)
        except BadRecord as error:
            raise type(error)(f"image '{line.file}' {error}") from error


def _faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What the layer asks that is not done, each with its remedy."""
    param, transform = layer.dense_image_data_param, layer.transform_param
    faults = []
    if len(layer.top) != 2:
        faults.append(f"has {len(layer.top)} tops; give two, for the images and for the labels")
    if not param.source:
        faults.append("dense_image_data_param has no source; name a list of images and label images")
    if not param.batch_size:
        faults.append("batch_size is 0; give the number of images an iteration")
    if bool(param.new_height) != bool(param.new_width):
        faults.append("new_height and new_width belong together; give both or none")
    elif wrong := size_wrong(param.new_height, param.new_width):
        faults.append(f"new_height and new_width: {wrong}; correct them")
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
