"""A convolution of several bottoms, which Caffe runs one by one with the same weights, as one layer for each."""

from __future__ import annotations

from distcalib.caffe import caffe_pb2
from distcalib.caffe.names import free_name
from distcalib.caffe.phase import PLAIN, State, in_test

_TYPES = frozenset({"Convolution", "ConvolutionDepthwise", "Deconvolution", "DepthwiseConvolution"})


def split_several(net: caffe_pb2.NetParameter, given: State = PLAIN) -> list[str]:
    """Put, in place of each layer of the TEST phase with a top for each of several bottoms, a layer for each of these.

    The first keeps the name, and with it the weights, which the others share by the names of their parameters.  Returns
    a sentence for each that was split.
    """
    wanted = {layer.name for layer in in_test(net, given) if _is_several(layer)}
    if not wanted:
        return []
    used = {layer.name for layer in net.layer}
    names: dict[str, list[str]] = {}  # the same in every phase
    layers: list[caffe_pb2.LayerParameter] = []
    notes = []
    for layer in net.layer:
        if layer.name not in wanted or not _is_several(layer):
            layers.append(layer)
            continue
        own = names.setdefault(layer.name, [layer.name])
        while len(own) < len(layer.top):
            own.append(free_name(layer.name, used))
            used.add(own[-1])
        layers += _split(layer, own)
        shown = ", ".join(f"'{name}'" for name in own[: len(layer.top)])
        notes.append(
            f"layer '{layer.name}' ({layer.type}) has {len(layer.top)} bottoms and tops; it is {shown} here, which "
            "share their weights"
        )
    copies = caffe_pb2.NetParameter()
    copies.layer.extend(layers)
    del net.layer[:]
    net.layer.extend(copies.layer)
    return list(dict.fromkeys(notes))


def _is_several(layer: caffe_pb2.LayerParameter) -> bool:
    return layer.type in _TYPES and len(layer.bottom) == len(layer.top) > 1


def _split(layer: caffe_pb2.LayerParameter, names: list[str]) -> list[caffe_pb2.LayerParameter]:
    n_blobs = 1 + layer.convolution_param.bias_term
    made = []
    for name, bottom, top in zip(names, layer.bottom, layer.top, strict=False):
        single = caffe_pb2.LayerParameter()
        single.CopyFrom(layer)
        single.bottom[:], single.top[:] = [bottom], [top]
        while len(single.param) < n_blobs:
            single.param.add()
        for k, param in enumerate(single.param):
            if not param.name:
                param.name = f"{layer.name}_blob{k}"
        single.name = name
        made.append(single)
    return made
