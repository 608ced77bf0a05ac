"""Bring V0 layers (2013, `layers { layer { type: "conv" kernelsize: 3 } }`) to V1.

V0 had one flat message for all types, and a type of its own for padding, whose pad moves into the layer after it."""

from __future__ import annotations

from typing import Any

from distcalib.caffe import caffe_pb2

#: V0's type string -> V1's enum value; "padding" disappears.
V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

#: V0's type -> the V1 message that its parameters moved to.
PARAM_OF_TYPE = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}

#: V0's field -> its name in that message, and the types that have it.
MOVED = {
    "num_output": ("num_output", ("conv", "innerproduct")),
    "biasterm": ("bias_term", ("conv", "innerproduct")),
    "weight_filler": ("weight_filler", ("conv", "innerproduct")),
    "bias_filler": ("bias_filler", ("conv", "innerproduct")),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "stride": ("stride", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", ("data", "hdf5_data", "images", "window_data", "infogain_loss")),
    "batchsize": ("batch_size", ("data", "hdf5_data", "images", "window_data")),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}

#: V0's field -> its name in transform_param, whatever the type.
TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

#: Fields of V1's own that a V0 entry may have around its `layer`.
AROUND_V0 = ("bottom", "top", "layer")


def upgrade_v0_layers(net: caffe_pb2.NetParameter) -> list[str]:
    """Bring all V0 entries of net.layers to V1 in place; returns what has no counterpart, a phrase each.

    Entries that are V1 already stay as they are."""
    if not any(entry.HasField("layer") for entry in net.layers):
        return []
    problems: list[str] = []
    unpadded = _fold_padding(net, problems)
    upgraded = [_upgrade_layer(entry, problems) if entry.HasField("layer") else entry for entry in unpadded]
    del net.layers[:]
    net.layers.extend(upgraded)
    return problems


def _fold_padding(net: caffe_pb2.NetParameter, problems: list[str]) -> list[caffe_pb2.V1LayerParameter]:
    """Copies of net.layers without the padding layers, whose pad and bottom their consumers take over."""
    producer: dict[str, caffe_pb2.V1LayerParameter] = {}
    kept = []
    for entry in net.layers:
        copy = caffe_pb2.V1LayerParameter()
        copy.CopyFrom(entry)
        if entry.layer.type != "padding":
            kept.append(copy)
        for i, bottom in enumerate(entry.bottom):
            source = producer.get(bottom)
            if source is None or source.layer.type != "padding":
                continue
            if entry.layer.type not in ("conv", "pool") or len(entry.bottom) != 1:
                problems.append(
                    f"layer '{entry.layer.name}' ({entry.layer.type}): reads a padding layer, which only a conv or "
                    "pool with one bottom can"
                )
            elif len(source.bottom) != 1 or len(source.top) != 1:
                problems.append(f"layer '{source.layer.name}' (padding): needs one bottom and one top")
            else:
                copy.layer.pad = source.layer.pad
                copy.bottom[i] = source.bottom[0]
        producer.update((top, entry) for top in entry.top)
    return kept


def _upgrade_layer(entry: caffe_pb2.V1LayerParameter, problems: list[str]) -> caffe_pb2.V1LayerParameter:
    """The V1 form of a V0 entry; what has no counterpart is appended to `problems`."""
    old = entry.layer
    where = f"layer '{old.name}' ({old.type})"
    new = caffe_pb2.V1LayerParameter(
        bottom=entry.bottom, top=entry.top, blobs=old.blobs, blobs_lr=old.blobs_lr, weight_decay=old.weight_decay
    )
    strays = [field.name for field, _ in entry.ListFields() if field.name not in AROUND_V0]
    if strays:
        problems.append(f"{where}: {', '.join(strays)} cannot stand beside `layer {{ }}`")
    if old.HasField("name"):
        new.name = old.name
    if old.type in V0_TYPES:
        new.type = getattr(caffe_pb2.V1LayerParameter, V0_TYPES[old.type])
    else:
        problems.append(f"{where}: no such type in V0; one of {', '.join(V0_TYPES)} is")
        return new
    for field, value in old.ListFields():
        if field.name in TRANSFORM:
            setattr(new.transform_param, TRANSFORM[field.name], value)
        elif field.name in MOVED and old.type in MOVED[field.name][1]:
            _put(getattr(new, PARAM_OF_TYPE[old.type]), MOVED[field.name][0], value)
        elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
            new.hdf5_output_param.CopyFrom(value)
    return new


def ignored_parameters(net: caffe_pb2.NetParameter) -> list[str]:
    """A phrase for each V0 layer that has parameters of other types: Caffe logs them, and goes on without them."""
    phrases = []
    for old in (entry.layer for entry in net.layers if entry.HasField("layer")):
        strays = [
            field.name for field, _ in old.ListFields() if old.type in V0_TYPES and _is_stray(field.name, old.type)
        ]
        if strays:
            phrases.append(f"layer '{old.name}' ({old.type}): {', '.join(strays)}")
    return phrases


def _is_stray(name: str, layer_type: str) -> bool:
    if name in TRANSFORM or name in ("name", "type", "blobs", "blobs_lr", "weight_decay"):
        return False
    if name in MOVED:
        return layer_type not in MOVED[name][1]
    return not (name == "hdf5_output_param" and layer_type == "hdf5_output")


def _put(message: Any, name: str, value: Any) -> None:
    """Set, append to or copy into the field `name`, whichever it takes (pad is repeated in Convolution only)."""
    field = getattr(message, name)
    if hasattr(field, "append"):
        field.append(value)
    elif hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    else:
        setattr(message, name, value)
