"""Small databases and prototxt layers, made on the spot."""

from __future__ import annotations

import struct
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


LEVELDBS = Path(__file__).parent / "leveldbs"
Contents = dict[bytes, bytes]


def leveldb_contents(name: str) -> Contents:
    """What scripts/tools/make_leveldbs.py wrote into LEVELDBS / name."""
    keys = (b"%08d_n01440764/a b_%d.JPEG" % (i, i % 7) for i in range(150))
    contents = {key: (name.encode() + b" %d " % i) * (1 + i % 13) for i, key in enumerate(keys)}
    if name == "caffe":
        contents[b"00000007_long"] = bytes(range(256)) * 300  # over three blocks of the log
    return dict(sorted(contents.items()))


def write_leveldb(folder: Path, records: Iterable[tuple[bytes, bytes]]) -> Path:
    """A LevelDB of these keys and values in its log, each a batch of its own; where plyvel is not to be had."""
    folder.mkdir()
    comparator = b"leveldb.BytewiseComparator"
    edit = b"\x01" + varint(len(comparator)) + comparator + b"\x02" + varint(3) + b"\x03" + varint(4) + b"\x04\x00"
    (folder / "CURRENT").write_text("MANIFEST-000002\n")
    (folder / "MANIFEST-000002").write_bytes(log_of([edit]))
    batches = (
        struct.pack("<QIB", sequence, 1, 1) + varint(len(key)) + key + varint(len(value)) + value
        for sequence, (key, value) in enumerate(records, 1)
    )
    (folder / "000003.log").write_bytes(log_of(batches))
    return folder


def log_of(records: Iterable[bytes]) -> bytes:
    """These records as a log of LevelDB, without checksums, which are not read."""
    log = bytearray()
    for record in records:
        at, first = 0, True
        while first or at < len(record):
            left = 32768 - len(log) % 32768
            if left < 7:
                log += bytes(left)
                left = 32768
            part = record[at : at + left - 7]
            at += len(part)
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, at == len(record)]
            log += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    return bytes(log)


def varint(value: int) -> bytes:
    """A number as protobuf and LevelDB write it, seven bits a byte."""
    parts = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def write_datums(
    folder: Path,
    datums: Iterable[caffe_pb2.Datum],
    key: Callable[[int], str] = "{:08d}".format,
    write: Callable[[Path, Iterable[tuple[bytes, bytes]]], Path] = write_lmdb,
) -> Path:
    """An LMDB, or what `write` writes, of these datums under numbered keys."""
    return write(folder, ((key(i).encode(), datum.SerializeToString()) for i, datum in enumerate(datums)))


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


def data_layer(
    source: Path, batch: int = 1, transform: str = "", data: str = "", backend: str = "LMDB"
) -> caffe_pb2.LayerParameter:
    """A Data layer with the tops data and label on the database `source`."""
    return layer(
        f'top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: {backend} {data} }}'
    )
