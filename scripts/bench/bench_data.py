"""Time what a data layer costs: milliseconds an iteration, microseconds an image; and indexing of 100,000 records.

Run it on an idle machine: python -m scripts.bench.bench_data. The databases are made in a temporary folder
(about 1 GB), LevelDBs by plyvel, if it is there."""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import lmdb
import numpy as np
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data import open_source

N_INDEXED = 100_000

SHORT_SIDE = "random_resize_param { min_size: 256 max_size: 256 resize_param { interp_mode: CUBIC } }"
MEANS = "mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.017"


def raw(size: int) -> Callable[[int], caffe_pb2.Datum]:
    """Maker of raw datums of 3 x size x size."""

    def make(i: int) -> caffe_pb2.Datum:
        pixels = np.random.RandomState(i % 100).bytes(3 * size * size)
        return caffe_pb2.Datum(channels=3, height=size, width=size, data=pixels, label=i)

    return make


def jpeg(height: int, width: int) -> Callable[[int], caffe_pb2.Datum]:
    """Maker of JPEGs about as large as photographs of that size are: 31 kB at 256x256, 87 kB at 375x500."""

    def make(i: int) -> caffe_pb2.Datum:
        noise = np.random.RandomState(i).randint(0, 256, (height, width, 3)).astype(np.uint8)
        _, encoded = cv2.imencode(".jpg", cv2.addWeighted(noise, 0.1, cv2.GaussianBlur(noise, (0, 0), 4), 0.9, 0))
        return caffe_pb2.Datum(data=encoded.tobytes(), label=i, encoded=True)

    return make


CASES = {
    "raw 3x32x32": (raw(32), 1000, 100, MEANS),
    "raw 3x256x256, crop 224": (raw(256), 200, 50, f"{MEANS} crop_size: 224"),
    "JPEG 256x256, crop 224": (jpeg(256, 256), 200, 50, f"{MEANS} crop_size: 224"),
    "JPEG 375x500, short side 256, crop 224": (jpeg(375, 500), 100, 50, f"{MEANS} crop_size: 224 {SHORT_SIDE}"),
}


def write(folder: Path, make: Callable[[int], caffe_pb2.Datum], n_records: int) -> Path:
    """An LMDB of `n_records` datums, under keys as convert_imageset makes them."""
    with lmdb.open(str(folder), map_size=1 << 32, sync=False) as environment, environment.begin(write=True) as writer:
        for i in range(n_records):
            writer.put(b"%08d_n01440764/n01440764_%05d.JPEG" % (i, i), make(i).SerializeToString())
    return folder


def write_leveldb(folder: Path, make: Callable[[int], caffe_pb2.Datum], n_records: int, in_log: bool) -> Path:
    """A LevelDB of the same records: in tables as LevelDB makes them by itself, or in the log alone."""
    import plyvel  # has no wheels for each Python

    options = {"write_buffer_size": 1 << 30} if in_log else {}
    with plyvel.DB(str(folder), create_if_missing=True, **options) as database:
        for start in range(0, n_records, 1000):
            with database.write_batch() as batch:
                for i in range(start, start + 1000):
                    batch.put(b"%08d_n01440764/n01440764_%05d.JPEG" % (i, i), make(i).SerializeToString())
    return folder


def layer(folder: Path, batch: int, transform: str, backend: str = "LMDB") -> caffe_pb2.LayerParameter:
    """A Data layer on the database in `folder`."""
    text = (
        f'name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{folder}" batch_size: {batch} backend: {backend} }}'
    )
    return text_format.Parse(text, caffe_pb2.LayerParameter())


def bench_batches(folder: Path) -> None:
    """Median time of an iteration, for each case."""
    for number, (name, (make, n_records, batch, transform)) in enumerate(CASES.items()):
        source = open_source(layer(write(folder / str(number), make, n_records), batch, transform), folder)
        times = []
        for iteration in range(30):
            start = time.perf_counter()
            source.batch(iteration)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[10:])
        print(f"{name:40} {1e3 * seconds:8.3f} ms an iteration of {batch:3}, {1e6 * seconds / batch:7.1f} us an image")


def bench_index(folder: Path) -> None:
    """Time of the one pass over the keys, of the index's first use by an actor, and its size."""
    cases = {"LMDB": layer(write(folder / "indexed", raw(32), N_INDEXED), 1, "")}
    if find_spec("plyvel"):
        for name, in_log in (("LevelDB", False), ("LevelDB in its log", True)):
            written = write_leveldb(folder / name, raw(32), N_INDEXED, in_log)
            cases[name] = layer(written, 1, "", "LEVELDB")
    for name, made in cases.items():
        source = open_source(made, folder)
        start = time.perf_counter()
        index = source.index
        scanned = time.perf_counter()
        actor = open_source(made, folder, index)
        opened = time.perf_counter()
        actor.batch(N_INDEXED - 2)
        entered = time.perf_counter()
        print(
            f"{name}: index of {N_INDEXED:,} records: {scanned - start:.3f} s, {len(pickle.dumps(index)):,} bytes "
            f"pickled; opening with it: {opened - scanned:.3f} s, entering a shard: {1e6 * (entered - opened):.0f} us"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        bench_batches(Path(temporary))
        bench_index(Path(temporary))
