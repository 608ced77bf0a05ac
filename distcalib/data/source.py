"""What a data layer is to the rest: batches by iteration number.

A source has no notion of "the next batch": iteration k always means records k·batch .. (k+1)·batch - 1, wrapped around
at the end of the data, as `caffe test` would reach them. So any actor may compute any iteration, in any order, and the
batches are the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from distcalib.data.left_out import Bad

FloatArray = npt.NDArray[np.float32]
VARIES = -1
"""In a shape: a size that differs from iteration to iteration, such as the number of boxes.  Only what runs on the host
reads such a top."""


@dataclass(frozen=True)
class Index:
    """What lets another process enter a shard of the data without scanning it; each kind of source has its own.

    Made once, by the driver, and sent to the actors: picklable, and small whatever the size of the data."""

    n_records: int


@dataclass(frozen=True)
class KeyIndex(Index):
    """Every `step`-th key of a database in its order, beginning with the first: keys[i] is that of record i·step.

    Of at most 4,096 keys: 168 kB for keys like ImageNet's."""

    step: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True)
class LineIndex(Index):
    """Where every `step`-th line of an image list begins in its file of `size` bytes; at most 4,096 of them.

    An image is folder / (root + name). They are the driver's: an actor has a working directory of its own, and the
    layer that it is sent has another root_folder, made absolute."""

    step: int
    offsets: tuple[int, ...]
    size: int
    folder: str
    root: str


@dataclass(frozen=True)
class RowIndex(Index):
    """The files of an HDF5 list in its order, absolute, and the number of rows in each."""

    files: tuple[tuple[str, int], ...]


class Source(Protocol):
    """The tops of one data layer, an iteration at a time. Lives in one process; only its `index` travels."""

    @property
    def tops(self) -> tuple[str, ...]:
        """Names of the blobs that `batch` gives, in the layer's order."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each top, batch included; the same in every iteration but for sizes that are VARIES."""
        ...

    @property
    def batch_size(self) -> int:
        """Records an iteration."""
        ...

    @property
    def index(self) -> Index | None:
        """What lets another process enter a shard without scanning; None where that needs nothing (DummyData)."""
        ...

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """The tops in `iteration` (from 0): float32, C order, new arrays that the caller may keep. Raises DataError.

        With `bad` a record that cannot be used is entered there, and its row is filled with another."""
        ...

    def close(self) -> None:
        """Let go of files. Calling it twice is fine; `batch` afterwards is not."""
        ...


@runtime_checkable
class NamingSource(Source, Protocol):
    """A source that can say where a record is found, so that a person can look at it."""

    def key(self, number: int) -> str:
        """Of record `number`, counted on past the end of the data: its key, or its file and the line or row there.

        Without the folder of the data, which may be another on each machine. Raises DataError."""
        ...


@runtime_checkable
class PickingSource(Source, Protocol):
    """A source whose records can be had by their numbers: a record is the same whatever stands beside it."""

    def pick(self, numbers: Sequence[int]) -> dict[str, FloatArray]:
        """The tops of the records `numbers`, counted on past the end of the data as iterations are, in that order.

        New arrays, as of `batch`. Raises DataError, also for a record that `batch` leaves out as bad."""
        ...
