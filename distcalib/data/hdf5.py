"""The `HDF5Data` layer: tops as datasets of HDF5 files, a row a record.

The rows of all listed files follow one another, so a batch may begin in one file and end in the next, and after the
last file comes the first. Caffe loads a file at a time into memory; here the rows of a batch are read, from files that
are opened without HDF5's file lock, so that many actors, and a read-only disk, do."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from math import prod
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path, special
from distcalib.caffe.reading import HDF5_MAGIC, in_utf16
from distcalib.data.datum import times
from distcalib.data.left_out import Bad
from distcalib.data.limits import over_limit
from distcalib.data.looking_up import absent
from distcalib.data.records import SAME_DATA
from distcalib.data.source import FloatArray, Index, RowIndex
from distcalib.data.walking import walk
from distcalib.errors import AbsentError, DataError, listed

Shape = tuple[int, ...]
_WALKED_BYTES = 2**24
_SPARSE = 1024
"""A dataset that declares so many times what the file stores of it has gaps, or nothing but zeros."""
Rows = npt.NDArray[np.generic]
_CLASSES = (h5py.h5t.FLOAT, h5py.h5t.INTEGER)


class Hdf5Source:
    """A top a dataset of that name, (rows, ...) of numbers -> (N, ...) float32.

    Without `index` all files are opened once; raises DataError for all that is wrong with any of them. `batch` names
    the file, the dataset and the row that cannot be read."""

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        opened: Callable[[], None] | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        faults = _faults(layer)
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        if index is not None and not isinstance(index, RowIndex):
            raise TypeError(f"{where}: an index of rows is wanted, not {type(index).__name__}")
        param = layer.hdf5_data_param
        self.tops = tuple(layer.top)
        self.batch_size = int(param.batch_size)
        self._source = resolve_path(param.source, prototxt)
        self._open: tuple[str, h5py.File] | None = None
        self._opened = opened
        if index is None:
            names = [resolve_path(name, prototxt) for name in _listed(self._source)]
            walk(_walked(names, self.tops), "write it again")
        self.index = index if index is not None else self._scan(prototxt)
        self._ends = list(accumulate(n for _, n in self.index.files))
        first = self.index.files[0][0]
        shapes, bad = _layout(self.file(first), self.tops)
        if bad:
            raise DataError(f"{first}: " + "; ".join(bad))
        self.shapes: Mapping[str, Shape] = {top: (self.batch_size, *shape[1:]) for top, shape in shapes.items()}

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """Rows iteration·batch .. of all files in their order, wrapped around at the end of the last."""
        return self._read(iteration * self.batch_size, self.batch_size)

    def pick(self, numbers: Sequence[int]) -> dict[str, FloatArray]:
        """Rows `numbers`, read in the order of the data; see Source."""
        wanted, places = np.unique(np.array(numbers), return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        parts = [self._read(int(run[0]), len(run)) for run in runs]
        return {top: np.concatenate([part[top] for part in parts])[places] for top in self.tops}

    def key(self, number: int) -> str:
        """See NamingSource."""
        name, row, _ = next(self.spans(number, 1))
        file = os.path.relpath(name, self._source.parent.absolute())
        return f"'{file.encode('utf-8', 'backslashreplace').decode()}' row {row}"

    def _read(self, first: int, count: int) -> dict[str, FloatArray]:
        tops = {top: np.empty((count, *shape[1:]), np.float32) for top, shape in self.shapes.items()}
        at = 0
        for name, start, stop in self.spans(first, count):
            file = self.file(name)
            for top, values in tops.items():
                rows: FloatArray = values[at : at + stop - start]
                with np.errstate(over="ignore"):  # beyond float32 is infinite, as HDF5 converts it for Caffe
                    rows[:] = read_rows(name, file, top, start, stop)
                lost = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
                if lost.any():
                    raise DataError(
                        f"{name}: row {start + int(np.argmax(lost))} of dataset '{top}' holds values that are NaN or "
                        "infinite; correct it or leave it out"
                    )
            at += stop - start
        return tops

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def spans(self, first: int, count: int) -> Iterator[tuple[str, int, int]]:
        """File, start and stop of the pieces of rows that `count` records from `first` on are in."""
        position = first % self.index.n_records
        while count:
            number = bisect_right(self._ends, position)
            name, n_rows = self.index.files[number]
            start = position - self._ends[number] + n_rows
            taken = min(count, n_rows - start)
            yield name, start, start + taken
            count -= taken
            position = (position + taken) % self.index.n_records

    def file(self, name: str) -> h5py.File:
        """The file, kept open until another is wanted; batches go on where the last one ended. Raises DataError."""
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = name, _opened(Path(name))
            if self._opened is not None:
                self._opened()
        return self._open[1]

    def _scan(self, prototxt: Path) -> RowIndex:
        """The rows of all files, once they are seen to be of one layout."""
        files: list[tuple[str, int]] = []
        faults: list[str] = []
        n_absent = 0
        known: tuple[str, dict[str, Shape]] | None = None
        for name in _listed(self._source):
            path = resolve_path(name, prototxt)
            try:
                with _opened(path) as file:
                    shapes, bad = _layout(file, self.tops)
            except DataError as error:
                faults.append(str(error))
                n_absent += isinstance(error, AbsentError)
                continue
            if not bad and known is None:
                known = str(path), shapes
            if not bad and known is not None:
                bad = [
                    f"dataset '{top}' has rows of {_row(shape)} where {known[0]} has {_row(known[1][top])}"
                    for top, shape in shapes.items()
                    if shape[1:] != known[1][top][1:]
                ]
            faults += [f"{path}: {fault}; write it again or leave it out" for fault in bad]
            files.append((str(path.absolute()), next(iter(shapes.values()), (0,))[0]))
        if faults:
            kind = AbsentError if n_absent == len(faults) else DataError
            raise kind(f"{self._source}: " + "; ".join(faults))
        return RowIndex(sum(n for _, n in files), tuple(files))


def _walked(paths: Iterable[Path], tops: tuple[str, ...]) -> Iterator[str]:
    """Read every value of the datasets, in a child process; what can be told better is left to the caller."""
    for path in paths:
        yield str(path)
        try:
            with _opened(path) as file:
                shapes, bad = _layout(file, tops)
                for top, shape in () if bad else shapes.items():
                    n_rows = max(1, _WALKED_BYTES // max(1, 8 * prod(shape[1:])))
                    for start, stop in _stored(file[top]):
                        for at in range(start, stop, n_rows):
                            with suppress(OSError):  # of a damaged chunk: the row is named when it is wanted
                                file[top][at : min(at + n_rows, stop)]
                            yield str(path)
        except DataError:
            continue


def _stored(dataset: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """Where the rows that are in the file begin and end: a file of 2 kB can declare 2^40 rows, and store none."""
    n_rows, n_bytes = len(dataset), dataset.id.get_storage_size()
    if dataset.is_virtual:  # its rows are in other files
        return iter([(0, n_rows)])
    if dataset.chunks is None or dataset.nbytes <= _SPARSE * n_bytes:
        return iter([(0, n_rows)] if n_bytes else [])
    starts: set[int] = set()
    dataset.id.chunk_iter(lambda chunk: starts.add(chunk.chunk_offset[0]))
    return ((start, min(start + dataset.chunks[0], n_rows)) for start in sorted(starts))


def _faults(layer: caffe_pb2.LayerParameter) -> list[str]:
    """What the layer asks that is not done, each with its remedy."""
    param = layer.hdf5_data_param
    faults = []
    if not layer.top:
        faults.append("has no tops; name the datasets to be read")
    if not param.source:
        faults.append("hdf5_data_param has no source; name a list of HDF5 files")
    if not param.batch_size:
        faults.append("hdf5_data_param has no batch_size; give the number of rows an iteration")
    if layer.HasField("transform_param"):
        faults.append("transform_param is refused by Caffe for HDF5 data; write the values transformed")
    return faults


def _listed(source: Path) -> list[str]:
    """The names in a list, as Caffe splits them: at blanks, too. Raises DataError."""
    try:
        content = source.read_bytes()
    except FileNotFoundError as error:
        raise absent(source) from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}; give a list of HDF5 files") from error
    if content.startswith(HDF5_MAGIC):
        raise DataError(f"{source}: is an HDF5 file; give a text file that lists its name")
    if in_utf16(content):
        raise DataError(f"{source}: is text in UTF-16; save the list as UTF-8")
    names = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split()
    if not names:
        raise DataError(f"{source}: the list is empty; give the name of an HDF5 file a line")
    return names


def _opened(path: Path) -> h5py.File:
    """The file, for reading only. Raises DataError."""
    if kind := special(path):
        raise DataError(f"{path}: is {kind}, not a file; write it to a file first")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not an HDF5 file; name the file inside it")
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise absent(path, "name") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read as an HDF5 file ({_reason(error)}); write it again") from error


def _layout(file: h5py.File, tops: tuple[str, ...]) -> tuple[dict[str, Shape], list[str]]:
    """The shape of each top's dataset, and what is wrong with them."""
    shapes: dict[str, Shape] = {}
    bad = []
    for top in tops:
        try:
            dataset = file.get(top)
        except (KeyError, OSError, RuntimeError) as error:
            bad.append(_astray(file, top) or f"dataset '{top}' cannot be read ({_reason(error)})")
            continue
        if dataset is None and (astray := _astray(file, top)):
            bad.append(astray)
        elif isinstance(dataset, h5py.Group):
            bad.append(f"'{top}' is a group, not a dataset")
        elif not isinstance(dataset, h5py.Dataset):
            bad.append(f"has no dataset '{top}' (there are: {listed(sorted(file))})")
        elif dataset.id.get_type().get_class() not in _CLASSES:
            bad.append(f"dataset '{top}' holds {dataset.dtype} values, not numbers")
        elif not dataset.shape or 0 in dataset.shape:
            bad.append(f"dataset '{top}' is of shape {dataset.shape}, without rows")
        elif wrong := over_limit(max(prod(dataset.shape[1:]), prod(dataset.chunks or ())) * dataset.dtype.itemsize):
            bad.append(f"dataset '{top}' of shape {dataset.shape} has rows or chunks that are {wrong}")
        else:
            shapes[top] = dataset.shape
    if not bad and len({shape[0] for shape in shapes.values()}) > 1:
        counts = ", ".join(f"'{top}' {shape[0]}" for top, shape in shapes.items())
        bad.append(f"datasets have different numbers of rows ({counts})")
    return shapes, bad


def _astray(file: h5py.File, top: str) -> str | None:
    """That `top`, which cannot be had, is a link, maybe to itself; None if it is none."""
    with suppress(KeyError, OSError, RuntimeError):
        link = file.get(top, getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            return f"'{top}' is a link that leads to no dataset"
    return None


def read_rows(name: str, file: h5py.File, top: str, start: int, stop: int) -> Rows:
    """Rows start .. stop of a dataset. Raises DataError naming the first one that cannot be read."""
    dataset = file[top]
    if stop > len(dataset):
        raise DataError(f"{name}: dataset '{top}' has {len(dataset)} rows, fewer than were counted before; {SAME_DATA}")
    try:
        rows: Rows = dataset[start:stop]
    except OSError as error:
        if stop - start > 1:
            for row in range(start, stop):
                read_rows(name, file, top, row, row + 1)
        raise DataError(
            f"{name}: row {start} of dataset '{top}' cannot be read ({_reason(error)}); write the file again"
        ) from error
    return rows


def _row(shape: Shape) -> str:
    return times(shape[1:]) or "one value"


def _reason(error: Exception) -> str:
    """What HDF5 says, in one line; where the system refused, its words, without HDF5's addresses in memory."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return " ".join(str(error).strip("'\"").split())
