"""HardTanh: max(-1, min(1, x)) of each element, shapes as they are."""

from openvino import Output
from openvino import opset13 as ops

from distcalib.layers import Layer, converts


@converts("HardTanh")
def hard_tanh(layer: Layer, x: Output) -> Output:
    """One bottom, one top; it has no parameters."""
    return ops.clamp(x, -1.0, 1.0).output(0)
