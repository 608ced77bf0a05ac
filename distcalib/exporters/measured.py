"""An exported file in place of the engine: so the score of a file is that of what it answers in its own runtime.

The file travels as bytes to the actors, which need not see the driver's disk. Where its batch is fixed and another than
the data layer's, or images are of several sizes, a batch goes in pieces, one that is too short filled with copies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob, Graph
from distcalib.data import Pixels
from distcalib.engine.spec import Model
from distcalib.errors import EngineError, FormatError, OptionError
from distcalib.exporters.detection import real_rows
from distcalib.exporters.preprocess import in_form
from distcalib.exporters.runtimes import Runtime, beside, open_model
from distcalib.exporters.yolo import SUFFIX

Array = NDArray[np.float32]


@dataclass(frozen=True)
class File:
    """An exported file as bytes, by name, and the blobs its outputs are; `detections` have rows (1, 1, R, 7).

    `form`: in which it takes images, such as nhwc-bgr; None: it takes what the data layer gives.
    """

    contents: Mapping[str, bytes]
    main: str
    blobs: Mapping[str, Blob]
    detections: frozenset[str]
    form: str | None = None

    def __call__(self, n_threads: int) -> Model:
        """The file, open in its runtime."""
        return _Open(self, n_threads)


@dataclass(frozen=True)
class _Piece:
    """What a file answered: `rows` of the batch are the first ones of its answers, `n` were asked for."""

    rows: NDArray[np.int64]
    n: int
    answers: Mapping[str, Array]


def read_file(path: Path, blobs: Mapping[str, Blob], graph: Graph, form: str | None = None) -> File:
    """`path` and what belongs to it.  Raises FormatError."""
    try:
        contents = {one.name: one.read_bytes() for one in (path, beside(path)) if one == path or one.exists()}
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); name the file that export wrote") from error
    detections = frozenset(name for name, blob in blobs.items() if graph.producer[blob].type == "DetectionOutput")
    return File(contents, path.name, blobs, detections, form)


def blobs_of(names: Sequence[str], graph: Graph, path: Path, where: str) -> dict[str, Blob]:
    """The blob of `graph` that each output of a file is.  Raises OptionError."""
    blob_of: dict[str, Blob] = {}
    for blob in graph.producer:  # of several writes of a name the last is meant
        for name in (blob.name, str(blob), f"{blob}/out"):
            if name in names:
                blob_of[name] = blob
    unknown = [name for name in names if name not in blob_of and name.removesuffix(SUFFIX) not in blob_of]
    if unknown:
        listed = ", ".join(f"'{name}'" for name in unknown)
        raise OptionError(
            f"{path}: its output {listed} is not a blob of {where}; give the prototxt it was exported from"
        )
    return blob_of


class _Open:
    def __init__(self, file: File, n_threads: int) -> None:
        self._file = file
        with TemporaryDirectory(prefix="distcalib-") as folder:  # what is mapped from there stays readable
            for name, content in file.contents.items():
                Path(folder, name).write_bytes(content)
            self._runtime: Runtime = open_model(Path(folder, file.main), n_threads)

    def __call__(self, batch: Mapping[str, Array], images: Sequence[Pixels]) -> Mapping[Blob, Array]:
        """The outputs of one batch, by blob."""
        if self._file.form is None:
            feeds = {name: np.ascontiguousarray(batch[name], np.float32) for name in self._runtime.inputs}
            rows = np.arange(len(next(iter(feeds.values()))))
            pieces = list(self._pieces(rows, feeds))
        else:
            [name] = self._runtime.inputs
            groups = in_form(images, self._file.form)
            pieces = [piece for rows, given in groups for piece in self._pieces(rows, {name: given})]
        # The boxes of YOLO v2 are left out: they are no blob.
        return {
            blob: _detections(name, pieces) if name in self._file.detections else _joined(name, pieces)
            for name, blob in self._file.blobs.items()
        }

    def _pieces(self, rows: NDArray[np.int64], feeds: Mapping[str, NDArray[Any]]) -> Iterator[_Piece]:
        """The answers to `feeds`, of the batch's `rows`, in pieces of the file's batch."""
        sizes, n = next(iter(self._runtime.inputs.values()), ()), len(rows)
        size = (sizes[0] if sizes else None) or n
        for begin in range(0, n, size):
            places = np.minimum(np.arange(begin, begin + size), n - 1)
            piece = feeds if size == n else {name: x[places] if len(x) == n else x for name, x in feeds.items()}
            yield _Piece(rows[begin : begin + size], size, self._runtime.run(piece))


def _detections(name: str, pieces: Sequence[_Piece]) -> Array:
    """Detections (1, 1, R, 7) of all pieces, by item."""
    by_piece = []
    for piece in pieces:
        rows = real_rows(piece.answers[name])[0, 0]
        rows = np.array(rows[rows[:, 0] < len(piece.rows)], np.float32)
        rows[:, 0] = piece.rows[rows[:, 0].astype(np.int64)]
        by_piece.append(rows)
    all_rows = np.concatenate(by_piece)
    return all_rows[np.argsort(all_rows[:, 0], kind="stable")][None, None]


def _joined(name: str, pieces: Sequence[_Piece]) -> Array:
    """A blob of all pieces.  Raises EngineError where it has no row for each image, and more than one value."""
    arrays = [piece.answers[name] for piece in pieces]
    if len(pieces) == 1 and pieces[0].n == len(pieces[0].rows):
        return arrays[0]
    if all(len(array) == piece.n for array, piece in zip(arrays, pieces, strict=True)):
        rows = np.concatenate([piece.rows for piece in pieces])
        joined = np.concatenate([array[: len(piece.rows)] for array, piece in zip(arrays, pieces, strict=True)])
        return joined[np.argsort(rows)]
    if all(np.array_equal(array, arrays[0]) for array in arrays):
        return arrays[0]  # priors
    raise EngineError(
        f"output '{name}' has no row for each image, so batches of the data layer cannot be put together from others; "
        "export with the batch of the prototxt, from images of one size"
    )
