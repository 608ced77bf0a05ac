"""What was sent gives the batches that the files gave, when these are gone, and what is wrong is told alike."""

from __future__ import annotations

import errno
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import distcalib.data.image_list as image_list
import distcalib.data.shipping as shipping
from distcalib.caffe.caffe_pb2 import BlobProto, LayerParameter
from distcalib.data import Bad, Shipment, Shipped, Source, open_source
from distcalib.data.records import Records
from distcalib.data.shipped import ShippedImages, ShippedRecords
from distcalib.data.source import Index, KeyIndex, LineIndex
from distcalib.errors import DataError
from tests.data.databases import (
    PROTOTXT,
    data_layer,
    encoded_datum,
    layer,
    noise,
    numbered,
    write_datums,
    write_leveldb,
    write_lmdb,
)
from tests.data.test_annotated import entries
from tests.data.test_annotated import layer as annotated_layer
from tests.data.test_annotated import numbered as annotated_numbered
from tests.data.test_images import write_list
from tests.every import every

N, BATCH = 11, 4  # three iterations reach the first record again


def lmdb(folder: Path) -> LayerParameter:
    datums = [encoded_datum(noise(6, 7, 3, seed=i), i) for i in range(N)]
    return data_layer(write_datums(folder / "db", datums), BATCH, "crop_size: 4 mean_value: 7")


def lmdb_of_odd_sizes(folder: Path) -> LayerParameter:
    datums = [encoded_datum(noise(5 + i, 30 - i, 3, seed=i), i, ".jpg") for i in range(N)]
    return data_layer(write_datums(folder / "db", datums), BATCH, "resize_param { height: 4 width: 5 }")


def leveldb(folder: Path) -> LayerParameter:
    return data_layer(write_datums(folder / "db", numbered(N), write=write_leveldb), BATCH, backend="LEVELDB")


def with_mean(folder: Path) -> LayerParameter:
    mean = BlobProto(num=1, channels=1, height=2, width=2, data=[1.0, 2.0, 3.0, 4.0])
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    transform = f'mean_file: "{folder / "mean.binaryproto"}"'
    return data_layer(write_datums(folder / "db", numbered(N)), BATCH, transform)


def boxes(folder: Path) -> LayerParameter:
    return annotated_layer(write_lmdb(folder / "db", entries(annotated_numbered(N))), BATCH)


def images(folder: Path) -> LayerParameter:
    source = write_list(folder, {f"image {i} é.png": noise(5, 6, 3, seed=i) for i in range(N)})
    text = f'source: "{source}" root_folder: "{source.parent}/" batch_size: {BATCH}'
    return layer(f'top: "data" top: "label" image_data_param {{ {text} }}', "ImageData")


def sent(made: LayerParameter, n_iterations: int) -> tuple[Index, Shipped]:
    """The index, and what was sent as an actor gets it."""
    source = open_source(made, PROTOTXT)
    assert source.index is not None
    shipment = Shipment([made], PROTOTXT, {"data": source.index}, n_iterations)
    shipped = Shipped(shipment.files(), tuple(shipment.chunks()))
    source.close()
    again: tuple[Index, Shipped] = pickle.loads(pickle.dumps((source.index, shipped)))
    return again


def opened_from(made: LayerParameter, index: Index, shipped: Shipped) -> Source:
    return open_source(made, PROTOTXT, index, shipped=shipped)


@pytest.mark.parametrize("chunk_bytes", [1, 700, 2**26], ids=["a record a chunk", "some", "one chunk"])
@pytest.mark.parametrize("make", [lmdb, lmdb_of_odd_sizes, leveldb, with_mean, boxes, images])
def test_what_was_sent_gives_the_same_batches_without_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], LayerParameter], chunk_bytes: int
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 4)
    monkeypatch.setattr(shipping, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(image_list, "_AT_A_TIME", 3)
    folder = tmp_path / "data"
    folder.mkdir()
    made = make(folder)
    source = open_source(made, PROTOTXT)
    expected = [source.batch(k) for k in range(7)]
    source.close()
    index, shipped = sent(made, 7)
    if chunk_bytes == 1:
        assert [(chunk.first, len(chunk)) for chunk in shipped.chunks] == [(i, 1) for i in range(N)]
    shutil.rmtree(folder)
    with pytest.raises(DataError):
        open_source(made, PROTOTXT)
    other = opened_from(made, index, shipped)
    assert (other.tops, other.shapes, other.batch_size) == (source.tops, source.shapes, source.batch_size)
    assert other.index == index
    for k in [*random.Random(1).sample(range(7), 7), 2, 2]:
        for top, values in other.batch(k).items():
            assert values.tobytes() == expected[k][top].tobytes()
    other.close()
    other.close()


@pytest.mark.parametrize("make", [lmdb, leveldb, images])
@pytest.mark.parametrize(("n_iterations", "n_sent"), [(1, BATCH), (2, 2 * BATCH), (3, N), (100, N)])
def test_only_records_that_are_reached_are_sent_and_each_once(
    tmp_path: Path, make: Callable[[Path], LayerParameter], n_iterations: int, n_sent: int
) -> None:
    made = make(tmp_path)
    index, shipped = sent(made, n_iterations)
    assert sum(map(len, shipped.chunks)) == n_sent
    source = opened_from(made, index, shipped)
    source.batch(n_iterations - 1)
    if n_sent < N:
        with pytest.raises(LookupError, match=f"record {n_sent} was not sent"):
            source.batch(n_iterations)


@pytest.mark.parametrize("make", [lmdb, leveldb, boxes])
def test_n_bytes_is_that_of_the_chunks(tmp_path: Path, make: Callable[[Path], LayerParameter]) -> None:
    made = make(tmp_path)
    shipment = Shipment([made], PROTOTXT, {"data": open_source(made, PROTOTXT).index}, 2)
    assert shipment.n_bytes == sum(chunk.content.nbytes for chunk in shipment.chunks()) > 0


def test_n_bytes_of_images_is_that_of_their_files(tmp_path: Path) -> None:
    made = images(tmp_path)
    shipment = Shipment([made], PROTOTXT, {"data": open_source(made, PROTOTXT).index}, 1)
    files = [tmp_path / f"image {i} é.png" for i in range(BATCH)]
    assert shipment.n_bytes == sum(file.stat().st_size + len(str(file)) for file in files)


def test_layers_without_files_send_nothing() -> None:
    dummy = layer('top: "a" dummy_data_param { shape { dim: 2 } }', "DummyData")
    shipment = Shipment([dummy, layer("", "Pooling")], PROTOTXT, {"data": None}, 3)
    assert (shipment.n_bytes, list(shipment.chunks()), shipment.files()) == (0, [], {})


def test_chunks_are_of_their_layer(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    layers = [lmdb(first), images(second)]
    layers[1].name = "images"
    indexes = {made.name: open_source(made, PROTOTXT).index for made in layers}
    shipped = Shipped({}, tuple(Shipment(layers, PROTOTXT, indexes, 1).chunks()))
    for made in layers:
        expected = open_source(made, PROTOTXT).batch(0)
        got = open_source(made, PROTOTXT, indexes[made.name], shipped=shipped).batch(0)
        assert every(np.array_equal(got[top], expected[top]) for top in made.top)


def told_alike(made: LayerParameter) -> str:
    """What is said of a bad record, the same of data that are opened and of data that were sent."""
    with pytest.raises(DataError) as whole:
        open_source(made, PROTOTXT).batch(0)
    index, shipped = sent(made, 1)
    with pytest.raises(DataError) as told:
        opened_from(made, index, shipped).batch(0)
    assert str(told.value) == str(whole.value)
    return str(told.value)


def test_a_damaged_record_is_told_alike(tmp_path: Path) -> None:
    records = [(b"%02d" % i, datum.SerializeToString()) for i, datum in enumerate(numbered(4))]
    records[2] = (b"02\xff", b"\x00 no datum")
    assert "record 0x3032ff is not a Datum" in told_alike(data_layer(write_lmdb(tmp_path / "db", records), 4))


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b""), "folder"])
def test_an_image_that_cannot_be_read_is_told_alike(tmp_path: Path, spoil: object) -> None:
    made = images(tmp_path)
    file = tmp_path / "image 2 é.png"
    if spoil == "folder":
        file.unlink()
        file.mkdir()
    else:
        spoil(file)  # type: ignore[operator]
    assert "line 3: image '" in told_alike(made)


def test_chunks_are_read_in_place(tmp_path: Path) -> None:
    made = leveldb(tmp_path)
    index, shipped = sent(made, 1)
    records = ShippedRecords(tmp_path / "db", index, shipped.of("data"))
    _, value = records.read(1, 1)[0]
    assert isinstance(value, memoryview)
    assert np.shares_memory(np.frombuffer(value, np.uint8), shipped.chunks[0].content)


def test_what_was_sent_wants_its_own_kind_of_index(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="comes with an index of keys, not LineIndex"):
        ShippedRecords(tmp_path, LineIndex(1, 1, (0,), 1, "", ""), ())
    with pytest.raises(TypeError, match="comes with an index of lines, not KeyIndex"):
        ShippedImages(tmp_path, KeyIndex(1, 1, (b"",)), ())


def test_a_mean_that_is_gone_is_told(tmp_path: Path) -> None:
    made = with_mean(tmp_path)
    (tmp_path / "mean.binaryproto").unlink()
    with pytest.raises(DataError, match=r"mean\.binaryproto: cannot be read: No such file or directory"):
        Shipment([made], PROTOTXT, {}, 1).files()


def test_bad_records_are_left_out_alike(tmp_path: Path) -> None:
    made = images(tmp_path)
    (tmp_path / "image 0 é.png").unlink()
    (tmp_path / "image 2 é.png").write_bytes(b"no image")
    whole: Bad = {}
    source = open_source(made, PROTOTXT, skip_bad=True)
    expected = source.batch(0, whole)
    shipped = Shipped({}, tuple(Shipment([made], PROTOTXT, {"data": source.index}, 1).chunks()))
    told: Bad = {}
    got = open_source(made, PROTOTXT, source.index, skip_bad=True, shipped=shipped).batch(0, told)
    assert told == whole
    assert sorted(told) == [0, 2]
    assert every(got[top].tobytes() == expected[top].tobytes() for top in made.top)


def test_a_disk_that_fails_ends_the_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = images(tmp_path)
    index = open_source(made, PROTOTXT).index
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name.startswith("image 3"):
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(DataError, match=r"line 4: image '.*image 3 é.png' cannot be read \(Input/output error\)"):
        list(Shipment([made], PROTOTXT, {"data": index}, 1).chunks())
