"""Scaling the channels between two layers so that what the net computes stays as it was.

The output channels of a layer are multiplied, through its folded Scale if it has one, and the weights of the only layer
that reads them are divided by the same: between the two stand layers with f(a·x) = a·f(x) for a > 0 only. By powers of
two the net computes the same to the last bit.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.quantize.fusion import QUANTIZABLE, Fused, rows_first

Array = NDArray[np.float32]


def only_reader(graph: Graph, group: Fused) -> tuple[Node, tuple[Blob, ...]] | None:
    """The layer that multiplies the group's output, behind layers with f(a·x) = a·f(x), and the values from that output
    to its input; None if others see it too."""
    if group.eltwise is not None or (group.batch_norm is not None and group.scale is None):
        return None
    if not _has_channels(group.node):
        return None
    blob = group.output
    between = [blob]
    while (node := graph.only_consumer(blob)) is not None and len(node.bottoms) == len(node.tops) == 1:
        if node.type in QUANTIZABLE:
            found = node, tuple(between)
            return found if _has_channels(node) else None
        pools = caffe_pb2.PoolingParameter.MAX, caffe_pb2.PoolingParameter.AVE
        if node.type not in ("ReLU", "Pooling", "Split", "Dropout"):
            return None
        if node.type == "Pooling" and node.layer.pooling_param.pool not in pools:
            return None
        blob = node.tops[0]
        between.append(blob)
    return None


def _has_channels(node: Node) -> bool:
    """Whether the channels of what a convolution or inner product reads and makes lie along axis 1."""
    return node.type == "Convolution" or node.layer.inner_product_param.axis == 1


def by_channel(reader: Node, weight: Array, n_channels: int) -> Array:
    """The reader's weights as (groups, rows of a group, channels of a group, the rest)."""
    groups = reader.layer.convolution_param.group if reader.type == "Convolution" else 1
    rows = rows_first(reader.layer, weight)
    return rows.reshape(groups, len(rows) // groups, n_channels // groups, -1)


def scale_output(group: Fused, weights: dict[str, tuple[Array, ...]], factors: NDArray[np.float64]) -> None:
    """Multiply the group's output channels by `factors` (M,), in `weights`."""
    exact = factors.astype(np.float32)
    if group.scale is not None:
        weights[group.scale.name] = tuple(
            (blob.reshape(-1) * exact).reshape(blob.shape) for blob in weights[group.scale.name]
        )
        return
    weight, *bias = weights[group.name]
    scaled = _with_rows(group.node, weight, lambda rows: rows * exact.reshape(-1, *[1] * (rows.ndim - 1)))
    weights[group.name] = (scaled, *((blob.reshape(-1) * exact).reshape(blob.shape) for blob in bias))


def divide_input(reader: Node, weights: dict[str, tuple[Array, ...]], factors: NDArray[np.float64]) -> None:
    """Divide the reader's weights of each input channel by `factors` (C,), in `weights`."""
    weight, *bias = weights[reader.name]

    def divided(rows: Array) -> Array:
        parts = by_channel(reader, weight, len(factors))
        exact = factors.astype(np.float32).reshape(parts.shape[0], 1, parts.shape[2], 1)
        return (parts / exact).reshape(rows.shape)

    weights[reader.name] = (_with_rows(reader, weight, divided), *bias)


def _with_rows(node: Node, weight: Array, change: Callable[[Array], Array]) -> Array:
    """The stored form of `change` of the weights with their output channels first."""
    rows = change(rows_first(node.layer, weight))
    if node.type == "InnerProduct" and node.layer.inner_product_param.transpose:
        rows = rows.T
    return np.ascontiguousarray(rows.reshape(weight.shape), np.float32)
