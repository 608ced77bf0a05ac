"""An exported file in place of the engine: so the score of a file is that of what it answers in its own runtime.

The file travels as bytes to the actors, which need not see the driver's disk. Where its batch is fixed and another than
the data layer's, batches are cut into its size, the last piece filled with copies that are dropped again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph
from distcalib.engine.spec import Model
from distcalib.errors import FormatError, OptionError
from distcalib.export.detection import real_rows
from distcalib.export.runtimes import Runtime, open_model
from distcalib.export.yolo import SUFFIX

Array = NDArray[np.float32]


@dataclass(frozen=True)
class File:
    """An exported file as bytes, by name, and the blobs its outputs are; `detections` have rows (1, 1, R, 7)."""

    contents: Mapping[str, bytes]
    main: str
    blobs: Mapping[str, Blob]
    detections: frozenset[str]

    def __call__(self, n_threads: int) -> Model:
        """The file, open in its runtime."""
        return _Open(self, n_threads)


def read_file(path: Path, blobs: Mapping[str, Blob], graph: Graph) -> File:
    """`path` and what belongs to it.  Raises FormatError."""
    beside = {".xml": [path.with_suffix(".bin")], ".onnx": [path.with_name(f"{path.name}.data")]}.get(path.suffix, [])
    try:
        contents = {one.name: one.read_bytes() for one in (path, *beside) if one == path or one.exists()}
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); name the file that export wrote") from error
    detections = frozenset(name for name, blob in blobs.items() if graph.producer[blob].type == "DetectionOutput")
    return File(contents, path.name, blobs, detections)


def blobs_of(names: Sequence[str], graph: Graph, path: Path, where: str) -> dict[str, Blob]:
    """The blob of `graph` that each output of a file is.  Raises OptionError."""
    found: dict[str, Blob] = {}
    for blob in graph.producer:  # of several writes of a name the last is meant
        for name in (blob.name, str(blob), f"{blob}/out"):
            if name in names:
                found[name] = blob
    unknown = [name for name in names if name not in found and name.removesuffix(SUFFIX) not in found]
    if unknown:
        listed = ", ".join(f"'{name}'" for name in unknown)
        raise OptionError(f"{path}: its output {listed} is no blob of {where}; give the prototxt it was exported from")
    return found


class _Open:
    def __init__(self, file: File, n_threads: int) -> None:
        self._file = file
        with TemporaryDirectory(prefix="distcalib-") as folder:  # what is mapped from there stays readable
            for name, content in file.contents.items():
                Path(folder, name).write_bytes(content)
            self._runtime: Runtime = open_model(Path(folder, file.main), n_threads)

    def __call__(self, batch: Mapping[str, Array]) -> Mapping[Blob, Array]:
        """The outputs of one batch, by blob."""
        feeds = {name: np.ascontiguousarray(batch[name], np.float32) for name in self._runtime.inputs}
        found = self._pieces(feeds)
        return {blob: found[name] for name, blob in self._file.blobs.items()}  # boxes of YOLO v2 are left

    def _pieces(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        first, sizes = next(iter(self._runtime.inputs.items()))
        size, n = sizes[0] if sizes else None, len(feeds[first])
        if size is None or size == n:
            found = self._runtime.run(feeds)
            return {name: self._rows(name, found[name], 0, n) for name in self._file.blobs}
        parts: dict[str, list[Array]] = {}
        for begin in range(0, n, size):
            places = np.minimum(np.arange(begin, begin + size), n - 1)
            piece = {name: x[places] if len(x) == n else x for name, x in feeds.items()}
            answers = self._runtime.run(piece)
            for name, array in ((name, answers[name]) for name in self._file.blobs):
                parts.setdefault(name, []).append(self._rows(name, array, begin, min(size, n - begin)))
        return {
            name: np.concatenate(arrays, axis=2 if name in self._file.detections else 0)
            for name, arrays in parts.items()
        }

    def _rows(self, name: str, array: Array, begin: int, n: int) -> Array:
        """What belongs to the first `n` records, their numbers counted from `begin`."""
        if name not in self._file.detections:
            return array[:n] if begin or len(array) > n else array
        rows = real_rows(array)
        rows = np.array(rows[:, :, rows[0, 0, :, 0] < n], np.float32)
        rows[0, 0, :, 0] += begin
        return rows
