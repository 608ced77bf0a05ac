"""Read the blobs of a caffemodel without copying them.

The file is mapped into memory and walked field by field; packed float data, the rule since 2014, become read-only
numpy views into the map, so that VGG-16 (528 MB) costs page cache and not memory. Only what is not stored so is copied:
unpacked floats of old files and doubles. tests/caffe/test_weights.py compares with protobuf's own parsing."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import not_utf8, special
from distcalib.caffe.reading import HDF5_MAGIC, LFS_MAGIC, cannot_read, is_text
from distcalib.caffe.wire import I32, I64, LEN, WIDTHS, Field, WireError, read_varint, strided, walk
from distcalib.errors import FormatError, told

#: Layer name -> its blobs, float32, read-only, in the shape that is stored (4-D for the format before 2015).
Weights = Mapping[str, tuple[npt.NDArray[np.float32], ...]]

_NET = caffe_pb2.NetParameter.DESCRIPTOR.fields_by_name
_LAYER, _LAYERS = _NET["layer"].number, _NET["layers"].number
#: Numbers of (name, blobs, the message that may hold both in its place) in a layer message of each format.
_V2, _V1, _V0 = (1, 7, None), (4, 6, 1), (1, 50, None)
#: Field -> type of its values, for the two that hold a blob's data; gradients (diff) are passed over.
_DATA, _DOUBLE = 5, 8
_SKIPPED = (6, 9)
_DTYPES: dict[int, np.dtype[Any]] = {_DATA: np.dtype("<f4"), _DOUBLE: np.dtype("<f8")}
#: SolverState and a mean file begin with a number as field 1; in a net that is its name.
_NOT_A_NET = b"\x08"
_AGAIN = "copy or download it again"


@dataclass
class _Layer:
    """What the walk finds of one layer: its name and the byte ranges of its blobs."""

    name: str = ""
    blobs: list[Field] = field(default_factory=list)


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """All blobs of a caffemodel by layer name, in file order; layers without blobs are left out.

    Arrays are little-endian float32, read-only, possibly not aligned to four bytes, and keep the file mapped as
    long as they live. Of layers of one name the last with blobs counts: Caffe copies each in turn onto the same layer.
    FormatError names the file and the byte where it is truncated or damaged, or every blob whose values are not as
    many as its shape says."""
    where = os.fspath(path)
    content = _map(where)
    _refuse_other_formats(content, where)
    with told(FormatError, where, _AGAIN):
        return _read(memoryview(content), where)


def _read(view: memoryview, where: str) -> Weights:
    """All blobs of the caffemodel in `view`; see read_weights."""
    weights: dict[str, tuple[npt.NDArray[np.float32], ...]] = {}
    problems: list[str] = []
    for layer in _layers(view, where):
        blobs = []
        for i, place in enumerate(layer.blobs):
            try:
                blobs.append(_blob(view, place))
            except WireError as error:
                raise FormatError(_damaged(where, error, layer)) from None
            except ValueError as error:
                problems.append(f"layer '{layer.name}', blob {i}: {error}")
        if blobs:
            weights.pop(layer.name, None)
            weights[layer.name] = tuple(blobs)
    if problems:
        raise FormatError(f"{where}: {'; '.join(problems)}; save the weights again from the framework that made them")
    return weights


def _map(where: str) -> mmap.mmap:
    if wrong := not_utf8(where):
        raise FormatError(f"{where}: {wrong}")
    if kind := special(where):
        raise FormatError(f"{where}: is {kind}, not a file; write it to a file first")
    try:
        with open(where, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(f"{where}: is empty; {_AGAIN}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise FormatError(cannot_read(where, error)) from None


def _refuse_other_formats(content: mmap.mmap, where: str) -> None:
    head = content[:4096]
    if head.startswith(HDF5_MAGIC):
        raise FormatError(
            f"{where}: is a caffemodel in HDF5; only binary protobuf is read, so load it in pycaffe and "
            "net.save('NAME.caffemodel')"
        )
    if head.startswith(LFS_MAGIC):
        raise FormatError(f"{where}: is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    if is_text(head):
        raise FormatError(f"{where}: is text, not weights; give the binary .caffemodel")
    if head.startswith(_NOT_A_NET):
        raise FormatError(f"{where}: is a solver state or a mean file, not weights; give the .caffemodel")


def _layers(view: memoryview, where: str) -> list[_Layer]:
    """The layers of the net in `view`; FormatError if the file is cut off, damaged or something else."""
    places = []
    try:
        for place in walk(view, 0, len(view)):
            if place.number in (_LAYER, _LAYERS) and place.wire == LEN:
                places.append(place)
    except WireError as error:
        raise FormatError(f"{where}: {_broken(view, error, not places)}") from None
    if not places:
        raise FormatError(f"{where}: has no layers; give the .caffemodel that belongs to the net")
    layers = []
    for place in places:
        layer = _Layer()
        try:
            _scan(view, place.start, place.end, _V2 if place.number == _LAYER else _V1, layer)
        except WireError as error:
            raise FormatError(_damaged(where, error, layer)) from None
        layers.append(layer)
    return layers


def _scan(view: memoryview, start: int, end: int, numbers: tuple[int, int, int | None], layer: _Layer) -> None:
    """Note name and blobs of the layer message in view[start:end]; what comes later adds, as protobuf merges."""
    name, blobs, inner = numbers
    for place in walk(view, start, end):
        if place.wire != LEN:
            continue
        if place.number == name:
            layer.name = bytes(view[place.start : place.end]).decode("utf-8", "replace")
        elif place.number == blobs:
            layer.blobs.append(place)
        elif place.number == inner:
            _scan(view, place.start, place.end, _V0, layer)


def _broken(view: memoryview, error: WireError, at_first: bool) -> str:
    """What is wrong with a file whose fields do not add up: cut off (in which layer?), damaged, or no caffemodel."""
    size = len(view)
    if error.short_by:
        tag, behind = _varint_or_end(view, error.at)
        known = caffe_pb2.NetParameter.DESCRIPTOR.fields_by_number.get(tag >> 3)
        layer = _Layer()
        if tag in (_LAYER << 3 | LEN, _LAYERS << 3 | LEN):
            with contextlib.suppress(WireError):
                start = read_varint(view, behind, size)[1]
                _scan(view, start, size, _V2 if tag >> 3 == _LAYER else _V1, layer)
        if known is not None or behind == size:
            inside = f" in layer '{layer.name}'" if layer.name else ""
            return (
                f"is cut off at byte {size}{inside}; the message that begins at byte {error.at} needs {error.short_by} "
                f"more; {_AGAIN}"
            )
    if at_first:
        return f"is not a caffemodel (byte {error.at} begins no field of a net); give the binary .caffemodel"
    return f"is damaged at byte {error.at} of {size}; {_AGAIN}"


def _damaged(where: str, error: WireError, layer: _Layer) -> str:
    return f"{where}: is damaged at byte {error.at}, in layer '{layer.name}'; {_AGAIN}"


def _varint_or_end(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at` and the offset behind it, or 0 and the end if the file ends in it."""
    try:
        return read_varint(view, at, len(view))
    except WireError:
        return 0, len(view)


def _blob(view: memoryview, place: Field) -> npt.NDArray[np.float32]:
    """The blob whose message is at `place`; ValueError if values and shape differ in number."""
    pieces: dict[int, list[npt.NDArray[Any]]] = {_DATA: [], _DOUBLE: []}
    rest = bytearray()
    for part in walk(view, place.start, place.end):
        if part.number in pieces:
            pieces[part.number].append(_values(view, part))
        elif part.number not in _SKIPPED:
            rest += view[part.at : part.end]
    try:
        shape = _shape(caffe_pb2.BlobProto.FromString(bytes(rest)))
    except DecodeError:
        raise WireError(place.start) from None
    # doubles win, as in Caffe's Blob::FromProto
    data = _joined(pieces[_DOUBLE] or pieces[_DATA])
    needed = int(np.prod(shape, dtype=object))
    if data.size != needed or min(shape, default=0) < 0:
        raise ValueError(f"holds {data.size} values where its shape {shape} needs {needed}")
    array = data.reshape(shape)
    array.flags.writeable = False
    return array


def _values(view: memoryview, part: Field) -> npt.NDArray[Any]:
    """The numbers of one packed field (a view), or of a run of unpacked ones (a copy)."""
    dtype = _DTYPES[part.number]
    if part.wire == LEN:
        if (part.end - part.start) % dtype.itemsize:
            raise WireError(part.at)
        return np.frombuffer(view[part.start : part.end], dtype)
    if part.wire not in (I32, I64) or WIDTHS[part.wire] != dtype.itemsize:
        raise WireError(part.at)
    stride = dtype.itemsize + 1
    n = (part.end - part.start + 1) // stride
    values: npt.NDArray[Any] = strided(view, part.start, n, dtype, stride).copy()
    return values


def _joined(pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    if not pieces:
        return np.empty(0, np.float32)
    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return whole.astype(np.float32, copy=False)


def _shape(blob: caffe_pb2.BlobProto) -> tuple[int, ...]:
    """Any of num, channels, height, width makes it 4-D, even beside a shape (Caffe's Blob::FromProto)."""
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)
