"""Which layers keep the records of a batch apart: a row of what they make is of the same row of what they read."""

from collections.abc import Callable, Mapping
from math import prod

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import Blob, Node
from distcalib.data import VARIES
from distcalib.quantize.fusion import uses_global_stats

_AXES: Mapping[str, Callable[[LayerParameter], int]] = {
    "Accuracy": lambda layer: layer.accuracy_param.axis,
    "ArgMax": lambda layer: layer.argmax_param.axis if layer.argmax_param.HasField("axis") else 1,
    "Concat": lambda layer: _either(layer.concat_param.axis, layer.concat_param.concat_dim),
    "InnerProduct": lambda layer: layer.inner_product_param.axis,
    "Reduction": lambda layer: layer.reduction_param.axis,
    "Slice": lambda layer: _either(layer.slice_param.axis, layer.slice_param.slice_dim),
    "Softmax": lambda layer: layer.softmax_param.axis,
    "SoftmaxWithLoss": lambda layer: layer.softmax_param.axis,
}
"""The axis that layers of a type work along: records are taken together where it is the first."""


def mixes(node: Node, shapes: Mapping[Blob, tuple[int, ...]], batch: int) -> bool:
    """Whether a row of the layer's tops may be of other records than the same row of its bottoms."""
    layer, rank = node.layer, len(shapes.get(node.bottoms[0], ())) if node.bottoms else 0
    if node.type == "BatchNorm":
        return not uses_global_stats(layer)
    if node.type == "Permute":
        return bool(layer.permute_param.order) and layer.permute_param.order[0] != 0
    if node.type in _AXES:
        return _AXES[node.type](layer) in (0, -rank)
    if node.type in ("Flatten", "Reshape", "Tile"):
        return shapes[node.bottoms[0]][:1] == (batch,) and any(shapes[top][:1] != (batch,) for top in node.tops)
    return False


def has_row_a_record(shape: tuple[int, ...], batch: int) -> bool:
    """Whether a blob of `shape` has a row for each record of a batch, or as many as there are boxes."""
    return VARIES in shape or (shape[:1] == (batch,) and prod(shape) > 0)


def _either(axis: int, legacy: int) -> int:
    """The axis of two fields that are both 1 where the prototxt does not say, and not both given."""
    return axis if legacy == 1 else legacy
