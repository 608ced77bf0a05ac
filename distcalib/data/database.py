"""The `Data` layer: a database of Datums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.datum import BadRecord, Pixels, parse_datum, stacked, times
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.left_out import Bad, Reading
from distcalib.data.leveldb_records import LevelDbRecords
from distcalib.data.lmdb_records import LmdbRecords
from distcalib.data.records import Record, Records, key_text
from distcalib.data.shipped import Shipped, ShippedRecords, files_of
from distcalib.data.source import Index
from distcalib.data.transform import Transform, Whole
from distcalib.errors import DataError

_V = TypeVar("_V")
# distcalib.caffe moves them when it reads a file; a layer made by hand may still have them.
_MOVED = ("scale", "mean_file", "crop_size", "mirror")


class DatabaseSource(KeepingSource):
    """Images (N, C, H, W) and labels (N,) of an LMDB or a LevelDB, transformed.

    The first record decides the shape, as in Caffe. Raises DataError for a database that cannot be used and for what
    the layer asks that is not done; `batch` names the key of a record that is at fault. `skip_bad`: the first good
    record decides."""

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        skip_bad: bool = False,
        shipped: Shipped | None = None,
        room: MemoryBudget | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        super().__init__(where, room)
        param = layer.data_param
        faults = database_faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        self._transform = transform_of(layer, where, prototxt, files_of(shipped))
        self._records = layer_records(layer, prototxt, index, shipped)
        self.tops = tuple(layer.top)
        self.batch_size = int(param.batch_size)
        self._image_shape: tuple[int, ...] = ()  # not known yet
        self._reading = database_reading(layer.name, self._records, skip_bad, self._decoded)
        try:
            first, _ = self._reading.first(first_records(self._records, self.batch_size, skip_bad))
        except DataError:
            self._records.close()
            raise
        self._image_shape = first.shape
        self.shapes = self._shapes(first.shape, (self.batch_size,))

    @property
    def index(self) -> Index:
        """The sparse index of the database; made now if it was not given."""
        return self._records.index

    def _decode(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> Decoded:
        first = iteration * self.batch_size
        decoded = self._reading.rows(first, self._records.read(first, self.batch_size), bad, rows)
        labels = np.array([label for _, label in decoded], np.float32)
        return Decoded(stacked([pixels for pixels, _ in decoded]), labels, bad or {})

    def key(self, number: int) -> str:
        """See NamingSource."""
        return self._reading.named(self._records.read(number, 1)[0])

    def close(self) -> None:
        """Close the database."""
        self._records.close()

    def _images(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> list[Pixels]:
        first = iteration * self.batch_size
        reading = self._reading.making(lambda record, _: self._read(record)[0].image)
        return reading.rows(first, self._records.read(first, self.batch_size), bad, rows)

    def _decoded(self, record: Record, row: int) -> tuple[Pixels, int]:
        """One record's pixels (C, H, W), untransformed, and its label. Raises BadRecord."""
        _, pixels, label = self._read(record)
        return pixels, label

    def _read(self, record: Record) -> tuple[Whole, Pixels, int]:
        """One record before and after it is cropped, and its label. Raises BadRecord."""
        datum = parse_datum(record[1])
        whole = self._transform.whole(datum)
        pixels = self._transform.centre(whole)
        if pixels.shape != self._image_shape and self._image_shape:
            raise BadRecord(
                f"gives {times(pixels.shape)} values where the first record gives {times(self._image_shape)}; "
                "set crop_size or resize_param to make sizes equal, force_color for channels"
            )
        return whole, pixels, datum.label


def database_reading(
    layer: str, records: Records, skip_bad: bool, decode: Callable[[Record, int], _V]
) -> Reading[Record, _V]:
    """How the data layer `layer` reads `records`: they are known by their keys."""
    return Reading(
        layer,
        str(records.path),
        skip_bad,
        n_records=lambda: records.n_records,
        decode=decode,
        told=lambda record: f"record {key_text(record[0])}",
        key=lambda record: key_text(record[0]),
    )


def first_records(records: Records, batch_size: int, skip_bad: bool) -> Iterable[Record]:
    """Those that may decide the shape: the first, or the first good one of an iteration."""
    return records.read(0, min(batch_size, records.n_records)) if skip_bad else (records.first(),)


def layer_records(
    layer: caffe_pb2.LayerParameter, prototxt: Path, index: Index | None, shipped: Shipped | None
) -> Records:
    """The records of a layer that reads a database, opened or as they were sent. Raises DataError."""
    if shipped is None:
        return open_records(layer.data_param, prototxt, index)
    return ShippedRecords(resolve_path(layer.data_param.source, prototxt), index, shipped.of(layer.name))


def open_records(param: caffe_pb2.DataParameter, prototxt: Path, index: Index | None = None) -> Records:
    """The database that `param` names. Raises DataError."""
    backend = LmdbRecords if param.backend == param.LMDB else LevelDbRecords
    return backend(resolve_path(param.source, prototxt), index)


def transform_of(
    layer: caffe_pb2.LayerParameter, where: str, prototxt: Path, files: Mapping[str, bytes] | None = None
) -> Transform:
    """What a layer that reads a database does to its images; `files` as Transform has them. Raises DataError."""
    param = caffe_pb2.TransformationParameter()
    param.CopyFrom(layer.transform_param)
    if layer.data_param.force_encoded_color:
        param.force_color = True
    return Transform(param, where, prototxt, files)


def database_faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What a layer that reads a database asks that is not done, each with its remedy."""
    param = layer.data_param
    faults = []
    if not 1 <= len(layer.top) <= 2:
        faults.append(f"has {len(layer.top)} tops; give one for the images and, if wanted, one for the labels")
    if not param.source:
        faults.append("data_param has no source; name the folder of the database")
    if not param.batch_size:
        faults.append("data_param has no batch_size; give the number of records an iteration")
    if param.rand_skip:
        faults.append(
            f"rand_skip: {param.rand_skip} begins at a random record, so no score could be measured twice; take it out"
        )
    if param.side:
        faults.append("side is for labels of boxes and not done; take it out")
    moved = [name for name in _MOVED if param.HasField(name)]
    faults += [f"data_param.{name} is of an old format; write it in transform_param" for name in moved]
    return faults
