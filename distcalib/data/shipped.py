"""What an actor reads in place of the files of the data: chunks of records that the driver has sent.

They lie in the object store, once a node, and are read in place.  Of a database a record is its key and value; of an
image list it is a line and the bytes of its file, or why the driver could not read that, so that the same sentence
comes from an actor whichever way the data travel.  Decoding and transforming stay with the actors."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distcalib.data.datum import BadRecord
from distcalib.data.image_list import Line, name_in
from distcalib.data.records import Record, Records
from distcalib.data.source import Index, KeyIndex, LineIndex


@dataclass(frozen=True)
class Chunk:
    """Some records of `layer`, from record `first` on: keys and values in turn in `content` (bytes, u8), one after
    the other; `ends` (2 n,) int64 is where each of them ends."""

    layer: str
    first: int
    ends: npt.NDArray[np.int64]
    content: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ends) // 2

    def record(self, number: int) -> Record:
        """Key and value of record `number` of the data, as views."""
        place = 2 * (number - self.first)
        begin = int(self.ends[place - 1]) if place else 0
        middle, end = map(int, self.ends[place : place + 2])
        content = self.content.data
        return content[begin:middle], content[middle:end]


@dataclass(frozen=True)
class Shipped:
    """All that was sent of the data of a net; `files`: the contents of single files, by absolute path."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    chunks: Sequence[Chunk] = ()

    def of(self, layer: str) -> Sequence[Chunk]:
        """The chunks of a layer, in the order of their records."""
        return [chunk for chunk in self.chunks if chunk.layer == layer]


def files_of(shipped: Shipped | None) -> Mapping[str, bytes]:
    """The files that came along; none where the data did not come."""
    return {} if shipped is None else shipped.files


class ShippedRecords(Records):
    """The first records of the database that is at `path` for the driver, from `chunks`.

    There are as many as the database has, as far as wrapping around is concerned.  To read one that was not sent is
    a mistake of the caller's, and raises LookupError."""

    def __init__(self, path: Path, index: Index | None, chunks: Sequence[Chunk]) -> None:
        if not isinstance(index, KeyIndex):
            raise TypeError(f"{path}: what was sent comes with an index of keys, not {type(index).__name__}")
        super().__init__(path, index)
        self._chunks = _Chunks(chunks)

    def close(self) -> None:
        """Let go of the chunks."""
        self._rest, self._position = iter(()), -1
        self._chunks = _Chunks(())

    def _scan(self) -> KeyIndex:
        raise AssertionError(f"{self.path}: the index was given")

    def _from(self, key: bytes | None) -> Iterator[Record]:
        assert key is None, "others are sought by number"
        return self._starting(0)

    def _seek(self, position: int) -> None:
        self._rest, self._position = self._starting(position), position

    def _starting(self, position: int) -> Iterator[Record]:
        while True:
            yield self._chunks.record(position)
            position += 1


class ShippedImages:
    """The first lines of the image list that is at `path` for the driver, with the bytes of the files; an ImageList
    in all that an ImageSource does with one."""

    def __init__(self, path: Path, index: Index | None, chunks: Sequence[Chunk]) -> None:
        if not isinstance(index, LineIndex):
            raise TypeError(f"{path}: what was sent comes with an index of lines, not {type(index).__name__}")
        self.path = path
        self.index = index
        self._chunks = _Chunks(chunks)

    def read(self, first: int, count: int) -> list[Line]:
        """`count` lines from record `first` (from 0) on; after the last comes the first again."""
        return [self._line(number % self.index.n_records) for number in range(first, first + count)]

    def name(self, line: Line) -> str:
        """The image's name as it stands in the list."""
        return name_in(self.index, line)

    def contents(self, line: Line) -> bytes:
        """The bytes of a line's file. Raises BadRecord as the driver would have."""
        key, value = self._chunks.record(line.number - 1)
        if not _is_read(key):
            raise BadRecord(bytes(value).decode())
        return bytes(value)

    def _line(self, number: int) -> Line:
        _, label, file = bytes(self._chunks.record(number)[0]).split(b" ", 2)
        return Line(number + 1, os.fsdecode(file), int(label))


def image_record(line: Line, contents: bytes | BadRecord) -> Record:
    """A line of an image list as a record: what is in its file, or what is wrong with that."""
    if isinstance(contents, BadRecord):
        return _image_key(line, False), str(contents).encode()
    return _image_key(line, True), contents


def _image_key(line: Line, is_read: bool) -> bytes:
    return b"%d %d %s" % (is_read, line.label, os.fsencode(line.file))


def _is_read(key: bytes | memoryview) -> bool:
    return bytes(key[:1]) == b"1"


class _Chunks:
    """Chunks that follow one another, as one row of records."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._firsts = [chunk.first for chunk in chunks]

    def record(self, number: int) -> Record:
        """Raises LookupError for one that was not sent."""
        place = bisect_right(self._firsts, number) - 1
        if place < 0 or number >= self._firsts[place] + len(self._chunks[place]):
            raise LookupError(f"record {number} was not sent")
        return self._chunks[place].record(number)
