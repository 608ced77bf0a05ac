"""Blobs that the TEST phase reads and that nothing in it makes: the net was written to be trained, or has no data.

Caffe refuses such a net.  Here `--data` may give arrays for these blobs: a layer of type ABSENT stands for who makes
them in another phase, or for nobody.  It is not written: the quantized prototxt has the layers of the file."""

from __future__ import annotations

from collections.abc import Iterable

from distcalib.caffe import caffe_pb2
from distcalib.caffe.phase import left_out_by
from distcalib.data.giving import makes_data
from distcalib.errors import UnsupportedError

_SCORES = frozenset({"Accuracy", "SegAccuracy", "SoftmaxWithLoss"})
ABSENT = "AbsentData"
"""The type of a layer that nobody wrote."""


def add_absent(
    full: caffe_pb2.NetParameter, test: caffe_pb2.NetParameter, where: str, stages: Iterable[str] = ()
) -> None:
    """Put a layer in front of `test`, the TEST phase of `full`, for all that it reads and nothing in it makes.

    If a layer makes it in another stage or level of the TEST phase, UnsupportedError names it and the flag; `stages`
    are those of the command line.  Where the phase has data of its own, a blob that no layer of any phase makes is an
    error in the prototxt, and is left to who looks at the graph.
    """
    lacking = _lacking(test.layer)
    if not lacking:
        return
    _refuse_left_out(full, test, lacking, where, stages)
    has_data = any(makes_data(layer) for layer in test.layer)
    made: list[caffe_pb2.LayerParameter] = []
    for layer in full.layer:
        tops = [top for top in layer.top if top in lacking]
        if makes_data(layer) and tops:
            made.append(_standing_for(layer, tops))
            lacking = [blob for blob in lacking if blob not in tops]
    if has_data and all(layer.type == "Input" for layer in test.layer if makes_data(layer)):
        readers = [layer for layer in test.layer if not set(lacking).isdisjoint(layer.bottom)]
        has_data = not all(layer.type in _SCORES for layer in readers)  # labels of a net that has none, to deploy it
    if not has_data and lacking:
        made.append(caffe_pb2.LayerParameter(name=_free_name(full), type=ABSENT, top=lacking))
    layers = [*made, *test.layer]
    del test.layer[:]
    test.layer.extend(layers)


def absent_reason(layer: caffe_pb2.LayerParameter) -> str:
    """Why a layer of type ABSENT cannot be read, to follow "layer 'x' (AbsentData): "."""
    tops = " and ".join(f"'{top}'" for top in layer.top)
    return f"no data layer of the TEST phase makes {tops}; give such arrays with --data FILE.npz, or add a data layer"


def _lacking(layers: Iterable[caffe_pb2.LayerParameter]) -> list[str]:
    """The blobs that are read before any layer makes them, in their order."""
    made: set[str] = set()
    lacking: dict[str, None] = {}
    for layer in layers:
        lacking.update((blob, None) for blob in layer.bottom if blob not in made)
        made.update(layer.top)
    return list(lacking)


def _standing_for(layer: caffe_pb2.LayerParameter, tops: list[str]) -> caffe_pb2.LayerParameter:
    """What stands for a data layer of another phase: its sizes and `tops` of it."""
    other = caffe_pb2.LayerParameter()
    other.CopyFrom(layer)
    other.type = ABSENT
    other.ClearField("include")
    other.ClearField("exclude")
    other.ClearField("phase")
    other.top[:] = tops
    return other


def _free_name(full: caffe_pb2.NetParameter) -> str:
    names = {layer.name for layer in full.layer}
    return next(
        name for name in ("data", "input", *(f"data_{i}" for i in range(1, len(names) + 2))) if name not in names
    )


def _refuse_left_out(
    full: caffe_pb2.NetParameter,
    test: caffe_pb2.NetParameter,
    lacking: Iterable[str],
    where: str,
    stages: Iterable[str],
) -> None:
    """Raise UnsupportedError for a layer that a stage or the level alone keeps from making what TEST reads."""
    missed = set(lacking)
    said = [
        f"layer '{layer.name}' ({layer.type}) makes what the TEST phase reads, {why}"
        for layer in full.layer
        if not missed.isdisjoint(layer.top) and (why := left_out_by(layer, test.state, stages)) is not None
    ]
    if said:
        raise UnsupportedError(f"{where}: {said[0]}")
