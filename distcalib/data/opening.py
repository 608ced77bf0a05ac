"""Which layer types are data, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import named_paths, special
from distcalib.data.annotated import AnnotatedSource
from distcalib.data.database import DatabaseSource
from distcalib.data.datum import times
from distcalib.data.dense_images import DenseImageSource
from distcalib.data.dummy import DummySource
from distcalib.data.feed import FeedSource
from distcalib.data.image_cache import MemoryBudget
from distcalib.data.image_seg import ImageSegSource
from distcalib.data.images import ImageSource
from distcalib.data.limits import too_many
from distcalib.data.shipped import Shipped
from distcalib.data.source import Index, Source
from distcalib.errors import DataError, UnsupportedError, told

DATA_TYPES: set[str] = {
    "AnnotatedData",
    "Data",
    "DenseImageData",
    "DummyData",
    "HDF5Data",
    "ImageData",
    "ImageSegData",
    "Input",
}
"""Layer types that `open_source` opens."""

REFUSED_DATA: dict[str, str] = {
    "BoxData": "makes labels that EvalDetection of Intel Caffe 1.1.6 does not read; use AnnotatedData as its nets do",
    "MemoryData": "gets its data from the program that runs the net; give arrays of its tops with --data FILE.npz",
    "VideoData": "reads a camera or a video; write the frames to files and use an ImageData layer, or give --data",
    "WindowData": "cuts windows at random; write them to files and use an ImageData layer, or give --data",
}
"""Known data layer types that are refused: what is, and what would do."""


def open_source(
    layer: caffe_pb2.LayerParameter,
    prototxt: Path,
    index: Index | None = None,
    arrays: Mapping[str, npt.NDArray[np.generic]] | None = None,
    skip_bad: bool = False,
    shipped: Shipped | None = None,
    room: MemoryBudget | None = None,
    missing: Mapping[int, str] | None = None,
    opened: Callable[[], None] | None = None,
) -> Source:
    """The source behind a data layer of the net in the file `prototxt`.

    index: `source.index` of the same layer from another process; with it nothing is ever scanned.
    arrays: by top name, what Input layers feed; others ignore it.
    skip_bad: the first good record decides the shape, not the first.
    shipped: what was sent of the data, which are not opened then; needs `index`.
    room: for images that are kept once they are decoded, for whoever wants an iteration again; None: there is none.
    missing: by record, why the file of an image list was not there for the driver: it counts as bad without a look, and
    any other that is not there ends the run. None: a look decides.
    opened: asked whenever a file is opened later on, to raise DataError if it is not the one that it should be.
    Raises UnsupportedError for a layer type that is not read, DataError for data that cannot be used."""
    where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
    with told(DataError, f"{where}: its data cannot be read", "write the data again, or copy it again"):
        if shipped is None:
            _refuse_special(layer, prototxt)
        source = _opened(layer, prototxt, index, arrays, skip_bad, shipped, room, missing, opened)
    large = [f"'{top}' of {times(shape)}" for top, shape in source.shapes.items() if too_many(shape)]
    if large:
        source.close()
        raise DataError(f"{where}: makes {', '.join(large)}; a blob has less than 2^31 elements, so lower batch_size")
    return source


Reader = Callable[[caffe_pb2.LayerParameter, Path, "Index | None"], Source]
"""reader(layer, prototxt, index) -> the source; `index` is that of the same layer in the driver, None there."""
_READERS: dict[str, Reader] = {}


def reads(layer_type: str) -> Callable[[Reader], Reader]:
    """Register what opens the data of a layer type, for plugins.  Raises ValueError for a type that is read already."""

    def register(reader: Reader) -> Reader:
        if layer_type in DATA_TYPES:
            raise ValueError(f"layer type {layer_type} is read already")
        _READERS[layer_type] = reader
        DATA_TYPES.add(layer_type)
        return reader

    return register


def _refuse_special(layer: caffe_pb2.LayerParameter, prototxt: Path) -> None:
    """Raise DataError for a path that is a pipe or a device, which could not be read twice, or not to an end."""
    for path in named_paths(layer, prototxt):
        for file in (path, path / "data.mdb"):
            if kind := special(file):
                raise DataError(f"{file}: is {kind}, not a file; name a file or a database")


def _opened(
    layer: caffe_pb2.LayerParameter,
    prototxt: Path,
    index: Index | None,
    arrays: Mapping[str, npt.NDArray[np.generic]] | None,
    skip_bad: bool,
    shipped: Shipped | None,
    room: MemoryBudget | None,
    missing: Mapping[int, str] | None,
    opened: Callable[[], None] | None,
) -> Source:
    """The source, as open_source has it."""
    if layer.type == "AnnotatedData":
        return AnnotatedSource(layer, prototxt, index, skip_bad, shipped, room)
    if layer.type == "Data":
        return DatabaseSource(layer, prototxt, index, skip_bad, shipped, room)
    if layer.type == "ImageData":
        return ImageSource(layer, prototxt, index, skip_bad, shipped, room, missing)
    if layer.type == "DenseImageData":
        return DenseImageSource(layer, prototxt, index, room)
    if layer.type == "ImageSegData":
        return ImageSegSource(layer, prototxt, index, room)
    if layer.type == "HDF5Data":
        from distcalib.data.hdf5 import Hdf5Source  # it imports h5py, which takes 0.08 s

        return Hdf5Source(layer, prototxt, index, opened)
    if layer.type == "DummyData":
        return DummySource(layer, prototxt)
    if layer.type == "Input":
        return FeedSource(layer, prototxt, arrays)
    if layer.type in _READERS:
        return _READERS[layer.type](layer, prototxt, index)
    reason = REFUSED_DATA.get(layer.type, f"is not a data layer; {', '.join(sorted(DATA_TYPES))} are")
    raise UnsupportedError(f"{prototxt}: layer '{layer.name}' ({layer.type}) {reason}")
