"""The `Input` layer: shapes in the prototxt, values from outside."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.data.source import FloatArray, Index
from distcalib.errors import DataError


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
        shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
        if len(shapes) == 1:
            shapes *= len(self.tops)
        if len(shapes) != len(self.tops) or any(not shape or prod(shape) < 1 for shape in shapes):
            raise DataError(
                f"{self._where}: gives the shapes {shapes} for {len(self.tops)} tops; give each one without zeros"
            )
        self.shapes: Mapping[str, tuple[int, ...]] = dict(zip(self.tops, shapes, strict=True))
        self.batch_size = shapes[0][0]
        self._arrays = None if arrays is None else self._checked(arrays)

    def batch(self, iteration: int) -> dict[str, FloatArray]:
        """Rows iteration·n .. of each array, n being its top's leading dimension."""
        if self._arrays is None:
            raise DataError(
                f"{self._where} has no data; give arrays for {', '.join(map(repr, self.tops))}, "
                "or a prototxt whose TEST phase reads a data set"
            )
        batch = {}
        for top, array in self._arrays.items():
            n = self.shapes[top][0]
            rows = np.arange(iteration * n, (iteration + 1) * n) % len(array)
            batch[top] = array[rows].astype(np.float32)
        return batch

    def close(self) -> None:
        """Nothing to let go of."""

    def _checked(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
        faults = []
        for top, shape in self.shapes.items():
            array = arrays.get(top)
            if array is None:
                faults.append(f"top '{top}' has no array (there are: {', '.join(sorted(arrays)) or 'none'}); give one")
            elif array.shape[1:] != shape[1:] or not array.shape or not len(array):
                faults.append(f"the array of top '{top}' is {array.shape}; give one of (n, {str(shape[1:])[1:]}")
        if faults:
            raise DataError(f"{self._where}: " + "; ".join(faults))
        return {top: arrays[top] for top in self.tops}
