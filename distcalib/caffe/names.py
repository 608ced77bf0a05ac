"""Names of layers made unique, where a TEST net has some twice or not at all.

Caffe runs such nets.  It gives the weights of a caffemodel to the first layer of their name, and leaves later ones of
the same name their fillers (Net::CopyTrainedLayersFrom); so a later one gets a name of its own, which no caffemodel
has, and the first keeps the weights.  Everything here finds layers by name: scales, flags, messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distcalib.caffe import caffe_pb2


def name_apart(layers: Sequence[caffe_pb2.LayerParameter], taken: Iterable[str]) -> list[str]:
    """Rename, in place, each layer whose name one before it has, and all but the first without one.

    `taken`: names that no new one may be.  Returns a sentence for each that was renamed.
    """
    seen: set[str] = set()
    used = {*taken, *(layer.name for layer in layers)}
    notes = []
    for layer in layers:
        if layer.name in seen:
            new = free_name(layer.name or layer.type, used)
            why = "has the name of one before it" if layer.name else "has no name"
            notes.append(f"layer '{layer.name}' ({layer.type}) {why}; it is called '{new}' here")
            layer.name = new
            used.add(new)
        seen.add(layer.name)
    return notes


def free_name(stem: str, used: set[str]) -> str:
    """`stem` with the first number from 2 on that makes it none of `used`."""
    number = 2
    while f"{stem}_{number}" in used:
        number += 1
    return f"{stem}_{number}"
