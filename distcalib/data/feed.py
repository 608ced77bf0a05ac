"""The `Input` layer: shapes in the prototxt, values from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.data.left_out import Bad
from distcalib.data.source import FloatArray, Index
from distcalib.errors import DataError, listed

_NUMBERS = "biuf"
"""Kinds of NumPy types that become float32: bool, integers, floats."""


class FeedSource:
    """Arrays by top name, the leading axis cut into iterations and wrapped around like the records of a database.

    Without arrays the shapes are known and `batch` raises: a net can be inspected and compiled, not evaluated.
    Raises DataError for all arrays that are missing or do not fit, at once."""

    index: Index | None = None

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        arrays: Mapping[str, npt.NDArray[np.generic]] | None = None,
    ) -> None:
        self._where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        self.tops = tuple(layer.top)
        self.shapes: Mapping[str, tuple[int, ...]] = input_shapes(layer, self._where)
        self.batch_size = next(iter(self.shapes.values()))[0]
        self._arrays = None if arrays is None else self._checked(arrays)

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """Rows iteration·n .. of each array, n being its top's leading dimension."""
        if self._arrays is None:
            raise DataError(
                f"{self._where} has no data; give arrays for {', '.join(map(repr, self.tops))}, "
                "or a prototxt whose TEST phase reads a data set"
            )
        places = {
            top: np.arange(iteration * shape[0], (iteration + 1) * shape[0]) for top, shape in self.shapes.items()
        }
        return self._rows(self._arrays, places)

    def pick(self, numbers: Sequence[int]) -> dict[str, FloatArray]:
        """Rows `numbers` of each array; see Source."""
        assert self._arrays is not None, "no batch came before"
        return self._rows(self._arrays, dict.fromkeys(self.tops, np.array(numbers)))

    def key(self, number: int) -> str:
        """See NamingSource."""
        assert self._arrays is not None, "no batch came before"
        n_rows = len(next(iter(self._arrays.values())))
        return f"row {number % n_rows} of '{self.tops[0]}'"

    def _rows(
        self, arrays: Mapping[str, npt.NDArray[np.generic]], places: Mapping[str, npt.NDArray[np.int_]]
    ) -> dict[str, FloatArray]:
        batch = {}
        for top, array in arrays.items():
            rows = places[top] % len(array)
            n = len(rows)
            with np.errstate(over="ignore"):
                batch[top] = array[rows].astype(np.float32)
            lost = ~np.isfinite(batch[top]).reshape(n, -1).all(axis=1)
            if lost.any():
                row = rows[int(np.argmax(lost))]
                what = "NaN" if np.isnan(batch[top]).any() else "values that are infinite, or beyond float32"
                raise DataError(
                    f"{self._where}: row {row} of the array of top '{top}' holds {what}; correct it or leave it out"
                )
        return batch

    def close(self) -> None:
        """Nothing to let go of."""

    def _checked(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
        faults = array_faults(self.shapes, arrays, arrays)
        if faults:
            raise DataError(f"{self._where}: " + "; ".join(faults))
        return {top: arrays[top] for top in self.tops}


def input_shapes(layer: caffe_pb2.LayerParameter, where: str) -> dict[str, tuple[int, ...]]:
    """The shape of each top of an Input layer. Raises DataError."""
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    n_tops = len(layer.top)
    if len(shapes) == 1:
        shapes *= n_tops
    if not n_tops or len(shapes) != n_tops or any(not shape or min(shape) < 1 for shape in shapes):
        raise DataError(f"{where}: gives the shapes {shapes} for {n_tops} tops; give each one without zeros")
    return dict(zip(layer.top, shapes, strict=True))


def array_faults(
    shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, npt.NDArray[np.generic]], there: Iterable[str]
) -> list[str]:
    """What is wrong with arrays for tops of these shapes: numbers are wanted, with rows of the top's shape.

    there: the names to be had where one is missing."""
    faults = []
    for top, shape in shapes.items():
        array = arrays.get(top)
        if array is None:
            faults.append(f"top '{top}' has no array (there are: {listed(sorted(there))}); give one")
            continue
        if array.shape[1:] != shape[1:] or not array.shape or not len(array):
            faults.append(f"the array of top '{top}' is {array.shape}; give one of (n, {str(shape[1:])[1:]}")
        if array.dtype.kind not in _NUMBERS:
            faults.append(f"the array of top '{top}' holds {array.dtype} values; give numbers")
    return faults
