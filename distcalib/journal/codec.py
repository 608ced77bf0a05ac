"""Rows as bytes, exactly, and back: what the journal keeps.

A JSON header, which says what is where, then the arrays as they are in memory, little-endian; compressed.  Python
writes floats so that they read back as the same number, NaN and infinity too.  Partial scores come in kinds; one that
is not in KINDS is refused, as is a header of another FORMAT.
"""

import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.data import LeftOut
from distcalib.engine.spec import Row
from distcalib.metrics import ByImage, Confusion, Detections, Partial, PartialScore
from distcalib.quantize.histogram import Histogram
from distcalib.quantize.ranges import Range

FORMAT = 5
"""Of all that is written here; a part of every key, so that rows of another format are never asked for."""

MOST_BYTES = 2**28
"""Of a row when it is unpacked; a net's histograms are some megabytes. A damaged file may claim anything."""

_DTYPE = re.compile(r"[<|][biuf][0-9]{1,2}")
"""What `encode` writes; NumPy takes other texts for programs (ast)."""

_LENGTH = struct.Struct("<I")


class _Arrays:
    """The arrays of a row; its header has their numbers."""

    def __init__(self) -> None:
        self.described: list[tuple[str, list[int]]] = []
        self.parts: list[bytes] = []

    def add(self, array: NDArray[Any]) -> int:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if little.dtype.hasobject:
            raise TypeError("an array of objects has no bytes")
        self.described.append((little.dtype.str, list(array.shape)))
        self.parts.append(little.tobytes())
        return len(self.parts) - 1


Found = list[NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """How a kind of partial score is written: as what JSON can say, its arrays aside."""

    type: type[Any]
    encode: Callable[[Any, _Arrays], object]
    decode: Callable[[Any, Found], PartialScore]


def _encode_detections(part: Detections, arrays: _Arrays) -> object:
    numbers = [arrays.add(array) for array in (part.labels, part.scores, part.hits)]
    positives = [[int(label), int(n)] for label, n in part.positives.items()]
    return [*numbers, positives]


def _decode_detections(stored: Any, arrays: Found) -> Detections:
    labels, scores, hits, positives = stored
    return Detections(arrays[labels], arrays[scores], arrays[hits], dict(positives))


def _by_class(part: Partial) -> list[object]:
    """The counts by class, where there are some."""
    return [[list(one) for one in part.by_class]] if part.by_class else []


def _counts(stored: Any) -> tuple[tuple[int, int], ...]:
    """What `_by_class` wrote."""
    return tuple((int(n), int(hits)) for one in stored for n, hits in one)


KINDS: Mapping[str, Kind] = {
    "mean": Kind(
        Partial,
        lambda part, _: [_number(part.numerator), int(part.denominator), int(part.n_records), *_by_class(part)],
        lambda stored, _: Partial(_number(stored[0]), *map(int, stored[1:3]), by_class=_counts(stored[3:])),
    ),
    "confusion": Kind(
        Confusion,
        lambda part, _: [list(part.labelled), list(part.predicted), list(part.hits)],
        lambda stored, _: Confusion(*(tuple(int(n) for n in column) for column in stored)),
    ),
    "detections": Kind(Detections, _encode_detections, _decode_detections),
}


def encode(row: object) -> bytes:
    """A Row, or the tuple of Rows that a slice of Caffe's gives.  Raises TypeError for what has no format here."""
    arrays = _Arrays()
    if isinstance(row, tuple):
        body: object = {"rows": [_encode_row(one, arrays) for one in row]}
    else:
        body = {"row": _encode_row(row, arrays)}
    header = json.dumps({"format": FORMAT, "arrays": arrays.described, **body}, separators=(",", ":")).encode()  # type: ignore[dict-item]
    return zlib.compress(b"".join([_LENGTH.pack(len(header)), header, *arrays.parts]), 1)


def decode(payload: bytes) -> Row | tuple[Row, ...]:
    """What `encode` was given.  Raises ValueError for what it did not write."""
    try:
        return _decode(payload)
    except (zlib.error, struct.error, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no row: {type(error).__name__}") from None


def _decode(payload: bytes) -> Row | tuple[Row, ...]:
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(payload, MOST_BYTES)
    if not unpacking.eof:
        raise ValueError(f"no row: more than {MOST_BYTES:,} bytes, or not all of it")
    begin = _LENGTH.size + _LENGTH.unpack_from(plain)[0]
    header = json.loads(plain[_LENGTH.size : begin])
    if header["format"] != FORMAT:
        raise ValueError(f"a row of format {header['format']}, and this distcalib knows {FORMAT}")
    arrays: Found = []
    for dtype, shape in header["arrays"]:
        if not _DTYPE.fullmatch(dtype) or any(size < 0 for size in shape):
            raise ValueError("no row: an array of another type or size")
        array = np.frombuffer(plain, dtype, prod(shape), begin)
        begin += array.nbytes
        arrays.append(array.reshape(shape).astype(array.dtype.newbyteorder("="), copy=True))
    if "rows" in header:
        return tuple(_decode_row(stored, arrays) for stored in header["rows"])
    return _decode_row(header["row"], arrays)


def _encode_row(row: object, arrays: _Arrays) -> dict[str, object]:
    if not isinstance(row, Row):
        raise TypeError(f"{type(row).__name__}: is not a Row; add its format to {__name__}")
    return {
        "scores": [[name, *_encode_score(part, arrays)] for name, part in row.scores.items()],
        "ranges": [_encode_range(observed, arrays) for observed in row.ranges],
        "kernels": None if row.kernels is None else dict(row.kernels),
        "values": [[blob.name, blob.version, arrays.add(array)] for blob, array in row.values.items()],
        "distances": {name: _number(value) for name, value in row.distances.items()},
        "seconds": {name: _number(value) for name, value in row.seconds.items()},
        "whole_seconds": _number(row.whole_seconds),
        "by_image": _encode_images(row.by_image, arrays),
        "left_out": [[one.layer, one.number, one.key, one.reason] for one in row.left_out],
        "n_missing": row.n_missing,
    }


def _decode_row(stored: Mapping[str, Any], arrays: Found) -> Row:
    return Row(
        {name: _decode_score(kind, part, arrays) for name, kind, part in stored["scores"]},
        tuple(_decode_range(item, arrays) for item in stored["ranges"]),
        None if stored["kernels"] is None else {str(name): str(kernel) for name, kernel in stored["kernels"].items()},
        {Blob(name, version): arrays[number] for name, version, number in stored["values"]},
        {name: _number(value) for name, value in stored["distances"].items()},
        {name: _number(value) for name, value in stored["seconds"].items()},
        _number(stored["whole_seconds"]),
        tuple(LeftOut(str(layer), number, str(key), str(reason)) for layer, number, key, reason in stored["left_out"]),
        _decode_images(stored["by_image"], arrays),
        int(stored["n_missing"]),
    )


def _encode_images(images: ByImage | None, arrays: _Arrays) -> list[int] | None:
    return None if images is None else [arrays.add(part) for part in (images.rows, images.hits, images.margins)]


def _decode_images(stored: Any, arrays: Found) -> ByImage | None:
    if stored is None:
        return None
    rows, hits, margins = (arrays[number] for number in stored)
    if not (rows.ndim == 1 and rows.shape == hits.shape == margins.shape):
        raise ValueError("no row: what it says of its images is not of as many")
    return ByImage(rows, hits, margins)


def _encode_score(part: PartialScore, arrays: _Arrays) -> tuple[str, object]:
    for name, kind in KINDS.items():
        if type(part) is kind.type:
            return name, kind.encode(part, arrays)
    raise TypeError(
        f"{type(part).__name__}: is not a kind of partial score that can be stored; add it to {__name__}.KINDS"
    )


def _decode_score(kind: str, stored: object, arrays: Found) -> PartialScore:
    if kind not in KINDS:
        raise ValueError(f"a partial score of the unknown kind '{kind}'")
    return KINDS[kind].decode(stored, arrays)


def _encode_range(observed: Range, arrays: _Arrays) -> list[object]:
    histogram = observed.histogram
    return [
        _number(observed.low),
        _number(observed.high),
        [_number(value) for value in observed.maxima],
        [_number(value) for value in observed.percentiles],
        None if histogram is None else [arrays.add(histogram.counts), int(histogram.exponent)],
    ]


def _decode_range(stored: Any, arrays: Found) -> Range:
    low, high = (_number(value) for value in stored[:2])
    maxima, percentiles = (tuple(map(_number, values)) for values in stored[2:4])
    [histogram] = stored[4:]
    made = None if histogram is None else Histogram(arrays[histogram[0]], histogram[1])
    return Range(low, high, maxima, percentiles, made)


def _number(value: float | int) -> float | int:
    """`value` as Python's own int or float; a float32 is a float64 of the same value."""
    return int(value) if isinstance(value, (int, np.integer)) else float(value)
