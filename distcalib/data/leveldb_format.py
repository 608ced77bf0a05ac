"""The files of a LevelDB, read: logs, manifests and tables.

Written after doc/log_format.md, doc/table_format.md and doc/impl.md of LevelDB, because there is no library to take:
plyvel 1.5 has wheels up to Python 3.12 and for x86_64 only; RocksDB, which could read the format, dropped it in version
11 (facebook/rocksdb#14315), and rocksdict writes a file into each database it reads. LevelDB itself locks a database
that it opens and rewrites its log, where here several actors of a node, or on a read-only disk, read one at a time.

Checksums are not compared: Caffe leaves that option off for tables too, and what a flipped bit hits is either found by
the structure around it or is a pixel."""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cramjam

from distcalib.caffe.paths import special
from distcalib.data.limits import over_limit

_LOG_BLOCK = 32768
_LOG_HEADER = struct.Struct("<IHB")  # checksum, length, type
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_FOOTER = 48
_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_TRAILER = 5  # after a block: its compression and its checksum
_PLAIN, _SNAPPY = 0, 1
VALUE = 1
"""The low byte of a tag: a value was put there; 0: the key was deleted."""


class Damaged(Exception):
    """What is wrong with a file of a LevelDB, worded to follow "PATH: "."""


def refuse_special(path: Path) -> None:
    """Raise Damaged for a pipe or a device, of which there may be no end."""
    if kind := special(path):
        raise Damaged(f"{path.name} is {kind}, not a file")


class Entry(NamedTuple):
    """A change of one key. Entries sort as LevelDB sorts them: by key, the newest first."""

    key: bytes
    minus_tag: int  # -(sequence number << 8 | VALUE or deletion)
    value: memoryview | LogSpan

    @property
    def is_value(self) -> bool:
        """Whether it puts a value; else it deletes the key."""
        return -self.minus_tag & 0xFF == VALUE


class LogSpan(NamedTuple):
    """A value in a log: bytes start .. end of the logical record that begins at `offset` of the file."""

    log: bytes | memoryview
    offset: int
    start: int
    end: int

    def read(self) -> memoryview:
        """Its bytes. A writer fills each block of the file to its end, so their places follow by arithmetic."""
        in_first = _LOG_BLOCK - self.offset % _LOG_BLOCK - _LOG_HEADER.size
        pieces, at = [], self.start
        while at < self.end:
            if at < in_first:
                place, left = self.offset + _LOG_HEADER.size + at, in_first - at
            else:
                block, inside = divmod(at - in_first, _LOG_BLOCK - _LOG_HEADER.size)
                place = (self.offset // _LOG_BLOCK + 1 + block) * _LOG_BLOCK + _LOG_HEADER.size + inside
                left = _LOG_BLOCK - _LOG_HEADER.size - inside
            taken = min(left, self.end - at)
            pieces.append(self.log[place : place + taken])
            at += taken
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, and where it ends. IndexError where there is none."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def chunk(data: bytes | memoryview, at: int) -> tuple[memoryview, int]:
    """The bytes at `at` that have their length before them, and where they end. IndexError as `varint`."""
    length, at = varint(data, at)
    if at + length > len(data):
        raise IndexError
    return memoryview(data)[at : at + length], at + length


def log_records(log: bytes | memoryview, name: str) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each logical record of a log. A last one that a crash cut short is left out."""
    at, begun, parts = 0, 0, list[bytes | memoryview]()
    while at + _LOG_HEADER.size <= len(log):
        left = _LOG_BLOCK - at % _LOG_BLOCK
        if left < _LOG_HEADER.size:
            at += left
            continue
        _, length, kind = _LOG_HEADER.unpack_from(log, at)
        if kind == 0 and length == 0:  # a file that was mapped for writing ends in zeros
            at += left
            continue
        end = at + _LOG_HEADER.size + length
        if end > len(log):
            return
        if length > left - _LOG_HEADER.size or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            raise Damaged(f"{name} is damaged at byte {at}")
        if (kind in (_FULL, _FIRST)) == bool(parts):
            raise Damaged(f"{name} is damaged at byte {at}: a part of a record is missing")
        begun = begun if parts else at
        parts.append(log[at + _LOG_HEADER.size : end])
        if kind in (_FULL, _LAST):
            yield begun, b"".join(parts)
            parts = []
        at = end


def log_entries(log: bytes | memoryview, name: str) -> Iterator[Entry]:
    """The changes in a log, in the order in which they were made; each logical record is a batch of them."""
    for offset, batch in log_records(log, name):
        try:
            sequence, count = struct.unpack_from("<QI", batch)
            at = 12
            for number in range(sequence, sequence + count):
                kind = batch[at]
                key, at = chunk(batch, at + 1)
                start = end = at
                if kind == VALUE:
                    value, end = chunk(batch, at)
                    start = end - len(value)
                at = end
                yield Entry(bytes(key), -(number << 8 | kind), LogSpan(log, offset, start, end))
        except (IndexError, struct.error) as error:
            raise Damaged(f"{name} is damaged in the batch at byte {offset}") from error


class Table:
    """A table: sorted entries in blocks, which an index block points to. The file is open while it is iterated.

    Raises Damaged. first, last: its least and greatest key, as the manifest tells them."""

    def __init__(self, path: Path, first: bytes, last: bytes) -> None:
        self.path = path
        self.first = first
        self.last = last
        self._index: list[tuple[bytes, int, int]] | None = None  # key not before those of a block, its offset and size

    def entries(self, key: bytes = b"") -> Iterator[Entry]:
        """From the first entry of `key` or a later key on."""
        try:
            refuse_special(self.path)
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise Damaged(f"{self.path.name} cannot be read ({error.strerror})") from error
        try:
            if self._index is None:
                self._index = self._read_index(file)
            start = bisect_left(self._index, (key,))
            for _, offset, size in self._index[start:]:
                block = self._block(file, offset, size)
                for internal, value in self._items(block, offset):
                    entry = _entry(internal, value)
                    if entry.key >= key:
                        yield entry
        finally:
            os.close(file)

    def _read_index(self, file: int) -> list[tuple[bytes, int, int]]:
        size = os.fstat(file).st_size
        footer = os.pread(file, _FOOTER, max(0, size - _FOOTER))
        if not footer.endswith(_MAGIC):
            raise Damaged(f"{self.path.name} ({size} bytes) does not end as a table does")
        index = []
        try:
            _, at = _handle(footer, 0)  # of the block of filters, which are of no use here
            (offset, size), _ = _handle(footer, at)
            for internal, value in self._items(self._block(file, offset, size), offset):
                (offset, size), _ = _handle(value, 0)
                index.append((internal[:-8], offset, size))
        except IndexError as error:
            raise Damaged(f"{self.path.name} has a damaged index") from error
        return index

    def _block(self, file: int, offset: int, size: int) -> memoryview:
        """A block's content, unpacked."""
        if offset + size + _TRAILER > os.fstat(file).st_size:
            raise Damaged(f"{self.path.name} is damaged: its block at byte {offset} runs over its end")
        raw = os.pread(file, size + _TRAILER, offset)
        content, compression = memoryview(raw)[:size], raw[size]
        if compression == _PLAIN:
            return content
        if compression != _SNAPPY:
            raise Damaged(f"{self.path.name} is compressed by method {compression} at byte {offset}, not by Snappy")
        try:
            if wrong := over_limit(varint(content, 0)[0]):
                raise Damaged(f"{self.path.name} has a block at byte {offset} that is {wrong}")
        except IndexError:
            raise Damaged(f"{self.path.name} is damaged at byte {offset}") from None
        try:
            return memoryview(cramjam.snappy.decompress_raw(content))
        except cramjam.DecompressionError as error:
            raise Damaged(f"{self.path.name} is damaged at byte {offset}") from error

    def _items(self, block: memoryview, offset: int) -> Iterator[tuple[bytes, memoryview]]:
        """Key and value of a block's entries; a key shares a prefix with the one before."""
        try:
            (n_restarts,) = struct.unpack_from("<I", block, len(block) - 4)
            end = len(block) - 4 * n_restarts - 4
            if end < 0:
                raise IndexError
            at, key = 0, b""
            while at < end:
                shared, at = varint(block, at)
                fresh, at = varint(block, at)
                length, at = varint(block, at)
                behind = at + fresh + length
                if shared > len(key) or shared + fresh < 8 or behind > end:
                    raise IndexError
                key = key[:shared] + bytes(block[at : at + fresh])
                yield key, block[at + fresh : behind]
                at = behind
        except (IndexError, struct.error) as error:
            raise Damaged(f"{self.path.name} is damaged in the block at byte {offset}") from error


def _handle(data: bytes | memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where they end."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _entry(internal: bytes, value: memoryview) -> Entry:
    return Entry(internal[:-8], -int.from_bytes(internal[-8:], "little"), value)
