"""Bring nets of all formats that Caffe ever read to `layer { type: "..." }`.

Three formats came before: V0 (2013, `layers { layer { type: "conv" } }`), V1 (2014, `layers { type: CONVOLUTION }`)
and net-level inputs (`input`, `input_dim`, `input_shape`). The semantics are those of BVLC Caffe's
src/caffe/util/upgrade_proto.cpp, with one decision of our own: where Caffe logs "had problems ... continuing anyway"
and drops a parameter, this raises, because a net that was read wrongly would be measured wrongly. Caffe's fourth
upgrade, the learning rates of BatchNorm's blobs, changes nothing in TEST and is not done."""

from __future__ import annotations

from distcalib.caffe import caffe_pb2
from distcalib.caffe.forks import FOREIGN
from distcalib.caffe.upgrade_v0 import upgrade_v0_layers
from distcalib.errors import FormatError

#: V1's enum value -> type; NONE (0) is an empty type there too.
V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BN": "BN",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "ELTWISE_ACCURACY": "Accuracy",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "IMAGE_SEG_DATA": f"ImageSegData{FOREIGN}",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "UNPOOLING": "Unpooling",
    "WINDOW_DATA": "WindowData",
    "WINDOW_SEG_DATA": f"WindowSegData{FOREIGN}",
}

#: Layer types whose scale, mean_file, crop_size and mirror moved to transform_param, with the old place.
MOVED_TO_TRANSFORM = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def upgrade_net(net: caffe_pb2.NetParameter, where: str) -> None:
    """Bring `net`, as parsed from the file `where`, to today's format in place.

    FormatError names all that has no counterpart today, and a net that mixes `layer` and `layers` (Caffe ignores
    the former, which nobody can want)."""
    if net.layers and net.layer:
        raise FormatError(
            f"{where}: has {len(net.layer)} `layer` and {len(net.layers)} `layers` messages, and Caffe would ignore "
            "the former; write all of them as `layer`"
        )
    problems = upgrade_v0_layers(net)
    if problems:
        raise FormatError(f"{where}: cannot be upgraded from the V0 format: {'; '.join(problems)}")
    net.layer.extend(upgrade_v1_layer(old) for old in net.layers)
    net.ClearField("layers")
    try:
        upgrade_inputs(net)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None


def upgrade_v1_layer(old: caffe_pb2.V1LayerParameter) -> caffe_pb2.LayerParameter:
    """The V1 layer `old` as today's; parameters, rules and blobs keep their content.

    DeconvNet's ELTWISE_ACCURACY is an Accuracy, whose positions are pixels (HyeonwooNoh/caffe,
    eltwise_accuracy_layer.cpp); what its data layers read is not told, so that they must be fed.
    """
    new = caffe_pb2.LayerParameter(
        bottom=old.bottom, top=old.top, include=old.include, exclude=old.exclude, blobs=old.blobs,
        loss_weight=old.loss_weight,
    )  # fmt: skip
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        new.type = V1_TYPES[caffe_pb2.V1LayerParameter.LayerType.Name(old.type)]
    _upgrade_param_specs(old, new)
    for field, value in old.ListFields():
        if field.name == "eltwise_accuracy_param":
            new.accuracy_param.top_k = value.top_k
            if value.HasField("ignore_label"):
                new.accuracy_param.ignore_label = value.ignore_label
        elif field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    _move_transform_fields(new)
    return new


def _upgrade_param_specs(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    """V1's four parallel lists, one entry a blob and each as long as it likes, become one ParamSpec a blob."""
    lengths = (len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))
    specs = [new.param.add() for _ in range(max(lengths))]
    for spec, name in zip(specs, old.param, strict=False):
        spec.name = name
    for spec, mode in zip(specs, old.blob_share_mode, strict=False):
        name = caffe_pb2.V1LayerParameter.DimCheckMode.Name(mode)
        spec.share_mode = caffe_pb2.ParamSpec.STRICT if name == "STRICT" else caffe_pb2.ParamSpec.PERMISSIVE
    for spec, rate in zip(specs, old.blobs_lr, strict=False):
        spec.lr_mult = rate
    for spec, decay in zip(specs, old.weight_decay, strict=False):
        spec.decay_mult = decay


def _move_transform_fields(layer: caffe_pb2.LayerParameter) -> None:
    """Only layers that came as V1 are treated so: on today's `layer` Caffe ignores these fields of data_param."""
    place = MOVED_TO_TRANSFORM.get(layer.type)
    if place is None or not layer.HasField(place):
        return
    source = getattr(layer, place)
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if source.HasField(name):
            setattr(layer.transform_param, name, getattr(source, name))
            source.ClearField(name)


def upgrade_inputs(net: caffe_pb2.NetParameter) -> None:
    """Turn net-level inputs into an Input layer named "input" before all others, in place; without inputs, nothing.

    A net has one input_shape an input, or four input_dim an input (N, C, H, W); FormatError for a wrong number of them.
    Inputs of no shape make no layer, as in Caffe, which fails later; here arrays may be given for what none makes."""
    n_inputs = len(net.input)
    if n_inputs == 0 and not net.input_dim and not net.input_shape:
        return
    if not net.input_dim and not net.input_shape:
        net.ClearField("input")
        return
    if net.input_shape:
        shapes = list(net.input_shape)
        given, needed = f"{len(shapes)} input_shape", n_inputs
    else:
        dims = list(net.input_dim)
        shapes = [caffe_pb2.BlobShape(dim=dims[i : i + 4]) for i in range(0, len(dims), 4)]
        given, needed = f"{len(dims)} input_dim", 4 * n_inputs
    if n_inputs != len(shapes) or (not net.input_shape and needed != len(net.input_dim)):
        raise FormatError(
            f"the net has {n_inputs} `input` and {given}; give one input_shape an input, or four input_dim (N, C, H, W)"
        )
    layers = list(net.layer)
    first = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
    first.input_param.shape.extend(shapes)
    copies = [first]
    for layer in layers:  # inserting into a repeated field is not possible, so all are set anew
        copy = caffe_pb2.LayerParameter()
        copy.CopyFrom(layer)
        copies.append(copy)
    del net.layer[:]
    net.layer.extend(copies)
    for name in ("input", "input_dim", "input_shape"):
        net.ClearField(name)
