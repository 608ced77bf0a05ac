"""Every reader of files of others, with good files to begin with, as a function of the bytes of such a file.

What it may do is return, or raise a DistcalibError or, where a record's reader is meant, a BadRecord."""

import io
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_label_map, read_net, read_weights, test_net, write_weights
from distcalib.caffe.graph import build_graph
from distcalib.data import data_identity, load_arrays, open_source
from distcalib.data.annotated import _parsed
from distcalib.data.annotations import label_rows
from distcalib.data.datum import AS_STORED, COLOR, BadRecord, decode, parse_datum
from distcalib.data.leveldb_records import LevelDbRecords
from distcalib.data.transform import Transform
from distcalib.engine.batch import read_batch
from distcalib.errors import DistcalibError
from distcalib.journal import FILE_NAME, Journal, Recorded, read_runs
from distcalib.journal import codec as row_codec
from distcalib.metrics.detection_evaluate import read_sizes
from distcalib.session.inspect import inspect
from tests.data.databases import LEVELDBS, data_layer, layer, noise, numbered, raw_datum, write_datums
from tests.journal.test_codec import ROWS

EXPECTED = (DistcalibError, BadRecord)
ROOT = Path(__file__).resolve().parents[2]

NET = """
name: "n"
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "label" type: "DummyData" top: "label" dummy_data_param { shape { dim: 2 } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 1 group: 1 } }
layer { name: "b1" type: "BatchNorm" bottom: "c1" top: "c1" batch_norm_param { eps: 0.001 } }
layer { name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" relu_param { negative_slope: 0.1 } }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "l1" type: "LRN" bottom: "p1" top: "l1" lrn_param { local_size: 5 alpha: 0.1 } }
layer { name: "t1" type: "Tile" bottom: "l1" top: "t1" tile_param { axis: 1 tiles: 2 } }
layer { name: "h1" type: "Reshape" bottom: "t1" top: "h1" reshape_param { shape { dim: 0 dim: -1 dim: 4 } axis: 0 } }
layer { name: "f1" type: "Flatten" bottom: "h1" top: "f1" flatten_param { axis: 1 end_axis: -1 } }
layer { name: "x1" type: "Slice" bottom: "t1" top: "y1" top: "y2" slice_param { axis: 1 slice_point: 3 } }
layer { name: "g1" type: "Concat" bottom: "y1" bottom: "y2" top: "g1" concat_param { axis: 1 } }
layer { name: "a1" type: "ArgMax" bottom: "g1" top: "a1" argmax_param { top_k: 2 axis: 1 } }
layer { name: "i1" type: "InnerProduct" bottom: "f1" top: "i1" inner_product_param { num_output: 5 axis: 1 } }
layer { name: "z1" type: "SoftmaxWithLoss" bottom: "i1" bottom: "label" top: "z1" loss_param { ignore_label: 3 } }
layer { name: "z2" type: "Accuracy" bottom: "i1" bottom: "label" top: "z2" accuracy_param { top_k: 2 } }
"""
SSD = """
layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 4 dim: 5 dim: 5 } } }
layer { name: "i" type: "DummyData" top: "i" dummy_data_param { shape { dim: 1 dim: 3 dim: 50 dim: 50 } } }
layer { name: "n" type: "Normalize" bottom: "d" top: "n" norm_param { across_spatial: false } }
layer { name: "pb" type: "PriorBox" bottom: "n" bottom: "i" top: "pb"
  prior_box_param { min_size: 9 max_size: 20 aspect_ratio: 2 flip: true variance: 0.1 step: 10 offset: 0.5 } }
layer { name: "loc" type: "Convolution" bottom: "n" top: "loc" convolution_param { num_output: 16 kernel_size: 1 } }
layer { name: "m" type: "Permute" bottom: "loc" top: "m" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "f" type: "Flatten" bottom: "m" top: "f" }
layer { name: "u" type: "Deconvolution" bottom: "n" top: "u"
  convolution_param { num_output: 2 kernel_size: 4 stride: 2 } }
layer { name: "k" type: "Crop" bottom: "u" bottom: "d" top: "k" crop_param { axis: 2 offset: 1 } }
layer { name: "e" type: "Eltwise" bottom: "k" bottom: "k" top: "e" eltwise_param { operation: SUM coeff: 1 coeff: 2 } }
layer { name: "r" type: "Reduction" bottom: "e" top: "r" reduction_param { axis: 1 operation: MEAN } }
layer { name: "q" type: "Power" bottom: "f" top: "q" power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: "o" type: "DetectionOutput" bottom: "f" bottom: "q" bottom: "pb" top: "o"
  detection_output_param { num_classes: 4 nms_param { nms_threshold: 0.45 top_k: 400 } keep_top_k: 200 } }
"""


@dataclass(frozen=True)
class Reader:
    """`seeds` makes good files in a folder; `read` takes the bytes of one and a folder, and reads; `share`: of 1,000
    inputs so many are for it."""

    seeds: Callable[[Path], Sequence[bytes]]
    read: Callable[[bytes, Path], object]
    share: int


def _file(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _read_net(data: bytes, folder: Path) -> None:
    net = read_net(_file(folder, data))
    build_graph(test_net(net).layer, "net")


def _binary(_: Path) -> list[bytes]:
    data = 'layers { name: "d" type: DATA top: "d" data_param { source: "x" scale: 0.5 } }'
    v1 = data + ' layers { name: "r" type: RELU bottom: "d" top: "d" }'
    v0 = 'layers { layer { name: "d" type: "data" source: "x" batchsize: 2 } top: "d" }'
    v0 += ' layers { layer { name: "c" type: "conv" num_output: 3 kernelsize: 2 } bottom: "d" top: "c" }'
    texts = (NET, SSD, v1, v0)
    return [text_format.Parse(text, caffe_pb2.NetParameter()).SerializeToString() for text in texts]


def _weights(folder: Path) -> list[bytes]:
    net = text_format.Parse(NET, caffe_pb2.NetParameter())
    path = folder / "w"
    write_weights(path, "n", net.layer, {"c1": (np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32))})
    old = caffe_pb2.NetParameter()
    blob = old.layers.add(name="c1").blobs.add(num=1, channels=1, height=2, width=2)
    blob.data.extend([1.0, 2.0, 3.0, 4.0])
    return [path.read_bytes(), old.SerializeToString()]


def _lmdb(folder: Path) -> list[bytes]:
    return [(write_datums(folder / f"db{n}", numbered(n, (1, 8, size))) / "data.mdb").read_bytes()
            for n, size in ((3, 4), (40, 200))]  # fmt: skip


def _read_lmdb(data: bytes, folder: Path) -> None:
    _read_source(data_layer(_file(folder, data), batch=2), folder)


def _read_source(proto: caffe_pb2.LayerParameter, folder: Path) -> None:
    source = open_source(proto, folder / "net.prototxt")
    try:
        assert source.index is None or source.index.n_records > 0
        for iteration in range(2):
            read_batch([source], iteration, False)
        data_identity([proto], folder / "net.prototxt", {proto.name: source.index})
    finally:
        source.close()


def _leveldb(part: str) -> Callable[[bytes, Path], None]:
    """A LevelDB of which one file is the bytes."""

    def read(data: bytes, folder: Path) -> None:
        copy = folder / "leveldb"
        if not copy.exists():
            shutil.copytree(LEVELDBS / "plain", copy)
        good = (LEVELDBS / "plain" / part).read_bytes()
        (copy / part).write_bytes(data)
        try:
            records = LevelDbRecords(copy)
            records.read(records.n_records // 2, 20)
            records.close()
        finally:
            (copy / part).write_bytes(good)

    return read


def _datums(_: Path) -> list[bytes]:
    encoded = cv2.imencode(".png", noise(6, 5, 3))[1].tobytes()
    floats = raw_datum(np.ones((1, 2, 2), np.float32))
    return [
        *(datum.SerializeToString() for datum in (*numbered(2, (3, 6, 5)), floats)),
        caffe_pb2.Datum(data=encoded, encoded=True, label=3).SerializeToString(),
    ]


def _read_datum(data: bytes, folder: Path) -> None:
    param = caffe_pb2.TransformationParameter(crop_size=2, mean_value=[3.0])
    transform = Transform(param, "net", folder)
    transform.finish(transform.centre(transform.whole(parse_datum(data)))[None])


def _annotated(_: Path) -> list[bytes]:
    made = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    made.datum.CopyFrom(caffe_pb2.Datum(data=cv2.imencode(".jpg", noise(9, 8, 3))[1].tobytes(), encoded=True))
    made.datum.height, made.datum.width = 9, 8
    one = made.annotation_group.add(group_label=1).annotation.add(instance_id=2)
    one.bbox.xmin, one.bbox.xmax, one.bbox.ymin, one.bbox.ymax = 0.1, 0.5, 0.2, 0.7
    return [made.SerializeToString()]


def _read_annotated(data: bytes, folder: Path) -> None:
    annotated = _parsed((b"key", data))
    param = caffe_pb2.TransformationParameter(crop_size=4)
    param.resize_param.height = param.resize_param.width = 6
    transform = Transform(param, "net", folder)
    transform.centre(transform.whole(annotated.datum))
    label_rows(annotated, 0, param, np.array([0, 0, 1, 1], np.float32))


def _images(_: Path) -> list[bytes]:
    return [cv2.imencode(suffix, noise(17, 13, 3))[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".webp", ".ppm")]


def _read_image(data: bytes, folder: Path) -> None:
    for flags in (AS_STORED, COLOR):
        decode(data, flags)


def _mean(_: Path) -> list[bytes]:
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=2, data=[1.0, 2.0, 3.0, 4.0])
    shaped = caffe_pb2.BlobProto(data=[1.0] * 6)
    shaped.shape.dim.extend([1, 2, 3])
    return [blob.SerializeToString(), shaped.SerializeToString()]


def _read_mean(data: bytes, folder: Path) -> None:
    param = caffe_pb2.TransformationParameter(mean_file=str(_file(folder, data)))
    Transform(param, "net", folder / "net.prototxt")


def _list(folder: Path) -> list[bytes]:
    cv2.imwrite(str(folder / "a.png"), noise(4, 4, 3))
    return [b"a.png 0\na.png 1\n", b"\xef\xbb\xbfa.png 3\r\na.png -1\r\n"]


def _read_list(data: bytes, folder: Path) -> None:
    if not (folder / "a.png").exists():
        _list(folder)
    text = f'top: "data" top: "label" image_data_param {{ source: "{_file(folder, data)}" batch_size: 2 }}'
    _read_source(layer(text, "ImageData"), folder)


def _hdf5(folder: Path) -> list[bytes]:
    for name, packed in (("a", None), ("b", "gzip")):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=np.ones((5, 2), np.float32), chunks=(2, 2), compression=packed)
            file.create_dataset("label", data=np.arange(5))
    return [(folder / f"{name}.h5").read_bytes() for name in "ab"]


def _read_hdf5(data: bytes, folder: Path) -> None:
    (folder / "list.txt").write_text(f"{_file(folder, data, 'file.h5')}\n")
    text = f'top: "data" top: "label" hdf5_data_param {{ source: "{folder}/list.txt" batch_size: 3 }}'
    _read_source(layer(text, "HDF5Data"), folder)


def _arrays(_: Path) -> list[bytes]:
    x = np.ones((4, 3), np.float32)
    files = [io.BytesIO() for _ in range(3)]
    np.save(files[0], x)
    np.savez(files[1], x=x)
    np.savez_compressed(files[2], x=x)
    return [file.getvalue() for file in files]


@cache
def _input() -> caffe_pb2.LayerParameter:
    return layer('top: "x" input_param { shape { dim: 2 dim: 3 } }', "Input")


def _read_arrays(data: bytes, folder: Path) -> None:
    arrays = load_arrays(_file(folder, data, "a.npz"), [_input()], folder / "net.prototxt")
    read_batch([open_source(_input(), folder / "net.prototxt", arrays=arrays)], 0, False)


def _journal(folder: Path) -> list[bytes]:
    with Journal(folder / "j") as journal:
        journal.end(journal.begin("calibrate", {"a": 1}, {"b": "2"}), "done", "met", n_measured=1, n_recorded=0)
        journal.store(b"k" * 32, {n: Recorded(b"payload" * 20, 0.5) for n in range(30)})
    return [(folder / "j" / FILE_NAME).read_bytes()]


def _read_journal(data: bytes, folder: Path) -> None:
    place = folder / "journal"
    place.mkdir(exist_ok=True)
    for ending in ("-wal", "-shm"):
        (place / (FILE_NAME + ending)).unlink(missing_ok=True)
    (place / FILE_NAME).write_bytes(data)
    try:
        read_runs(place)
    finally:
        with Journal(place) as journal:
            journal.rows(b"k" * 32, range(30))
            journal.store(b"o" * 32, {1: Recorded(b"x", 1.0)})


def _rows(_: Path) -> list[bytes]:
    return [zlib.decompress(row_codec.encode(row)) for row in ROWS.values()]


def _read_row(data: bytes, folder: Path) -> None:
    try:
        row_codec.decode(zlib.compress(data, 0))
    except ValueError as error:  # what its caller takes for a damaged journal
        raise DistcalibError(str(error)) from None


def _read_sizes(data: bytes, _: Path) -> None:
    # Given the content: what was read of a path is remembered, so a file would be read once for all inputs.
    read_sizes("sizes", data)


def _files(*paths: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [(ROOT / path).read_bytes() for path in paths]


READERS: dict[str, Reader] = {
    "prototxt": Reader(lambda _: [NET.encode(), SSD.encode()], _read_net, 150),
    "net, inspected": Reader(
        lambda _: [NET.encode(), SSD.encode()], lambda data, folder: inspect(_file(folder, data)), 10
    ),
    "binary net": Reader(_binary, _read_net, 150),
    "caffemodel": Reader(_weights, lambda data, folder: read_weights(_file(folder, data)), 150),
    "label map": Reader(
        _files("examples/digit_scenes/labelmap.prototxt"), lambda data, folder: read_label_map(_file(folder, data)), 60
    ),
    "LMDB": Reader(_lmdb, _read_lmdb, 8),
    "LevelDB: table": Reader(_files("tests/data/leveldbs/plain/000005.ldb"), _leveldb("000005.ldb"), 10),
    "LevelDB: manifest": Reader(_files("tests/data/leveldbs/plain/MANIFEST-000002"), _leveldb("MANIFEST-000002"), 10),
    "LevelDB: CURRENT": Reader(_files("tests/data/leveldbs/plain/CURRENT"), _leveldb("CURRENT"), 10),
    "datum": Reader(_datums, _read_datum, 100),
    "annotated datum": Reader(_annotated, _read_annotated, 70),
    "image": Reader(_images, _read_image, 100),
    "mean file": Reader(_mean, _read_mean, 60),
    "image list": Reader(_list, _read_list, 20),
    "HDF5": Reader(_hdf5, _read_hdf5, 6),
    "arrays": Reader(_arrays, _read_arrays, 30),
    "journal": Reader(_journal, _read_journal, 5),
    "row of the journal": Reader(_rows, _read_row, 30),
    "sizes of images": Reader(lambda _: [b"a 3 4\nb 5 6\n"], _read_sizes, 10),
}


def shares(total: int) -> dict[str, int]:
    """Inputs for each reader, of `total`."""
    whole = sum(reader.share for reader in READERS.values())
    return {name: -(-total * reader.share // whole) for name, reader in READERS.items()}


def outcome(read: Callable[[bytes, Path], Any], data: bytes, folder: Path) -> str:
    """`read` or `refused`; whatever else is raised comes through."""
    try:
        read(data, folder)
    except EXPECTED as error:
        return "refused" if str(error) else "refused without a word"
    return "read"
