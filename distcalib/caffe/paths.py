"""Where a path inside a prototxt points.

Caffe takes a relative `source` or `mean_file` from the working directory; models that travel with their data want
it taken from the prototxt. Both work here, and Caffe's way wins when both exist, so that Caffe's results hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from distcalib.caffe import caffe_pb2
from distcalib.errors import DataError

# Every path that a data layer, or one that scores, may name.
_PATHS = (
    ("data_param", "source"),
    ("data_param", "mean_file"),
    ("transform_param", "mean_file"),
    ("image_data_param", "source"),
    ("image_data_param", "root_folder"),
    ("image_data_param", "mean_file"),
    ("dense_image_data_param", "source"),
    ("dense_image_data_param", "root_folder"),
    ("hdf5_data_param", "source"),
    ("annotated_data_param", "label_map_file"),
    ("detection_evaluate_param", "name_size_file"),
)
FILE_FIELDS = frozenset(field for _, field in _PATHS) - {"root_folder"}
"""Those that are files or databases, and no folder that names of files are put behind."""


def resolve_path(source: str, prototxt: Path) -> Path:
    """`source` as it stands if that exists, else from the folder of `prototxt` if that exists, else as it stands.

    The last, for an error message: it is the spelling that the user wrote.  Raises DataError for what no file can be
    called."""
    if "\0" in source:
        raise DataError(f"{prototxt}: the name of a file, '{source}', contains a null byte; correct it")
    as_given = Path(source)
    if as_given.is_absolute() or os.path.exists(as_given):
        return as_given
    beside = Path(prototxt).parent / source
    return beside if os.path.exists(beside) else as_given


def special(path: str | Path, streams: bool = False) -> str | None:
    """What `path` is where it is neither a file nor a folder: to open a pipe may last forever, and a device has no end.

    None where it is a file, a folder or nothing: who opens it will say. With `streams` also for a pipe that the shell
    has opened, as /dev/stdin or <(...): it has no name on a disk, and to open it waits for nobody."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if streams and stat.S_ISFIFO(mode) and not os.path.exists(os.path.realpath(path)):  # /proc/1/fd/pipe:[2]
        return None
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def not_utf8(path: str | Path) -> str | None:
    """What is wrong with the name of a file or folder, in which the working directory counts; None: it is UTF-8.

    A net names files by text, and so do reports."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        return "its path is not text in UTF-8; rename the folder or the file"
    return None


def named_paths(
    layer: caffe_pb2.LayerParameter, prototxt: Path, fields: Collection[str] = FILE_FIELDS
) -> Iterator[Path]:
    """The paths that `layer` names in `fields`, as `resolve_path` finds them."""
    for param_name, field in _PATHS:
        if field in fields and layer.HasField(param_name):
            source = getattr(getattr(layer, param_name), field)
            if source:
                yield resolve_path(source, prototxt)


def resolve_sources(net: caffe_pb2.NetParameter, prototxt: Path) -> None:
    """Make the paths of the data layers absolute, in place, as `resolve_path` finds them from `prototxt`."""
    for layer in net.layer:
        for param_name, field in _PATHS:
            if not layer.HasField(param_name):
                continue
            param = getattr(layer, param_name)
            source = getattr(param, field)
            if not source:
                continue
            path = resolve_path(source, prototxt)
            if os.path.exists(path):  # Path.exists raises for a folder that may not be looked into
                # A root_folder is put before names as it is: Caffe adds no slash.
                setattr(param, field, str(path.resolve()) + ("/" if source.endswith("/") else ""))


def clear_sources(layer: caffe_pb2.LayerParameter) -> None:
    """Take the paths out of a layer, in place: they are those of one machine, and a caffemodel has no use for them."""
    for param_name, field in _PATHS:
        if layer.HasField(param_name):
            getattr(layer, param_name).ClearField(field)
