"""What a layer finds in its bottoms: a value as it was made, or as it has been rounded in its memory since.

Intel Caffe's blobs change type under their readers (quantize/memory.py); a builder asks here for each bottom of each
layer.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.graph import Blob, Node
from distcalib.engine.arithmetic import Integers
from distcalib.quantize.storage import Grid, Reading, Storage


class Finding:
    """The values of a net that is being built, as its layers find them."""

    def __init__(self, values: Mapping[Blob, Output], stored: Storage, integers: Integers) -> None:
        self.values, self.stored, self.integers = values, stored, integers
        self._rounded: dict[tuple[Blob, tuple[Grid, ...]], tuple[Output, Grid | None]] = {}

    def readings(self, at: int, blobs: Sequence[Blob]) -> list[Reading]:
        """How the layer with index `at` finds its bottoms `blobs`."""
        known = self.stored.run.reads.get(at, ())
        readings = []
        for i, blob in enumerate(blobs):
            reading = known[i] if i < len(known) else Reading(blob, (), self.stored.get(blob))
            readings.append(reading if reading.blob in self.values else reading._replace(blob=blob))
        return readings

    def real(self, reading: Reading) -> Output:
        """It as real numbers."""
        value, form = self._form(reading)
        return value if form is None else self.integers.real(value, form)

    def made(self, blob: Blob) -> Output:
        """A value as it was made, as real numbers."""
        return self.real(Reading(blob, (), self.stored.get(blob)))

    def on_grid(self, reading: Reading, grid: Grid) -> Output:
        """It as integers of `grid`; as it is where it lies there already."""
        if reading.grid is None:
            return self.integers.take(self.real(reading), grid)
        value, form = self._form(reading)
        return value if form is None or form == grid else self.integers.again(value, form, grid)

    def grid_form(self, reading: Reading) -> tuple[Output, Grid]:
        """It as integers of the grid that it lies on, and that."""
        value, form = self._form(reading)
        assert form is not None
        return value, form

    def _form(self, reading: Reading) -> tuple[Output, Grid | None]:
        """The value in the form in which it stands in the graph, and the grid of that; None for real numbers."""
        key = reading.blob, reading.rounded
        if key not in self._rounded:
            value, form = self.values[reading.blob], self.stored.get(reading.blob)
            for grid in reading.rounded:
                real = value if form is None else self.integers.real(value, form)
                value, form = self.integers.take(real, grid), grid
            self._rounded[key] = value, form
        return self._rounded[key]

    def inputs(self, node: Node) -> list[Output]:
        """The bottoms of a layer that multiplies nothing, as it computes with them."""
        run, grid = self.stored.run, self.stored.get(node.tops[0]) if node.tops else None
        readings = self.readings(node.index, node.bottoms)
        at_one = run.at_one.get(node.index)
        if at_one is not None:  # what its inputs are scaled by is forgotten
            return [self.on_grid(reading, at_one) for reading in readings]
        unscaled = run.unscaled.get(node.index, (False,) * len(readings))
        return [
            self._unscaled(reading, grid, run.concat_scales.get(node.index, 1.0))
            if as_is
            else self.real(reading)
            if grid is None or node.type in MAKES_REAL
            else self.on_grid(reading, grid)
            for reading, as_is in zip(readings, unscaled, strict=True)
        ]

    def _unscaled(self, reading: Reading, grid: Grid | None, scale: float) -> Output:
        """What a Concat of `scale` makes of an input with scale 1."""
        if grid is None:
            return ops.multiply(self.real(reading), np.float32(1.0 / scale)).output(0)
        return self.integers.take(self.real(reading), grid, unit=1.0 / grid.scale)

    def added(self, inputs: Sequence[Output], coefficients: Sequence[float], grid: Grid) -> Output:
        """Σ c·x of integers, rounded and saturated after each term as mkl-dnn's reference sum does."""
        total = inputs[0]
        for i, (x, coefficient) in enumerate(zip(inputs, coefficients, strict=True)):
            term = x if coefficient == 1.0 else ops.multiply(x, np.float32(coefficient)).output(0)
            total = term if i == 0 else ops.add(total, term).output(0)
            if i > 0 or coefficient != 1.0:
                total = self.integers.store(total, grid)
        return total


MAKES_REAL = frozenset({"BatchNorm", "Scale"})
"""Layers that compute real numbers even where their output is stored as integers."""
