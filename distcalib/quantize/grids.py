"""Integers that stand for real values: the grid of a stored value, and that of a quantization_param's input."""

from collections.abc import Mapping
from dataclasses import dataclass

from distcalib.caffe import caffe_pb2

INT8 = 8
# The u8 that stands for zero in the input of a layer with force_u8_input.
ZERO_POINT = 128
Params = Mapping[str, caffe_pb2.QuantizationParameter]


@dataclass(frozen=True)
class Grid:
    """Integers q standing for q/scale: u8 in [0, 255], or s8 in [-128, 127] if `signed`."""

    scale: float
    signed: bool

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -128 if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return 127 if self.signed else 255

    def __str__(self) -> str:
        return f"{'s8' if self.signed else 'u8'}/{self.scale:.6g}"


def input_grid(param: caffe_pb2.QuantizationParameter) -> Grid:
    """The grid that a quantized layer rounds its input to."""
    return Grid(param.scale_in[0], param.is_negative_input)
