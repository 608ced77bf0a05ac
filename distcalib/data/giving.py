"""Data layers whose tops a file of arrays gives, whatever they read themselves: they become Input layers of its shapes.

So a net whose data come from Python code, windows, a video or a program's memory is measured on what its user has.  The
prototxt that is written keeps the layer."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import IO

from numpy.lib import format as npy

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import not_utf8, special
from distcalib.data.limits import too_many
from distcalib.errors import DataError, listed

Shape = tuple[int, ...]
_NPY = b"\x93NUMPY"
_BATCHES = (
    "data_param",
    "image_data_param",
    "hdf5_data_param",
    "window_data_param",
    "memory_data_param",
    "dense_image_data_param",
)


def array_shapes(path: Path) -> Mapping[str, Shape]:
    """The shapes of the arrays in a .npz by their names; none for a .npy or a file that cannot be used.

    Headers alone are read: an array may unpack to more than the memory (limits.py), which load_arrays says.
    DataError if there is no file, or no blob can have a row of an array; what else is wrong with one is said by
    load_arrays, which reads it.
    """
    if wrong := not_utf8(path):
        raise DataError(f"{path}: {wrong}")
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a .npz with an array a top")
    if kind := special(path):
        raise DataError(f"{path}: is {kind}, not a file; write it to a file first")
    shapes = _shapes(path)
    large = [f"'{top}' of shape {shape}" for top, shape in shapes.items() if too_many(shape[1:])]
    if large:
        raise DataError(
            f"{path}: has {', '.join(large)}; a blob has less than 2^31 elements, so correct or leave out the array"
        )
    return shapes


def _shapes(path: Path) -> Mapping[str, Shape]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what NumPy and Python say of a strange header
            if file.read(len(_NPY)) == _NPY:
                return {}
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                refuse_bzip2(path, archive)
                members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
                return {top: _shape(archive, name) for top, name in members.items()}
    except DataError:
        raise
    except Exception:  # whatever zipfile and its three ways of packing raise
        return {}


def refuse_bzip2(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise DataError for arrays packed with bzip2: zipfile unpacks 4 kB of it in one piece, which may be gigabytes."""
    packed = [one.filename for one in archive.infolist() if one.compress_type == zipfile.ZIP_BZIP2]
    if packed:
        names = listed(f"'{name.removesuffix('.npy')}'" for name in packed)
        raise DataError(f"{path}: arrays packed with bzip2 are not read ({names}); write it by numpy.savez_compressed")


def _shape(archive: zipfile.ZipFile, name: str) -> Shape:
    with archive.open(name) as member:
        return _header(member)


def _header(file: IO[bytes]) -> Shape:
    """The shape that an array's header gives; ValueError if it has none, or names its columns."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape: Shape = read(file)[0]
    return shape


def makes_data(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether the layer is where data come in."""
    return not layer.bottom and bool(layer.top) and layer.type != "Parameter"


def feed(layer: caffe_pb2.LayerParameter, given: Mapping[str, Shape], read: Container[str], otherwise: int = 1) -> None:
    """Make an Input layer of a data layer, in place, if arrays of its tops are `given`.

    Of a top that nothing reads none is needed.  The first axis is cut into iterations of the layer's batch_size, of
    `otherwise` rows where it has none.  DataError if arrays of some of the tops are missing.
    """
    if layer.type == "Input" or not makes_data(layer) or not any(top in given for top in layer.top):
        return
    missing = [top for top in layer.top if top not in given and top in read]
    if missing:
        raise DataError(
            f"layer '{layer.name}' ({layer.type}): --data gives arrays for some of its tops and none for "
            f"{', '.join(map(repr, missing))}; give one for each"
        )
    batch = next((getattr(layer, name).batch_size for name in _BATCHES if layer.HasField(name)), 0) or otherwise
    tops = [top for top in layer.top if top in given]
    fed = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=tops)
    for top in tops:
        fed.input_param.shape.add().dim.extend([batch, *given[top][1:]])
    layer.CopyFrom(fed)
