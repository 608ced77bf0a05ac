"""Weights that several layers share: the blobs of a caffemodel as the layers of a net see them.

Layers whose `param` have one name use one blob, that of the first of them in the net (Net::AppendParam). Loading copies
each layer of the caffemodel onto the net's in the order of the file (Net::CopyTrainedLayersFrom), onto a shared blob as
onto any other: where the file holds it several times the last one counts, for all its layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.weights import Weights
from distcalib.errors import WeightsError

Place = tuple[str, int]
"""A layer's name and the index of one of its blobs."""


@dataclass(frozen=True)
class Share:
    """A blob's place among those that share it: their name for it, its first user, and whose shapes must agree."""

    param: str
    owner: Place
    permissive: bool
    """Whether as many values are enough (share_mode PERMISSIVE)."""


def shared_params(layers: Sequence[caffe_pb2.LayerParameter]) -> Mapping[Place, Share]:
    """The blobs of `layers` that have a name which several have, in net order, the owner before the others."""
    users: dict[str, list[tuple[Place, bool]]] = {}
    for layer in layers:
        for index, param in enumerate(layer.param):
            if param.name:
                permissive = param.share_mode == caffe_pb2.ParamSpec.PERMISSIVE
                users.setdefault(param.name, []).append(((layer.name, index), permissive))
    return {
        place: Share(name, places[0][0], permissive)
        for name, places in users.items()
        if len(places) > 1
        for place, permissive in places
    }


def share(layers: Sequence[caffe_pb2.LayerParameter], weights: Weights, where: str) -> Weights:
    """`weights`, in file order, as a net of `layers` has them after loading; nothing is copied.

    A layer that the file lacks gets what it shares with others. Raises WeightsError naming each pair of layers whose
    blobs do not agree: in shape, or in number of values where the share_mode is PERMISSIVE.
    """
    shared = shared_params(layers)
    if not shared:
        return weights
    last: dict[str, Place] = {}
    for name, stored in weights.items():
        for index in range(len(stored)):
            if (name, index) in shared:
                last[shared[name, index].param] = name, index
    result = dict(weights)
    problems: list[str] = []
    for layer in layers:
        own = weights.get(layer.name, ())
        blobs: list[NDArray[np.float32]] = []
        for index in range(max(len(own), len(layer.param))):
            place = layer.name, index
            source = last.get(shared[place].param) if place in shared else None
            if source is None:
                if index >= len(own):
                    break  # what is missing is told when the layer asks for it
                blobs.append(own[index])
                continue
            value = weights[source[0]][source[1]]
            if index < len(own):
                problems += _disagreement(place, own[index], shared, weights)
                same_size = own[index].size == value.size
                value = value.reshape(own[index].shape) if same_size else own[index]
            blobs.append(value)
        if blobs:
            result[layer.name] = tuple(blobs)
    if problems:
        raise WeightsError(
            f"{where}: {'; '.join(problems)}; give the layers blobs of one shape, or each a param name of its own"
        )
    return result


def _disagreement(place: Place, own: NDArray[np.float32], shared: Mapping[Place, Share], weights: Weights) -> list[str]:
    """What is wrong between a stored blob and that of its owner."""
    share = shared[place]
    owner = weights.get(share.owner[0], ())
    if share.owner == place or share.owner[1] >= len(owner):
        return []
    shape = owner[share.owner[1]].shape
    fits = prod(shape) == own.size if share.permissive else _bare(shape) == _bare(own.shape)
    if fits:
        return []
    return [
        f"layer '{place[0]}' shares blob {place[1]} with layer '{share.owner[0]}' (param '{share.param}'), but their "
        f"shapes are {_text(own.shape)} and {_text(shape)}"
    ]


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the ones that the format before 2015 put in front."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return shape[first:]


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
