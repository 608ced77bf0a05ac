"""What the layers have in common whose list names images and, for each, labels of its pixels."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.data.datum import COLOR, GRAY, BadRecord, Bytes, Mismatch, Pixels, decode, stacked, times
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.image_list import ImageList, Line
from distcalib.data.left_out import Bad, Reading
from distcalib.data.resize import size_wrong
from distcalib.data.source import Index

Pair = tuple[Pixels, Pixels]


class PairList(ImageList):
    """A list of two files a line; see ImageList."""

    pattern = re.compile(rb"[ \t]*(\S+)[ \t]+(\S+)[ \t]*\r?")
    wanted = "two paths with a space between, of an image and of its labels"

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        """What the two parts of a line say."""
        return Line(number, self._path(first), 0, self._path(second))


class PixelLabelSource(KeepingSource):
    """Images (N, C, H, W) and labels (N, 1, H, W) of a list; how a line gives them is its own."""

    def __init__(
        self, layer: caffe_pb2.LayerParameter, param: Any, where: str, images: ImageList, room: MemoryBudget | None
    ) -> None:
        """`param`: the layer's own, with batch_size and is_color."""
        super().__init__(where, room)
        self._list = images
        self._flags = COLOR if param.is_color else GRAY
        self.tops = tuple(layer.top)
        self.batch_size = int(param.batch_size)
        self._image_shape: tuple[int, ...] = ()  # not known yet
        self._reading = Reading(
            layer.name,
            str(images.path),
            False,
            n_records=lambda: self.index.n_records,
            decode=self._same_size,
            told=lambda line: f"line {line.number}:",
            key=lambda line: f"line {line.number}",
        )

    def _look(self) -> None:
        """Learn the shapes from the first image. Raises DataError."""
        self._image_shape = self._reading.first(self._list.read(0, 1))[0].shape
        _, height, width = self._image_shape
        self.shapes = self._shapes(self._image_shape, (self.batch_size, 1, height, width))

    @property
    def index(self) -> Index:
        """Where lines of the list begin, and the folder that relative names start from."""
        return self._list.index

    def close(self) -> None:
        """Nothing to let go of: files are open while they are read."""

    @abstractmethod
    def _pair(self, line: Line) -> Pair:
        """A line's image (C, H, W) and its labels (1, H, W). Raises BadRecord."""

    _remedy: str
    """What makes sizes equal."""

    def _same_size(self, line: Line, row: int) -> Pair:
        pair = self._pair(line)
        if pair[0].shape != self._image_shape and self._image_shape:
            raise Mismatch(
                f"gives {times(pair[0].shape)} values where the first image gives {times(self._image_shape)}; "
                f"{self._remedy} to make sizes equal"
            )
        return pair

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

    def _decoded(self, line: Line, flags: int) -> Bytes:
        """A file's image (H, W, C). Raises BadRecord that names it."""
        try:
            return decode(self._list.contents(line), flags)
        except BadRecord as error:
            raise type(error)(f"image '{line.file}' {error}") from error

    def _labels_of(self, line: Line) -> Bytes:
        """The image of a line's labels (H, W, 1). Raises BadRecord."""
        return self._decoded(line._replace(file=line.labels_file), GRAY)


def sizing_faults(param: Any) -> Iterator[str]:
    """What is wrong with batch_size, new_height and new_width of a layer that reads image files."""
    if not param.batch_size:
        yield "batch_size is 0; give the number of images an iteration"
    if bool(param.new_height) != bool(param.new_width):
        yield "new_height and new_width belong together; give both or none"
    elif wrong := size_wrong(param.new_height, param.new_width):
        yield f"new_height and new_width: {wrong}; correct them"
