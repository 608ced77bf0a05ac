"""The `ImageData` layer: image files, named in a list.

Decoded and resized by OpenCV with the flags of Caffe's ReadImageToCVMat, so the bytes are OpenCV's. As in a Data layer
the EXIF orientation is ignored (see datum.py): one image is the same whichever way it is read. min_height and min_width
are refused: Intel Caffe sizes the blob by them and then, built with OpenMP, reads the images without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import COLOR, GRAY, BadRecord, Bytes, Pixels, decode, stacked, times
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.image_list import ImageList, Line
from distcalib.data.left_out import Bad, Reading
from distcalib.data.resize import resize, size_wrong
from distcalib.data.shipped import Shipped, ShippedImages, files_of
from distcalib.data.source import Index
from distcalib.data.transform import Transform
from distcalib.errors import DataError

# distcalib.caffe moves them when it reads a file; a layer made by hand may still have them.
_MOVED = ("scale", "mean_file", "crop_size", "mirror")


class ImageSource(KeepingSource):
    """Images (N, C, H, W) and labels (N,) of a list, resized and transformed.

    The first image decides the shape, as in Caffe. Raises DataError for a list that cannot be used and for what the
    layer asks that is not done; `batch` names the line and the file of an image that is at fault."""

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        skip_bad: bool = False,
        shipped: Shipped | None = None,
        room: MemoryBudget | None = None,
        missing: Mapping[int, str] | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        super().__init__(where, room)
        param = layer.image_data_param
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        self._transform = Transform(layer.transform_param, where, prototxt, files_of(shipped))
        self._flags = COLOR if param.is_color else GRAY
        self._resize = caffe_pb2.ResizeParameter(height=param.new_height, width=param.new_width)
        self._list = _open_list(layer, prototxt, index, shipped, missing)
        self.tops = tuple(layer.top)
        self.batch_size = int(param.batch_size)
        self._image_shape: tuple[int, ...] = ()  # not known yet
        self._reading = Reading(
            layer.name,
            str(self._list.path),
            skip_bad,
            n_records=lambda: self.index.n_records,
            decode=self._pixels,
            told=lambda line: f"line {line.number}: image '{line.file}'",
            key=lambda line: f"line {line.number}: '{self._list.name(line)}'",
        )
        n_first = min(self.batch_size, self.index.n_records) if skip_bad else 1
        self._image_shape = self._reading.first(self._list.read(0, n_first)).shape
        self.shapes = self._shapes(self._image_shape, (self.batch_size,))

    @property
    def index(self) -> Index:
        """Where lines of the list begin, and the folder that relative names start from."""
        return self._list.index

    def _decode(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> Decoded:
        first = iteration * self.batch_size
        lines = self._list.read(first, self.batch_size)
        images = stacked(self._reading.rows(first, lines, bad, rows))
        labels = np.array([lines[row].label for row in (range(len(lines)) if rows is None else rows)], np.float32)
        return Decoded(images, labels, bad or {})

    def key(self, number: int) -> str:
        """See NamingSource."""
        return self._reading.named(self._list.read(number, 1)[0])

    def close(self) -> None:
        """Nothing to let go of: files are open while they are read."""

    def _images(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> list[Pixels]:
        first = iteration * self.batch_size
        reading = self._reading.making(lambda line, _: self._read(line)[0])
        images = reading.rows(first, self._list.read(first, self.batch_size), bad, rows)
        return [image.transpose(2, 0, 1) for image in images]

    def _pixels(self, line: Line, row: int) -> Pixels:
        """A line's image (C, H, W), before mean and scale. Raises BadRecord."""
        return self._read(line)[1]

    def _read(self, line: Line) -> tuple[Bytes, Pixels]:
        """A line's image as it is decoded, (H, W, C), and (C, H, W) before mean and scale. Raises BadRecord."""
        decoded = image = decode(self._list.contents(line), self._flags)
        if self._resize.height:
            image = resize(image, self._resize)
        pixels = self._transform.image(image)
        if pixels.shape != self._image_shape and self._image_shape:
            raise BadRecord(
                f"gives {times(pixels.shape)} values where the first image gives {times(self._image_shape)}; "
                "set new_height and new_width, or crop_size, to make sizes equal"
            )
        return decoded, pixels


def _open_list(
    layer: caffe_pb2.LayerParameter,
    prototxt: Path,
    index: Index | None,
    shipped: Shipped | None,
    missing: Mapping[int, str] | None,
) -> ImageList | ShippedImages:
    """The list that the layer names. Raises DataError."""
    param = layer.image_data_param
    path = resolve_path(param.source, prototxt)
    if shipped is not None:
        return ShippedImages(path, index, shipped.of(layer.name))
    return ImageList(path, param.root_folder, prototxt, index, missing)


def _faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What the layer asks that is not done, each with its remedy."""
    param = layer.image_data_param
    faults = []
    if len(layer.top) != 2:
        faults.append(f"has {len(layer.top)} tops; give two, for the images and for the labels")
    if not param.source:
        faults.append("image_data_param has no source; name a list of paths and labels")
    if not param.batch_size:
        faults.append("batch_size is 0; give the number of images an iteration")
    if bool(param.new_height) != bool(param.new_width):
        faults.append("new_height and new_width belong together; give both or none")
    elif wrong := size_wrong(param.new_height, param.new_width):
        faults.append(f"new_height and new_width: {wrong}; correct them")
    if param.min_height or param.min_width:
        faults.append(
            "min_height and min_width size the blob but not the images in Intel Caffe; use new_height and new_width"
        )
    if param.rand_skip:
        faults.append(
            f"rand_skip: {param.rand_skip} begins at a random image, so no score could be measured twice; take it out"
        )
    moved = [name for name in _MOVED if param.HasField(name)]
    faults += [f"image_data_param.{name} is of an old format; write it in transform_param" for name in moved]
    return faults
