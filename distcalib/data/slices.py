"""A data layer whose first record is that of a shard, for an engine that always begins at the first one (`-r`).

A slice is a folder. It is written beside its place and renamed, so several processes may want one at the same time: the
first to finish wins. A slice of an LMDB that begins at record 0 is a link to the database, and not its source: Caffe
makes a lock file where it reads, which would litter the user's folder, or fail where that cannot be written. A LevelDB
is copied to LMDB even then, since only one process at a time can open one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.database import open_records
from distcalib.data.image_list import ImageList
from distcalib.data.lmdb_records import data_file, reason_of
from distcalib.data.records import Record
from distcalib.data.source import Index
from distcalib.errors import DataError

if TYPE_CHECKING:  # h5py, which only HDF5Data needs, takes 0.08 s to import
    from distcalib.data.hdf5 import Hdf5Source

Layer = caffe_pb2.LayerParameter

_SAMPLED = 256  # records whose mean size estimates what a slice takes
_CHUNK = 256  # records copied at a time: memory stays flat whatever the slice
_PAGE = 4096
_SPARE = 1 << 20  # of a database: its tree, and pages that a commit leaves behind
_MAX_VALUES = 1 << 26  # of a HDF5 file: Caffe reads it whole, and no blob of 2^31 values


def unsliceable(layer: Layer) -> str | None:
    """Why `caffe test` cannot read this data layer from any record on; None if it can."""
    if layer.type == "Input":
        return "is fed by a program, and `caffe test` is none that feeds; give a prototxt whose TEST phase reads data"
    random = [filler.type for filler in layer.dummy_data_param.data_filler if filler.type != "constant"]
    if layer.type == "DummyData" and random:
        return (
            f"draws {random[0]} values, which are others in each process of Caffe; fill it with a constant, "
            "or give a prototxt whose TEST phase reads data"
        )
    return None


def sliced(layer: Layer, prototxt: Path, index: Index | None, iterations: range, folder: Path) -> Layer:
    """`layer` as it reads `iterations` of its data, in order, when it begins at its first record.

    What it reads is written to `folder` unless that is there already.  Raises DataError.
    """
    made = Layer()
    made.CopyFrom(layer)
    if layer.type in _SLICERS:
        _SLICERS[layer.type](made, prototxt, index, iterations, folder)
    return made


def slice_bytes(layer: Layer, prototxt: Path, index: Index | None, parts: Sequence[range]) -> int:
    """About what `sliced` writes for all of `parts`; lists of files are not worth counting.  Raises DataError."""
    if layer.type in ("AnnotatedData", "Data"):
        records = open_records(layer.data_param, prototxt, index)
        try:
            sample = records.read(0, min(records.n_records, _SAMPLED))
            batch, n_records = int(layer.data_param.batch_size), records.n_records
            copied = [part for part in parts if not _is_link(layer, part.start * batch, n_records)]
            return sum(map(len, copied)) * batch * _stored_bytes(sample) // len(sample)
        finally:
            records.close()
    if layer.type == "HDF5Data":
        from distcalib.data.hdf5 import Hdf5Source

        source = Hdf5Source(layer, prototxt, index)
        try:
            file = source.file(source.index.files[0][0])
            row = sum(file[top].dtype.itemsize * prod(shape[1:]) for top, shape in source.shapes.items())
            copied = [part for part in parts if part.start * source.batch_size % source.index.n_records]
            return sum(map(len, copied)) * source.batch_size * int(row)
        finally:
            source.close()
    return 0


def _slice_database(layer: Layer, prototxt: Path, index: Index | None, iterations: range, folder: Path) -> None:
    param = layer.data_param
    batch = int(param.batch_size)
    if not folder.exists():
        records = open_records(param, prototxt, index)
        try:
            with _in_place(folder) as made:
                if _is_link(layer, iterations.start * batch, records.n_records):
                    (made / "data.mdb").symlink_to(data_file(records.path).resolve())
                else:
                    end = iterations.stop * batch
                    starts = range(iterations.start * batch, end, _CHUNK)
                    _write_lmdb(made, (records.read(start, min(_CHUNK, end - start)) for start in starts))
        finally:
            records.close()
    param.source, param.backend = str(folder), param.LMDB


def _is_link(layer: Layer, first: int, n_records: int) -> bool:
    return layer.data_param.backend == layer.data_param.LMDB and first % n_records == 0


def _write_lmdb(folder: Path, chunks: Iterable[Sequence[Record]]) -> None:
    """The values of `chunks` under numbers as keys, in their order."""
    size = needed = _SPARE
    with lmdb.open(str(folder), map_size=size, sync=False, metasync=False, lock=False) as environment:
        number = 0
        for chunk in chunks:
            needed += _stored_bytes(chunk)
            if needed > size:
                size = 2 * needed
                environment.set_mapsize(size)
            with environment.begin(write=True) as transaction:
                for _, value in chunk:
                    transaction.put(b"%08d" % number, value, append=True)
                    number += 1


def _stored_bytes(records: Iterable[Record]) -> int:
    """What the records take in an LMDB at the most: whole pages each, with a header."""
    return sum(-(-(len(value) + 64) // _PAGE) * _PAGE for _, value in records)


def _slice_list(layer: Layer, prototxt: Path, index: Index | None, iterations: range, folder: Path) -> None:
    param = layer.image_data_param
    batch = int(param.batch_size)
    if not folder.exists():
        images = ImageList(resolve_path(param.source, prototxt), param.root_folder, prototxt, index)
        with _in_place(folder) as made:
            lines = images.read(iterations.start * batch, len(iterations) * batch)
            text = "".join(f"{line.file} {line.label}\n" for line in lines)
            (made / "list.txt").write_text(text, "utf-8", "surrogateescape")
    param.source = str(folder / "list.txt")
    param.ClearField("root_folder")


def _slice_hdf5(layer: Layer, prototxt: Path, index: Index | None, iterations: range, folder: Path) -> None:
    if not folder.exists():
        from distcalib.data.hdf5 import Hdf5Source

        source = Hdf5Source(layer, prototxt, index)
        try:
            with _in_place(folder) as made:
                first, count = (n * source.batch_size for n in (iterations.start, len(iterations)))
                if first % source.index.n_records == 0:
                    names = [name for name, _ in source.index.files]
                else:
                    names = [str(folder / name) for name in _write_hdf5(source, first, count, made)]
                (made / "list.txt").write_text("\n".join([*names, ""]), "utf-8", "surrogateescape")
        finally:
            source.close()
    layer.hdf5_data_param.source = str(folder / "list.txt")


def _write_hdf5(source: Hdf5Source, first: int, count: int, folder: Path) -> Iterator[str]:
    """Rows as files in `folder`; their names."""
    import h5py

    from distcalib.data.hdf5 import read_rows

    per_row = max(prod(shape[1:]) for shape in source.shapes.values())
    most = max(1, _MAX_VALUES // per_row)
    number = 0
    for name, start, stop in source.spans(first, count):
        for at in range(start, stop, most):
            with h5py.File(folder / f"{number}.h5", "w") as file:
                for top in source.tops:
                    rows = read_rows(name, source.file(name), top, at, min(stop, at + most))
                    file.create_dataset(top, data=rows)
            yield f"{number}.h5"
            number += 1


_SLICERS: dict[str, Callable[[Layer, Path, Index | None, range, Path], None]] = {
    "AnnotatedData": _slice_database,
    "Data": _slice_database,
    "ImageData": _slice_list,
    "HDF5Data": _slice_hdf5,
}


@contextmanager
def _in_place(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place `folder` at the end of the block; gone if the block fails, or another process
    was first.  Raises DataError for what the system refuses."""
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield made
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.exists():
                raise
    except (OSError, lmdb.Error) as error:
        reason = reason_of(error) if isinstance(error, lmdb.Error) else error.strerror or error
        raise DataError(
            f"{folder}: a slice of the data cannot be written ({reason}); "
            "free some space there, or name another folder in TMPDIR"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
