"""Softmax along an axis."""

from __future__ import annotations

import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import canonical_axis, shape_of


@converts("Softmax")
def softmax(layer: Layer, x: Output) -> Output:
    """exp(x - max) / Σ exp(x - max) along `axis`."""
    p = layer.param("softmax_param")
    layer.require(
        p.normalize_type == "Softmax", f'normalize_type="{p.normalize_type}" of another Caffe is not converted here'
    )
    return ops.softmax(x, canonical_axis(layer, p.axis, len(shape_of(x)))).output(0)
