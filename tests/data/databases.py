"""Small databases and prototxt layers, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2

PROTOTXT = Path("net.prototxt")


def write_lmdb(folder: Path, records: Iterable[tuple[bytes, bytes]]) -> Path:
    """An LMDB of these keys and values."""
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, value in records:
            transaction.put(key, value)
    return folder


def write_datums(folder: Path, datums: Iterable[caffe_pb2.Datum], key: Callable[[int], str] = "{:08d}".format) -> Path:
    """An LMDB of these datums under numbered keys."""
    return write_lmdb(folder, ((key(i).encode(), datum.SerializeToString()) for i, datum in enumerate(datums)))


def raw_datum(pixels: npt.NDArray[np.generic], label: int = 0) -> caffe_pb2.Datum:
    """(C, H, W) as `data` if it is u8, else as `float_data`."""
    channels, height, width = pixels.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    if pixels.dtype == np.uint8:
        datum.data = pixels.tobytes()
    else:
        datum.float_data.extend(pixels.ravel().tolist())
    return datum


def encoded_datum(image: npt.NDArray[np.generic], label: int = 0, suffix: str = ".png") -> caffe_pb2.Datum:
    """(H, W, 3) BGR or (H, W) as an encoded image; like convert_imageset's, without sizes."""
    _, encoded = cv2.imencode(suffix, np.asarray(image, np.uint8))
    return caffe_pb2.Datum(data=encoded.tobytes(), label=label, encoded=True)


def numbered(n: int, shape: tuple[int, int, int] = (1, 2, 2)) -> list[caffe_pb2.Datum]:
    """`n` datums, each filled with its number, which is its label too."""
    return [raw_datum(np.full(shape, i % 256, np.uint8), label=i) for i in range(n)]


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random bytes, the same each time."""
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def layer(text: str, type_: str = "Data") -> caffe_pb2.LayerParameter:
    """A layer called 'data' of this type, from prototxt text."""
    return text_format.Parse(text, caffe_pb2.LayerParameter(name="data", type=type_))


def data_layer(source: Path, batch: int = 1, transform: str = "", data: str = "") -> caffe_pb2.LayerParameter:
    """A Data layer with the tops data and label on the LMDB `source`."""
    return layer(
        f'top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB {data} }}'
    )
