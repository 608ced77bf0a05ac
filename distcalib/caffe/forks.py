"""What other forks of Caffe add to its nets: types that are others by another name, and fields.

A fork's field is one that caffe.proto numbers from FIRST on.  At its default it changes nothing.  With another value it
either has a meaning here (APPLIED, told by whoever reads it) or matters for training alone (TRAINING), or the net is
refused by layer and field: what was not understood must not be measured.  Sources are named at each rule; where forks
give one name to different things the parameters decide, as is told in layers/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from distcalib.caffe import caffe_pb2

FIRST = 10001
"""The number of the first field of a fork in each message: scripts/tools/fork_fields.json."""

FOREIGN = " of another Caffe"
"""What stands behind the type of a data layer that has fields of another Caffe; it is not written."""

APPLIED = frozenset(
    {
        "PoolingParameter.ceil_mode",
        "PoolingParameter.round_mode",
        "ConvolutionParameter.dilation_h",
        "ConvolutionParameter.dilation_w",
        "ConvolutionParameter.pad_b",
        "ConvolutionParameter.pad_l",
        "ConvolutionParameter.pad_r",
        "ConvolutionParameter.pad_t",
        "ConvolutionParameter.pad_type",
        "BatchNormParameter.add_eps_before_sqrt",
        "BatchNormParameter.scale_bias",
        "DropoutParameter.sample_weights_test",
        "DropoutParameter.scale_train",
        "InnerProductParameter.normalize",
        "LossParameter.class_weighting",
        "LossParameter.weight_by_label_freqs",
        "PoolingParameter.pad_b",
        "PoolingParameter.pad_l",
        "PoolingParameter.pad_r",
        "PoolingParameter.pad_t",
        "PoolingParameter.pad_type",
        "PriorBoxParameter.width",
        "SoftmaxParameter.normalize_type",
        "PriorBoxParameter.height",
        "ROIPoolingParameter.pad_ratio",
        "ScaleParameter.max_value",
        "ScaleParameter.min_value",
    }
)
"""Fields that a converter reads."""

_ND_SHAPES = frozenset({"kernel_shape", "pad_shape", "stride_shape"})
"""What an NdPooling has in place of kernel_size and the like."""
_OF_TYPE = {
    "ImageSegData": frozenset(
        {
            "ImageDataParameter.ignore_label",
            "ImageDataParameter.label_type",
            "TransformationParameter.crop_height",
            "TransformationParameter.crop_width",
            "TransformationParameter.scale_factors",
        }
    ),
    "NdPooling": frozenset(f"PoolingParameter.{name}" for name in _ND_SHAPES),
}
"""Fields that a layer of one type alone reads, or refuses, itself."""

TRAINING = frozenset(
    {
        "ConvolutionParameter.conv_algos_override",
        "ConvolutionParameter.cudnn_convolution_algo_seeker",
        "DataParameter.cache",
        "DataParameter.parser_threads",
        "DataParameter.precache",
        "DataParameter.threads",
        "DropoutParameter.random_seed",
        "FillerParameter.file",
        "FillerParameter.alpha",
        "FillerParameter.diag_val",
        "BatchNormParameter.update_global_stats",
        "BatchNormParameter.frozen",
        "BatchNormParameter.scale_filler",
        "SoftmaxParameter.hard_ratio",
        "SoftmaxParameter.hard_mining_label",
        "SoftmaxParameter.cutting_point",
        "AccuracyParameter.min_is_better",
        "AnnotatedDataParameter.single_class",
        "AnnotatedDataParameter.yolo_data_jitter",
        "AnnotatedDataParameter.train_diffcult",
        "AnnotatedDataParameter.difficult_label_warmup",
        "ImageDataParameter.cache",
        "ImageDataParameter.precache",
        "ImageDataParameter.threads",
        "LayerParameter.backward_math",
        "LayerParameter.backward_type",
        "LayerParameter.forward_math",
        "LayerParameter.forward_type",
        "TransformationParameter.display",
        "TransformationParameter.random_seed",
        "TransformationParameter.scale_factors",
        "TransformationParameter.use_gpu_transform",
        "TransformationParameter.fix_crop",
        "TransformationParameter.more_fix_crop",
        "TransformationParameter.multi_scale",
        "WindowDataParameter.shuffle",
    }
)
"""Fields that only training reads, or that choose how an equal result is computed."""

NVIDIA_EPS = 1e-5
"""The least eps of a BatchNorm of NVIDIA's Caffe."""
_CONVOLUTIONS = frozenset({"DepthwiseConvolution", "ConvolutionDepthwise", "NdConvolution"})
FORK_TYPES = _CONVOLUTIONS | {
    "BN",
    "BoxGroupOutput",
    "BoxOutput",
    "ChannelScale",
    "Clip",
    "DecodeBBox",
    "DenseImageData",
    "FrcnnOutput",
    "Flip",
    "Gather",
    "HardSwish",
    "ImageSegData",
    "InnerDistance",
    "Interp",
    "Lstm",
    "MaskPooling",
    "Mish",
    "Mul",
    "NdPooling",
    "NormFaceInnerProduct",
    "Pad",
    "PriorBoxClustered",
    "Proposal",
    "ROIAlign",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "Reverse",
    "ReLU6",
    "ScaleRoute",
    "SegAccuracy",
    "ShuffleChannel",
    "Squeeze",
    "Transpose",
    "Upsample",
    "Unpooling",
    "UpsampleDarknet",
    "YoloDetectionOutput",
    "Yolov3DetectionOutput",
}
"""Layer types that are converted and that Intel Caffe 1.1.6 does not have."""


def plain_type(layer_type: str) -> str:
    """The type that one is by another name; the type itself otherwise."""
    return "Convolution" if layer_type in _CONVOLUTIONS else layer_type


def lower(layer: caffe_pb2.LayerParameter) -> None:
    """Write a type that is another by a second name as that one, in place.

    DepthwiseConvolution is a Convolution with this convolution_param (yonghenglh6/DepthwiseConvolution);
    ConvolutionDepthwise has one kernel a channel, whatever `group` says (farmingyard/ShuffleNet's
    conv_dw_layer.cpp: weights (num_output, 1, KH, KW), num_output = channels).  A ReLU with `relu6: true` is a ReLU6
    (synopsys-caffe, relu_layer.cpp).  A BatchNorm with scale_bias has five blobs, as one that Intel Caffe merged, and
    an eps of NVIDIA_EPS at least (NVIDIA/caffe, batch_norm_layer.cpp).  An NdConvolution has kernel_shape, stride_shape
    and pad_shape, a number for each axis (chuckcho/video-caffe, cudnn_ndconv_layer.cpp).  An InnerProduct with
    `normalize`, or whose weights are a bottom, is not Caffe's (layers/distance.py).
    """
    if layer.type == "ReLU" and layer.relu_param.relu6:
        layer.type = "ReLU6"
        layer.relu6_param.negative_slope = layer.relu_param.negative_slope
        layer.relu_param.ClearField("relu6")
    if layer.type == "BatchNorm" and layer.batch_norm_param.scale_bias:
        layer.batch_norm_param.eps = max(layer.batch_norm_param.eps, NVIDIA_EPS)
    if layer.type == "InnerProduct" and (len(layer.bottom) > 1 or layer.inner_product_param.normalize):
        layer.type = "NormFaceInnerProduct"
    if layer.type not in _CONVOLUTIONS:
        return
    if layer.type == "NdConvolution":
        param = layer.convolution_param
        for name, shape in (("kernel_size", "kernel_shape"), ("stride", "stride_shape"), ("pad", "pad_shape")):
            if param.HasField(shape):
                getattr(param, name)[:] = getattr(param, shape).dim
                param.ClearField(shape)
    if layer.type == "ConvolutionDepthwise":
        layer.convolution_param.group = layer.convolution_param.num_output
    layer.type = "Convolution"


def fork_faults(layers: Iterable[caffe_pb2.LayerParameter]) -> list[str]:
    """A sentence for each field of another fork that is not at its default and has no meaning here."""
    return [
        f"layer '{layer.name}' ({layer.type}): {path} is {_shown(value)}, a field of another Caffe that is not "
        "converted; remove it if its value changes nothing"
        for layer in layers
        for path, owner, field, value in _fork_fields(layer, "")
        if f"{owner}.{field.name}" not in APPLIED | TRAINING | _OF_TYPE.get(layer.type, frozenset())
        and (
            field.name in _ND_SHAPES
            or (field.message_type is None and (_several(value) or value != field.default_value))
        )
    ]


def of_other_forks(layers: Iterable[caffe_pb2.LayerParameter]) -> list[str]:
    """The types and fields in `layers` that Intel Caffe 1.1.6 does not have, each once, in their order."""
    names: list[str] = []
    for layer in layers:
        if layer.type in FORK_TYPES:
            names.append(layer.type)
        else:
            names += [field.name for _, _, field, _ in _fork_fields(layer, "")]
        if layer.pooling_param.pool == caffe_pb2.PoolingParameter.AVE_EXC_PAD:
            names.append("AVE_EXC_PAD")
    return list(dict.fromkeys(names))


def _fork_fields(message: Message, path: str) -> Iterator[tuple[str, str, FieldDescriptor, object]]:
    """The fields of forks that are set in a message: path, name of the owner, field and value.

    A message that is a fork's own is one such field; what is in it is its converter's business.
    """
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        if field.number >= FIRST:
            yield name, message.DESCRIPTOR.name, field, value
        elif field.message_type is not None and field.name != "blobs":
            for one in value if _several(value) else [value]:
                yield from _fork_fields(one, f"{name}.")


def _several(value: object) -> bool:
    return not isinstance(value, (str, bytes, float, int, Message))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if _several(value) else str(value)  # type: ignore[call-overload]
