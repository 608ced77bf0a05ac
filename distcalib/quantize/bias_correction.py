"""--bias-correction: the mean error that INT8 makes in a layer, taken out of the layer's bias.

Rounding weights and inputs shifts the mean of each output channel, since a layer's inputs are all positive or its
weights few; the layers that follow see a net that is off in one direction. The error of a layer is taken from the
inputs that FP32 gives it, so that one pass suffices for all layers and the correction of one does not depend on which
others are INT8. Correcting by what is off in the whole INT8 net counts every error once more in each layer behind it:
on resnet20 that more than doubles the distance of the logits from FP32's; this lowers it by a fifth (docs/recover.md).
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), section 4.2, with
measured in place of estimated means.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, shared_params
from distcalib.caffe.graph import Graph
from distcalib.quantize.fusion import Fused, affine, fold

Blobs = tuple[NDArray[np.float32], ...]


def correctable(graph: Graph, groups: Mapping[str, Fused]) -> tuple[str, ...]:
    """The layers of `groups` that have a bias of their own and channels at axis 1, in net order.

    Left alone are layers that share blobs with others, and inner products along another axis.
    """
    shared = {name for name, _ in shared_params([node.layer for node in graph])}
    return tuple(
        name
        for name, group in groups.items()
        if not shared & {node.name for node in group.members}
        and (group.node.type == "Convolution" or group.node.layer.inner_product_param.axis == 1)
    )


def corrected(group: Fused, weights: Weights, error: NDArray[np.float64]) -> Blobs:
    """The layer's own blobs with the bias that takes `error` (M,) out of what it makes, BatchNorm and Scale folded in.

    A layer without bias gets one, and must then have bias_term.  A channel without weights, or that BatchNorm or Scale
    multiplies by 0, makes no error but that of its bias, and keeps it.
    """
    weight, _ = fold(group, weights)
    own = weights[group.name]
    bias = np.asarray(own[1], np.float64).reshape(-1) if len(own) > 1 else np.zeros(len(weight))
    slope = np.ones(len(weight)) if group.batch_norm is None else affine(group, weights)[0]
    live = (slope != 0.0) & weight.reshape(len(weight), -1).any(axis=1)
    moved = np.where(live, bias - error / np.where(live, slope, 1.0), bias).astype(np.float32)
    # Of a channel that BatchNorm all but switched off, the bias may be more than float32 holds.
    moved = np.where(np.isfinite(moved), moved, bias.astype(np.float32))
    return own[0], moved.reshape(own[1].shape) if len(own) > 1 else moved
