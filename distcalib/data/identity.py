"""What identifies the data of a net without reading all of it.

Of each file its path, size and time of the last change, and of those that are not one of many a hash of both ends: an
LMDB counts its transactions on its first two pages.  So another database of the same name is told from the one before,
and so is one that was written to.  Who changes a byte in the middle and puts the time back is not found out.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import named_paths, special
from distcalib.data.image_list import BOM
from distcalib.data.source import Index, LineIndex, RowIndex

# Written by those who only read a database.
_IGNORED = frozenset({"lock.mdb", "LOCK", "LOG", "LOG.old"})
END_BYTES = 64 * 2**10
"""Of each end of a file: what is hashed."""

FileIdentity = tuple[str, int, int, bytes]
"""Path, bytes, time of the last change in nanoseconds, hash of both ends; sizes are -1 for a file that is not there."""


def data_identity(
    layers: Iterable[caffe_pb2.LayerParameter],
    prototxt: Path,
    indexes: Mapping[str, Index | None],
) -> list[FileIdentity]:
    """All files that `layers` read; `indexes` are those of their sources, by layer name."""
    identities: list[FileIdentity] = []
    for layer in layers:
        for path in named_paths(layer, prototxt):
            identities.extend(_identity(file, ends=True) for file in files_in(path))
        index = indexes.get(layer.name)
        if isinstance(index, RowIndex):
            identities.extend(_identity(Path(file), ends=True) for file, _ in index.files)
        elif isinstance(index, LineIndex):
            identities.extend(_images(layer, prototxt, index))
    return identities


def files_in(path: Path) -> Iterator[Path]:
    """The file `path`, or all files of the database in the folder `path` that only who writes to it changes.

    A folder that may not be looked into counts as a file: who opens it says so."""
    try:
        files = [file for file in sorted(path.iterdir()) if file.name not in _IGNORED and file.is_file()]
    except OSError:
        files = [path]
    yield from files


def _images(layer: caffe_pb2.LayerParameter, prototxt: Path, index: LineIndex) -> Iterator[FileIdentity]:
    """The images of a list; a pass reads them all, so that to ask for each one's size is little beside it."""
    for source in named_paths(layer, prototxt, ("source",)):
        with source.open("rb") as lines:
            lines.seek(len(BOM) if lines.read(len(BOM)) == BOM else 0)
            for line in lines:
                for name in _names(layer, line):
                    file = index.root + name.decode(errors="surrogateescape")
                    yield _identity(Path(index.folder) / file, ends=False)


def _names(layer: caffe_pb2.LayerParameter, line: bytes) -> list[bytes]:
    """The files that a line of a list names: all but its label."""
    if layer.type == "DenseImageData":
        return line.split()
    if layer.type == "ImageSegData":
        pairs = layer.image_data_param.label_type == caffe_pb2.ImageDataParameter.PIXEL
        return line.split()[: 2 if pairs else 1]
    return line.rsplit(None, 1)[:1] if line.strip() else []


def _identity(path: Path, *, ends: bool) -> FileIdentity:
    if special(path):  # refused by who reads it
        return str(path), -1, -1, b""
    try:
        stat = path.stat()
        digest = hashlib.sha256()
        if ends:
            with path.open("rb") as file:
                digest.update(file.read(END_BYTES))
                file.seek(max(0, stat.st_size - END_BYTES))
                digest.update(file.read(END_BYTES))
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return str(path), -1, -1, b""
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest.digest()
