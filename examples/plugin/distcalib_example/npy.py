"""NpyData: images and labels from two .npy files, `data_param.source` and beside it SOURCE.labels."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from distcalib.caffe import resolve_path
from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.data import Bad, FloatArray, Index, reads
from distcalib.errors import DataError


class NpySource:
    """Iteration i has the rows i * batch .. (i + 1) * batch - 1, around at the end."""

    def __init__(self, layer: LayerParameter, prototxt: Path) -> None:
        images = resolve_path(layer.data_param.source, prototxt)
        try:
            self._arrays = [np.load(path, mmap_mode="r") for path in (images, f"{images}.labels")]
        except (OSError, ValueError) as error:
            raise DataError(f"{prototxt}: layer '{layer.name}': {error}; write both files with numpy.save") from None
        self.tops, self.batch_size = tuple(layer.top), int(layer.data_param.batch_size)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Batch first."""
        rows = zip(self.tops, self._arrays, strict=True)
        return {top: (self.batch_size, *array.shape[1:]) for top, array in rows}

    @property
    def index(self) -> Index:
        """The number of records is all that an actor needs."""
        return Index(len(self._arrays[0]))

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """No row of an array can be bad."""
        rows = (iteration * self.batch_size + np.arange(self.batch_size)) % len(self._arrays[0])
        return {top: np.float32(array[rows]) for top, array in zip(self.tops, self._arrays, strict=True)}

    def close(self) -> None:
        """Nothing is held open."""


@reads("NpyData")
def open_npy(layer: LayerParameter, prototxt: Path, index: Index | None) -> NpySource:
    """Opened by the driver, and again in every actor."""
    return NpySource(layer, prototxt)
