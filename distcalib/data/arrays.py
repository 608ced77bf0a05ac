"""Arrays from a file for `Input` layers: a .npz with an array a top, or a .npy for the only one."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import special
from distcalib.data.feed import array_faults, input_shapes
from distcalib.data.giving import refuse_bzip2
from distcalib.data.limits import over_limit
from distcalib.errors import DataError, described

Array = npt.NDArray[np.generic]
_NPY = b"\x93NUMPY"
_PACKED = 4  # times: what unpacks to more than that is no array of measured numbers


def load_arrays(path: Path, layers: Iterable[caffe_pb2.LayerParameter], prototxt: Path) -> Mapping[str, Array]:
    """By top name, the arrays in `path` that the Input layers among `layers` feed, for `open_source(arrays=...)`.

    A .npy is mapped into memory, not read. Raises DataError for a file that cannot be used, and for all arrays that are
    missing or do not fit, at once."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        if layer.type == "Input":
            shapes |= input_shapes(layer, f"{prototxt}: layer '{layer.name}' ({layer.type})")
    tops = ", ".join(map(repr, shapes))
    if not shapes:
        raise DataError(f"{path}: is not wanted, since {prototxt} has no Input layer in the TEST phase; leave it out")
    try:
        arrays, there = _read(path, list(shapes))
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; give a .npz with arrays {tops}") from error
    except DataError:
        raise
    except Exception as error:  # whatever zipfile and its three ways of packing raise
        # NumPy takes what is neither for a pickle, and its advice is to load that.
        reason = "it holds Python objects" if "Object arrays" in str(error) else described(error)
        reason = "it is another format" if "pickle" in reason else reason
        raise DataError(
            f"{path}: is not a .npy or .npz of numbers ({reason}); write it by numpy.savez with arrays {tops}"
        ) from error
    faults = array_faults(shapes, arrays, there)
    if faults:
        raise DataError(f"{path}: " + "; ".join(faults))
    return arrays


def _refuse_bombs(path: Path, archive: zipfile.ZipFile, tops: Collection[str]) -> None:
    """Raise DataError for an array that is small in the file and more than the limit out of it."""
    for member in archive.infolist():
        name, wrong = member.filename.removesuffix(".npy"), over_limit(member.file_size)
        if wrong and name in tops and member.file_size > _PACKED * member.compress_size:
            raise DataError(f"{path}: array '{name}' is {wrong}; raise it, or correct the array")


def _read(path: Path, tops: list[str]) -> tuple[dict[str, Array], list[str]]:
    """The arrays of the tops that the file has, and the names of all in it. Raises DataError, and what NumPy raises."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a file; give a .npz with arrays {', '.join(map(repr, tops))}")
    if kind := special(path):
        raise DataError(f"{path}: is {kind}, not a file; write it to a file first")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes beyond 2^63, before the error that says so
        if file.read(len(_NPY)) == _NPY:
            if len(tops) > 1:
                names = ", ".join(map(repr, tops))
                raise DataError(f"{path}: is one array for {len(tops)} tops; give a .npz with arrays {names}")
            return {tops[0]: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))}, tops
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            refuse_bzip2(path, arrays.zip)
            _refuse_bombs(path, arrays.zip, tops)
            return {name: np.asarray(arrays[name]) for name in arrays.files if name in tops}, arrays.files
