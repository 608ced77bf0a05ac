"""Write a caffemodel piece by piece, so that the weights are never held twice.

A caffemodel repeats each layer with its bottoms and tops and adds the blobs; tools that fold layers rely on that."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import clear_sources
from distcalib.caffe.weights import Weights
from distcalib.caffe.wire import header, varint
from distcalib.caffe.writing import Buffer, write_atomically
from distcalib.errors import OutputError, WeightsError

_NAME, _LAYER, _BLOBS, _DATA, _SHAPE, _DIM = 1, 100, 7, 5, 7, 1
#: protobuf's C++ runtime, Caffe's as well, parses no larger message.
MAX_BYTES = 2**31 - 1


def write_weights(
    path: str | os.PathLike[str], net_name: str, layers: Sequence[caffe_pb2.LayerParameter], weights: Weights
) -> None:
    """Write `layers` in their order with the blobs that `weights` has for their names; blobs in `layers` are ignored.

    Blobs are stored as packed float32 with their shape. WeightsError if `weights` names a layer that is not there;
    OutputError if the file cannot be written, or would be over 2 GiB, which Caffe could not read."""
    absent = sorted(set(weights) - {layer.name for layer in layers})
    if absent:
        raise WeightsError(f"{os.fspath(path)}: weights for {', '.join(absent)}, which are no layers of the net")
    n_bytes = sum(array.size * 4 for blobs in weights.values() for array in blobs)
    if n_bytes > MAX_BYTES:
        raise OutputError(f"{os.fspath(path)}: would have {n_bytes} bytes, and Caffe reads at most {MAX_BYTES}")
    write_atomically(path, _pieces(net_name, layers, weights))


def write_net_weights(path: str | os.PathLike[str], net: caffe_pb2.NetParameter, weights: Weights) -> None:
    """Write the caffemodel of `net`: its layers, with those blobs of `weights` that are theirs.

    The layers have no quantization_param, as those of an FP32 net: Caffe folds layers by what the caffemodel says of
    them. Nor have they paths, so that a net is the same bytes on every machine. Raises OutputError."""
    layers = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in net.layer]
    for layer in layers:
        layer.ClearField("quantization_param")
        clear_sources(layer)
    names = {layer.name for layer in layers}
    write_weights(path, net.name, layers, {name: blobs for name, blobs in weights.items() if name in names})


def _pieces(net_name: str, layers: Sequence[caffe_pb2.LayerParameter], weights: Weights) -> Iterator[Buffer]:
    name = net_name.encode()
    yield header(_NAME, len(name)) + name
    for layer in layers:
        bare = caffe_pb2.LayerParameter()
        bare.CopyFrom(layer)
        bare.ClearField("blobs")
        head = bare.SerializeToString(deterministic=True)
        blobs = weights.get(layer.name, ())
        frames = [_frame(array) for array in blobs]
        length = len(head) + sum(len(before) + len(after) for before, after in frames) + 4 * sum(a.size for a in blobs)
        yield header(_LAYER, length) + head
        for (before, after), array in zip(frames, blobs, strict=True):
            yield before
            if array.size:
                yield np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data
            yield after


def _frame(array: npt.NDArray[np.float32]) -> tuple[bytes, bytes]:
    """What stands before and behind the data of one blob in its layer's message."""
    dims = b"".join(map(varint, array.shape))
    shape = header(_DIM, len(dims)) + dims if dims else b""
    after = header(_SHAPE, len(shape)) + shape
    n_data = array.size * 4
    before = header(_DATA, n_data) if n_data else b""
    return header(_BLOBS, len(before) + n_data + len(after)) + before, after
