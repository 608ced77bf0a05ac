"""Protobuf's wire format, as much of it as large weights need: where each field lies, and tags and lengths.

protobuf parses a message by copying all of it; a walk that only notes positions leaves half a gigabyte of weights
in the page cache. Format: https://protobuf.dev/programming-guides/encoding/"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

VARINT, I64, LEN, I32 = 0, 1, 2, 5
WIDTHS = {I64: 8, I32: 4}


class WireError(Exception):
    """The bytes at offset `at` are no field; `short_by` bytes are missing if the message merely ends too early."""

    def __init__(self, at: int, short_by: int = 0) -> None:
        super().__init__(at, short_by)
        self.at = at
        self.short_by = short_by


class Field(NamedTuple):
    """One field, or a run of fixed-width fields of one number: tag at `at`, payload from `start` to `end`.

    A run (what an unpacked repeated float is: tag, value, tag, value ...) has its further tags inside the payload."""

    number: int
    wire: int
    at: int
    start: int
    end: int


def walk(view: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in view[start:end], in file order; WireError where they do not add up."""
    while start < end:
        tag, value = read_varint(view, start, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32:
            raise WireError(start)
        if wire == VARINT:
            stop = read_varint(view, value, end)[1]
        elif wire == LEN:
            length, value_at = read_varint(view, value, end)
            value, stop = value_at, value_at + length
        elif wire in WIDTHS:
            stop = value + WIDTHS[wire]
            if value - start == 1 and stop < end:
                stop = _end_of_run(view, start, end, WIDTHS[wire])
        else:
            raise WireError(start)
        if stop > end:
            raise WireError(start, stop - end)
        yield Field(number, wire, start, value, stop)
        start = stop


def _end_of_run(view: memoryview, start: int, end: int, width: int) -> int:
    """Where the fixed-width fields end that begin at `start` and follow each other with the same one-byte tag.

    A loop in Python would take a minute for the 60 million floats of an AlexNet of 2013."""
    n_whole = (end - start) // (width + 1)
    if n_whole == 0:
        return start + 1 + width
    tags = strided(view, start, n_whole, np.dtype(np.uint8), width + 1)
    others = tags != tags[0]
    n_run = int(others.argmax()) if others.any() else n_whole
    return start + n_run * (width + 1)


def strided(view: memoryview, start: int, n: int, dtype: np.dtype[Any], stride: int) -> npt.NDArray[Any]:
    """A view of n items of `dtype`, one every `stride` bytes from `start`."""
    array: npt.NDArray[Any] = np.ndarray((n,), dtype, buffer=view, offset=start, strides=(stride,))
    return array


def read_varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and the offset behind it; WireError if it passes `end` or is longer than ten bytes."""
    value = 0
    for i in range(10):
        if at + i >= end:
            raise WireError(at, 1)
        byte = view[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise WireError(at)


def varint(value: int) -> bytes:
    """`value` (not negative) in seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(number: int, length: int) -> bytes:
    """Tag and length of a field that `length` bytes of payload follow."""
    return varint(number << 3 | LEN) + varint(length)
