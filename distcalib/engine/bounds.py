"""How large a layer's result can be, from how large its inputs are: what of the FP32 net need not be looked at.

To look at every value of every batch would take longer than a tenth of the net. But where no input of a convolution is
above `SOURCE`, its results are at most the largest sum of |w| of an output times that, whatever the images are. So from
the data on bounds are handed from layer to layer; where one gets above `MOST`, its input is looked at, which begins
anew. For ResNet-50 that is a handful of its values.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.aliases import SHARED
from distcalib.quantize.fusion import batch_norm_affine, uses_global_stats

SOURCE = 1e12
"""What data may be, and the sum of |x| of a value that is looked at: squares of it are far from MOST."""
MOST = 1e33
"""Less than float32's 3.4e38 by more than the number of values in any sum that a pooling takes."""

_NO_LARGER = frozenset(
    {"Concat", "Crop", "Dropout", "Flatten", "Permute", "Pooling", "Reorg", "Reshape", "ShuffleChannel", "Silence"}
    | {"Slice", "Split", "Squeeze", "Tile", "ReLU6", SHARED, "Input", "DummyData"}
)
"""Types whose results are numbers of their inputs, means of them, or zeros."""
_UP_TO_ONE = frozenset({"Sigmoid", "Softmax", "TanH"})


def gain(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> tuple[float, float]:
    """The largest sum of |w| of an output, and the largest |b|; weights are output channels first. NaN is infinite."""
    rows = weight.reshape(weight.shape[0], -1)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [float(np.abs(rows[i : i + 64]).sum(axis=1, dtype=np.float64).max()) for i in range(0, len(rows), 64)]
        gains = max(sums, default=0.0), float(np.abs(bias).max(initial=0.0))
    return gains if np.isfinite(sums).all() and np.isfinite(gains).all() else (np.inf, np.inf)


def bound(
    layer: caffe_pb2.LayerParameter, inputs: Sequence[float], blobs: Sequence[NDArray[np.float32]] = ()
) -> float | None:
    """What no result of `layer` is above in absolute value, if none of its inputs is above `inputs`; None: not known.

    `blobs` are those of the caffemodel. A type that is not here may make infinity of small inputs, as Exp does, or NaN,
    as Log.
    """
    largest = max(inputs, default=0.0)
    if layer.type in _NO_LARGER:
        return largest
    if layer.type in _UP_TO_ONE:
        return 1.0
    if layer.type in ("PriorBox", "PriorBoxClustered"):  # made of sizes alone
        return SOURCE
    if layer.type == "ReLU":
        return max(1.0, abs(layer.relu_param.negative_slope)) * largest
    if layer.type == "PReLU" and blobs:
        return max(1.0, float(np.abs(blobs[0]).max(initial=0.0))) * largest
    if layer.type == "Power" and layer.power_param.power == 1.0:
        return abs(layer.power_param.scale) * largest + abs(layer.power_param.shift)
    if layer.type == "LRN" and layer.lrn_param.k >= 1.0 and layer.lrn_param.alpha >= 0.0 and largest <= SOURCE:
        return largest
    if layer.type == "Eltwise":
        return _eltwise(layer.eltwise_param, inputs)
    linear = _linear(layer, blobs)
    return None if linear is None or len(inputs) != 1 else linear[0] * largest + linear[1]


def _linear(layer: caffe_pb2.LayerParameter, blobs: Sequence[NDArray[np.float32]]) -> tuple[float, float] | None:
    """`gain` of a layer that adds up and multiplies, but not a Convolution or InnerProduct: those are folded before."""
    if layer.type == "Scale" and blobs:
        return gain(np.reshape(blobs[0], (-1, 1)), np.ravel(blobs[1]) if len(blobs) > 1 else np.zeros(1, np.float32))
    if layer.type == "Deconvolution" and blobs and blobs[0].ndim == 4:
        bias = np.ravel(blobs[1]) if len(blobs) > 1 else np.zeros(1, np.float32)
        return gain(np.moveaxis(blobs[0], 1, 0), bias)
    if layer.type == "BatchNorm" and len(blobs) >= 2 and uses_global_stats(layer):
        with np.errstate(all="ignore"):
            a, c = batch_norm_affine(layer, tuple(blobs))
            return gain(a.astype(np.float32).reshape(-1, 1), c.astype(np.float32))
    return None


def _eltwise(param: caffe_pb2.EltwiseParameter, inputs: Sequence[float]) -> float | None:
    if param.operation == param.MAX:
        return max(inputs)
    if param.operation == param.SUM:
        factors = list(param.coeff) or [1.0] * len(inputs)
        return sum(abs(factor) * x for factor, x in zip(factors, inputs, strict=True))
    return None
