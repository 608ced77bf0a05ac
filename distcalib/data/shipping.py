"""The driver's side of data that are sent: which records a run reads, how large they are, and the chunks.

Sent are the records as they are stored, before any decoding: the smallest form there is, and what the keys of a journal
are about.  Only those that the iterations of a run reach are sent, from the first record on, each once even where the
iterations wrap around."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import named_paths, resolve_path
from distcalib.data.database import open_records
from distcalib.data.datum import BadRecord, MachineFault
from distcalib.data.image_list import ImageList, Line
from distcalib.data.records import Record
from distcalib.data.shipped import Chunk, image_record
from distcalib.data.source import Index
from distcalib.errors import DataError

Layer = caffe_pb2.LayerParameter

CHUNK_BYTES = 64 * 2**20
"""Of records in a chunk, at least one of them. The driver holds two beside the object store: the one that was sent last
and the one that is filled."""

_FILES = ("mean_file", "name_size_file")  # what actors read beside records

UNSHIPPABLE: Mapping[str, str] = {
    "HDF5Data": "reads HDF5 files, which are not sent; put them where every node opens them, or write an LMDB",
}
"""Data layer types that cannot be sent: what is, and what would do."""


@dataclass(frozen=True)
class Shipment:
    """What the first `n_iterations` iterations of the data layers among `layers` read; `indexes` are those of their
    sources, by layer name."""

    layers: Sequence[Layer]
    prototxt: Path
    indexes: Mapping[str, Index | None]
    n_iterations: int

    @cached_property
    def n_bytes(self) -> int:
        """Of all records, by a pass that leaves images, and the values of an LMDB, where they are. Raises DataError."""
        return sum(
            size for layer in self.layers if layer.type in _KINDS for size in _KINDS[layer.type].sizes(self, layer)
        )

    def files(self) -> dict[str, bytes]:
        """The contents of the single files that actors read, by absolute path. Raises DataError."""
        contents = {}
        for layer in self.layers:
            for path in named_paths(layer, self.prototxt, _FILES):
                try:
                    contents[str(path.resolve())] = path.read_bytes()
                except OSError as error:
                    raise DataError(f"{path}: cannot be read: {error.strerror}; correct its path") from error
        return contents

    def chunks(self) -> Iterator[Chunk]:
        """All records, layer by layer, each chunk made when it is asked for. Raises DataError."""
        for layer in self.layers:
            if layer.type in _KINDS:
                yield from _packed(layer.name, _KINDS[layer.type].records(self, layer))


def _packed(name: str, records: Iterable[Record]) -> Iterator[Chunk]:
    """The records in chunks."""
    first, ends, content = 0, array("q"), bytearray()
    for key, value in records:
        if ends and len(content) + len(key) + len(value) > CHUNK_BYTES:
            yield _chunk(name, first, ends, content)
            first, ends, content = first + len(ends) // 2, array("q"), bytearray()
        for part in (key, value):
            content += part
            ends.append(len(content))
    if ends:
        yield _chunk(name, first, ends, content)


def _chunk(name: str, first: int, ends: array[int], content: bytearray) -> Chunk:
    return Chunk(name, first, np.frombuffer(ends, np.int64), np.frombuffer(content, np.uint8))


def _database_records(shipment: Shipment, layer: Layer) -> Iterator[Record]:
    param = layer.data_param
    records = open_records(param, shipment.prototxt, shipment.indexes[layer.name])
    try:
        for number in range(min(records.n_records, shipment.n_iterations * int(param.batch_size))):
            yield from records.read(number, 1)  # one at a time: a LevelDB gives copies, and one may have some MB
    finally:
        records.close()


def _database_sizes(shipment: Shipment, layer: Layer) -> Iterator[int]:
    return (len(key) + len(value) for key, value in _database_records(shipment, layer))


def _lines(shipment: Shipment, layer: Layer) -> Iterator[tuple[ImageList, Line]]:
    param = layer.image_data_param
    source = resolve_path(param.source, shipment.prototxt)
    images = ImageList(source, param.root_folder, shipment.prototxt, shipment.indexes[layer.name])
    for line in images.beginning(shipment.n_iterations * int(param.batch_size)):
        yield images, line


def _image_records(shipment: Shipment, layer: Layer) -> Iterator[Record]:
    for images, line in _lines(shipment, layer):
        try:
            yield image_record(line, images.contents(line))
        except MachineFault as error:  # it says nothing of the data, and actors could not read it again
            raise DataError(f"{images.path}: line {line.number}: image '{line.file}' {error}") from error
        except BadRecord as error:
            yield image_record(line, error)


def _image_sizes(shipment: Shipment, layer: Layer) -> Iterator[int]:
    for _, line in _lines(shipment, layer):
        try:
            yield len(line.file) + os.stat(line.file).st_size
        except (OSError, ValueError):  # as when it is read: it goes without contents
            yield len(line.file)


class _Kind(NamedTuple):
    """How a type of layer is sent."""

    records: Callable[[Shipment, Layer], Iterator[Record]]
    sizes: Callable[[Shipment, Layer], Iterator[int]]


_KINDS = {
    "AnnotatedData": _Kind(_database_records, _database_sizes),
    "Data": _Kind(_database_records, _database_sizes),
    "ImageData": _Kind(_image_records, _image_sizes),
}
