"""Write nets as text, and any file so that it is whole or not there.

The text is protobuf's own, fields in the order of their numbers and floats in the fewest digits that read back
as the same float32, so a scale survives any number of round trips and equal nets give equal bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.forks import FOREIGN
from distcalib.errors import OutputError

StrPath = str | os.PathLike[str]
Buffer = bytes | memoryview


def net_text(net: caffe_pb2.NetParameter) -> str:
    """The prototxt text of `net`; deterministic, ends with a newline, non-ASCII names as they are."""
    if any(layer.type.endswith(FOREIGN) for layer in net.layer):
        plain = caffe_pb2.NetParameter()
        plain.CopyFrom(net)
        for layer in plain.layer:
            layer.type = layer.type.removesuffix(FOREIGN)
        net = plain
    return text_format.MessageToString(net, as_utf8=True)


def write_atomically(path: StrPath, data: str | bytes | Iterable[Buffer]) -> None:
    """Write `data` (text as UTF-8; an iterable of buffers piece by piece) to `path`, whole or not at all.

    A temporary file in the same folder is written, flushed to the disk and renamed over `path`, which keeps its
    permissions if it exists. On any failure, in `data`'s own iteration too, the temporary file is removed and an
    old `path` stands untouched; what the system refuses is raised as OutputError."""
    target = Path(os.path.realpath(path))  # a symbolic link stays one: its target is replaced
    try:
        mode = _file_mode(target)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise OutputError(_cannot_write(path, error)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in _pieces(data):
                file.write(piece)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(_cannot_write(path, error)) from None
        raise
    _sync_folder(target.parent)


def _pieces(data: str | bytes | Iterable[Buffer]) -> Iterable[Buffer]:
    if isinstance(data, str):
        return [data.encode()]
    return [data] if isinstance(data, bytes) else data


def _file_mode(path: Path) -> int:
    """The permissions `path` has, or those that open() would give it."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory")
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)  # the mask can only be read by setting it
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; some network file systems cannot, and then nothing is lost but that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


_REMEDIES: dict[type[OSError], str] = {
    FileNotFoundError: "make its folder first",
    NotADirectoryError: "choose a path whose folders are folders",
    IsADirectoryError: "name a file, not a folder",
    PermissionError: "choose a folder that you may write to",
}


def _cannot_write(path: StrPath, error: OSError) -> str:
    remedy = _REMEDIES.get(type(error), "free some space there or choose another place")
    return f"{os.fspath(path)}: cannot be written ({error.strerror or error}); {remedy}"
