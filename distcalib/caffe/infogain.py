"""The matrices of InfogainLoss layers, which come from files: put into the layers as blobs, since actors lack files.

A layer whose file is not there is left out of a test, with a note: nothing else needs its value."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.errors import DataError

_TYPE = "InfogainLoss"


def add_matrices(test: caffe_pb2.NetParameter, prototxt: Path) -> None:
    """Read the matrices that layers of the TEST net name, and take out the layers whose matrix is not there.

    DataError for a file that holds none.
    """
    kept = [layer for layer in test.layer if lacks_matrix(layer, prototxt) is None]
    if len(kept) != len(test.layer):
        del test.layer[:]
        test.layer.extend(kept)
    for layer in test.layer:
        if layer.type == _TYPE and len(layer.bottom) < 3:
            layer.blobs.append(_read(resolve_path(layer.infogain_loss_param.source, prototxt), layer, prototxt))


def lacks_matrix(layer: caffe_pb2.LayerParameter, prototxt: Path) -> str | None:
    """Why an InfogainLoss has no matrix; None where it has one, and for other layers."""
    if layer.type != _TYPE or len(layer.bottom) >= 3:
        return None
    source = layer.infogain_loss_param.source
    if not source:
        return "infogain_loss_param has no source, and there is no third bottom"
    return None if resolve_path(source, prototxt).is_file() else f"its matrix, the file '{source}', is not there"


def _read(path: Path, layer: caffe_pb2.LayerParameter, prototxt: Path) -> caffe_pb2.BlobProto:
    where = f"{prototxt.name}: layer '{layer.name}' ({layer.type})"
    try:
        blob = caffe_pb2.BlobProto.FromString(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where}: {path} cannot be read ({error.strerror}); give a matrix as a BlobProto") from error
    except DecodeError as error:
        raise DataError(f"{where}: {path} is not a BlobProto; give a matrix as one") from error
    return blob
