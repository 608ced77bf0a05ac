"""-fu: the first convolution on u8 input, which the data layer makes.

The plain net rounds x = (p - mean)·scale to s8 on the way into the first convolution. Here the data layer itself gives
x' = x·scale_in + 128, which the convolution takes as u8 without scaling, and its bias takes the 128 back out. Hence
scale' = scale_in·scale, mean' = mean - 128/scale', and the data layer pads, since in the convolution 0 is no zero any
more. It should pad with 128; Intel Caffe's pads with pixels of 0, and raw records not at all (data/transform.py), which
costs accuracy: it is measured as it is.

The predecessor takes (128/scale_in)·Σw from the bias, w being the weights as they are. Here w are the integers that
are multiplied, over their scale: then the accumulators are those of the plain net, but where the frame shows. With the
weights as they are each channel is off by 128 times the sum of its rounding errors (resnet20, measured in
docs/decisions/007-a-first-convolution-on-u8.md). Source: Intel Caffe's first_conv_force_u8.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, caffe_pb2, shared_params
from distcalib.caffe.graph import Graph
from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import Fused, affine, fold
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.storage import ZERO_POINT, weight_integers

_S32_MAX = 2**31 - 1
TRANSFORMING = ("Data", "ImageData", "AnnotatedData")
"""The data layers whose values transform_param makes."""


@dataclass(frozen=True)
class Forced:
    """What -fu changes: two layers of the net and the blobs of one."""

    data: caffe_pb2.LayerParameter
    convolution: caffe_pb2.LayerParameter
    blobs: tuple[NDArray[np.float32], ...]


def refuse_unforceable(quantizer: Quantizer, where: str) -> None:
    """Raise UnsupportedError with all that keeps the first convolution of the net from u8 input."""
    name = quantizer.first
    if name is None:
        raise UnsupportedError(f"{where}: has no convolution whose input -fu could make u8; leave out -fu")
    problems = [f"{where}: layer '{name}' (Convolution): {problem}" for problem in _problems(quantizer, name)]
    if problems:
        raise UnsupportedError("; ".join(problems))


def ignores_data(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether a reader of the data looks neither at its values nor at its size, which a PriorBox may be told."""
    return layer.type == "EvalDetection" or bool(layer.prior_box_param.img_size or layer.prior_box_param.img_h)


def _problems(quantizer: Quantizer, name: str) -> Iterator[str]:
    """What is in the way of -fu, each with its remedy."""
    graph, group = quantizer.graph, quantizer.groups[name]
    if name in quantizer.refused:
        yield f"cannot be INT8 ({quantizer.refused[name]}), and -fu needs that; leave out -fu"
    elif group.residual is not None:
        yield "is fused with a sum, whose other input -fu cannot shift; leave out -fu"
    pad = _pads(group.node.layer.convolution_param)
    if pad[0] != pad[1]:
        yield f"pads {pad[0]} rows and {pad[1]} columns, and a data layer pads both alike; leave out -fu"
    shared = shared_params([node.layer for node in graph])
    names = [share.param for (layer, _), share in shared.items() if layer == name]
    if names:
        yield f"shares weights with other layers (param '{names[0]}'), and -fu changes its own; leave out -fu"
    data = graph.producer[group.input]
    if data.type not in TRANSFORMING or group.input != data.tops[0]:
        yield (
            f"reads '{group.input.name}' of layer '{data.name}' ({data.type}), which has no transform_param for -fu to "
            f"write to; {', '.join(TRANSFORMING)} layers have one, else leave out -fu"
        )
        return
    readers = [node for node in graph.consumers[group.input] if node is not group.node]
    priors = [node for node in readers if node.type == "PriorBox"]
    sized = ", ".join(f"'{node.name}'" for node in priors if not ignores_data(node.layer))
    if sized and pad[0]:
        yield f"pads, and -fu would pad '{group.input.name}', whose size {sized} takes; give these img_h and img_w"
    others = ", ".join(f"'{node.name}'" for node in readers if node not in priors and not ignores_data(node.layer))
    if others:
        yield f"shares its input '{group.input.name}' with {others}, which would read u8; leave out -fu"
    transform = data.layer.transform_param
    if transform.mean_file:
        yield f"layer '{data.name}' subtracts a mean_file, into which -fu writes nothing; give mean_value instead"
    if transform.scale == 0.0:
        yield f"layer '{data.name}' has scale 0 in transform_param, so all images are alike; correct it"


def force_u8(graph: Graph, group: Fused, param: caffe_pb2.QuantizationParameter, weights: Weights, clx: bool) -> Forced:
    """The layers that -fu changes, from the parameters `param` of the first convolution as -1st makes them.

    Without `clx` the weights' scales are halved, so that pairs of u8·s8 products fit the int16 of CPUs without VNNI.
    `weights` are those of the caffemodel given. Asks for a net that refuse_unforceable lets pass; raises
    UnsupportedError if the new bias is no s32.
    """
    data, convolution = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    data.CopyFrom(graph.producer[group.input].layer)
    convolution.CopyFrom(group.node.layer)
    quantization = convolution.quantization_param
    quantization.CopyFrom(param)
    quantization.is_negative_input = False
    quantization.force_u8_input = True
    if not clx:
        quantization.scale_params[:] = [0.5 * scale for scale in param.scale_params]
    transform, geometry = data.transform_param, convolution.convolution_param
    move_pad(data, convolution)
    scale = param.scale_in[0] * transform.scale
    transform.mean_value[:] = [mean - ZERO_POINT / scale for mean in transform.mean_value or [0.0]]
    transform.scale = scale
    geometry.bias_term = True
    own = weights[group.name]
    bias = _bias(group, quantization, weights)
    return Forced(data, convolution, (own[0], bias.reshape(own[1].shape) if len(own) > 1 else bias))


def move_pad(data: caffe_pb2.LayerParameter, convolution: caffe_pb2.LayerParameter) -> bool:
    """Let the data layer pad in place of the convolution that reads it; whether there is anything to pad."""
    geometry = convolution.convolution_param
    pad, _ = _pads(geometry)
    if pad:
        data.transform_param.pad = pad
        for name in ("pad", "pad_h", "pad_w"):
            geometry.ClearField(name)
    return pad > 0


def _bias(group: Fused, param: caffe_pb2.QuantizationParameter, weights: Weights) -> NDArray[np.float32]:
    """The convolution's own bias (M,) that becomes b_q - 128·Σw_q in the accumulator, BatchNorm and Scale folded in.

    It is put on the very integer, so that the rounding of two float32 sums cannot end beside it.
    """
    weight, folded = fold(group, weights)
    scales = np.broadcast_to(np.array(param.scale_params, np.float64), len(weight))
    unit = param.scale_in[0] * scales
    sums = weight_integers(weight, scales).reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    wanted = np.rint(folded * unit) - ZERO_POINT * sums
    if np.abs(wanted).max() > _S32_MAX:
        raise UnsupportedError(
            f"layer '{group.name}' (Convolution): its bias would leave 32 bits with -fu; leave out -fu"
        )
    slope, _ = affine(group, weights)
    own = weights[group.name]
    bias = np.asarray(own[1], np.float64).reshape(-1) if len(own) > 1 else np.zeros(len(weight))
    moved = (unit != 0.0) & (slope != 0.0)  # else the channel has no weights, and 128 adds nothing to it
    bias[moved] += ((wanted / np.where(moved, unit, 1.0) - folded) / np.where(moved, slope, 1.0))[moved]
    return bias.astype(np.float32)


def _pads(param: caffe_pb2.ConvolutionParameter) -> tuple[int, int]:
    """Rows and columns that a convolution pads on each side, in whichever of Caffe's spellings."""
    if param.HasField("pad_h") or param.HasField("pad_w"):
        return param.pad_h, param.pad_w
    return (param.pad[0], param.pad[-1]) if param.pad else (0, 0)
