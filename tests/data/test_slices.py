"""A slice, read from its first record on, is the shard of the whole."""

from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

from distcalib.caffe import caffe_pb2
from distcalib.data import open_source
from distcalib.data import slices as module
from distcalib.data.slices import slice_bytes, sliced, unsliceable
from distcalib.errors import DataError
from tests.data.databases import (
    PROTOTXT,
    data_layer,
    encoded_datum,
    noise,
    numbered,
    raw_datum,
    write_datums,
    write_leveldb,
)
from tests.data.databases import layer as text_layer

Layer = caffe_pb2.LayerParameter
N_RECORDS, BATCH = 10, 3


def lmdb_layer(folder: Path) -> Layer:
    return data_layer(write_datums(folder / "db", numbered(N_RECORDS)), BATCH)


def large_lmdb_layer(folder: Path) -> Layer:
    """Records of several pages, under keys that are no numbers; the database outgrows its first map."""
    datums = [raw_datum(noise(3, 200, 200, seed=i), i) for i in range(N_RECORDS)]
    return data_layer(write_datums(folder / "db", datums, "{:02d}_a b.JPEG".format), BATCH)


def leveldb_layer(folder: Path) -> Layer:
    return data_layer(write_datums(folder / "db", numbered(N_RECORDS), write=write_leveldb), BATCH, backend="LEVELDB")


def annotated_layer(folder: Path) -> Layer:
    """Record i has i % 3 boxes; in a LevelDB, which is copied even from its first record on."""
    records = []
    for i, datum in enumerate(numbered(N_RECORDS)):
        record = caffe_pb2.AnnotatedDatum(datum=datum, type=caffe_pb2.AnnotatedDatum.BBOX)
        for _ in range(i % 3):
            b = record.annotation_group.add(group_label=i).annotation.add().bbox
            b.xmin, b.ymin, b.xmax, b.ymax = 0.1, 0.2, 0.5, 0.7
        records.append((b"%02d" % i, record.SerializeToString()))
    made = data_layer(write_leveldb(folder / "db", records), BATCH, backend="LEVELDB")
    made.type = "AnnotatedData"
    return made


def list_layer(folder: Path) -> Layer:
    lines = []
    for i in range(N_RECORDS):
        name = f"an image {i}.png"
        (folder / name).write_bytes(encoded_datum(noise(4, 5, 3, seed=i)).data)
        lines.append(f"{name} {i}\n")
    (folder / "list").write_text("".join(lines))
    return text_layer(
        f'top: "data" top: "label" image_data_param {{ source: "{folder}/list" root_folder: "{folder}/" '
        f"batch_size: {BATCH} }}",
        "ImageData",
    )


def hdf5_layer(folder: Path) -> Layer:
    names = []
    for first, n in ((0, 4), (4, 1), (5, 5)):
        names.append(f"{folder}/{first}.h5")
        with h5py.File(names[-1], "w") as file:
            file["data"] = np.arange(first * 6, (first + n) * 6, dtype=np.float64).reshape(n, 2, 3)
            file["label"] = np.arange(first, first + n)
    (folder / "list").write_text("\n".join(names))
    return text_layer(
        f'top: "data" top: "label" hdf5_data_param {{ source: "{folder}/list" batch_size: {BATCH} }}', "HDF5Data"
    )


LAYERS = [lmdb_layer, large_lmdb_layer, leveldb_layer, annotated_layer, list_layer, hdf5_layer]


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize(("first", "end"), [(0, 4), (2, 3), (3, 9)], ids=["from_0", "inside", "wrapping_twice"])
def test_sliced_begins_with_the_shard(
    tmp_path: Path, make: Callable[[Path], Layer], first: int, end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_VALUES", 12)  # several files of HDF5, two rows each
    layer = make(tmp_path)
    whole = open_source(layer, PROTOTXT)
    made = sliced(layer, PROTOTXT, whole.index, range(first, end), tmp_path / "slices" / "0")
    part = open_source(made, PROTOTXT)
    for i in range(end - first):
        ours, wanted = part.batch(i), whole.batch(first + i)
        assert ours.keys() == wanted.keys()
        for top in wanted:
            np.testing.assert_array_equal(ours[top], wanted[top])
    part.close()
    whole.close()
    assert [path.name for path in (tmp_path / "slices").iterdir()] == ["0"], "nothing beside it"


def records_of(folder: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def test_sliced_numbers_the_records_and_keeps_their_bytes(tmp_path: Path) -> None:
    layer = data_layer(write_datums(tmp_path / "db", numbered(N_RECORDS), "key{}".format), BATCH)
    made = sliced(layer, PROTOTXT, None, range(1, 4), tmp_path / "slice")
    wanted = [value for _, value in records_of(tmp_path / "db")]
    wanted = [*wanted[3:], *wanted[:2]]
    assert records_of(tmp_path / "slice") == [(b"%08d" % i, value) for i, value in enumerate(wanted)]
    assert made.data_param.source == str(tmp_path / "slice")
    assert layer.data_param.source == str(tmp_path / "db"), "the layer given stays as it is"


@pytest.mark.parametrize("make", LAYERS)
def test_sliced_is_written_once(tmp_path: Path, make: Callable[[Path], Layer]) -> None:
    layer = make(tmp_path)
    made = sliced(layer, PROTOTXT, None, range(1, 3), tmp_path / "slice")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "slice").iterdir()}
    assert before
    assert sliced(layer, PROTOTXT, None, range(1, 3), tmp_path / "slice") == made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "slice").iterdir()} == before


def test_sliced_lets_the_first_of_two_writers_win(tmp_path: Path) -> None:
    first = tmp_path / "slice"
    with module._in_place(first) as ours, module._in_place(first) as other:
        (ours / "whose").write_text("the outer's")
        (other / "whose").write_text("the inner's")
    assert (first / "whose").read_text() == "the inner's"
    assert [path.name for path in tmp_path.iterdir()] == ["slice"]


def test_an_lmdb_from_its_first_record_on_is_not_copied(tmp_path: Path) -> None:
    layer = lmdb_layer(tmp_path)
    sliced(layer, PROTOTXT, None, range(10, 12), tmp_path / "slice")  # record 30 is the first again
    assert (tmp_path / "slice" / "data.mdb").resolve() == tmp_path / "db" / "data.mdb"
    assert slice_bytes(layer, PROTOTXT, None, [range(0, 5), range(10, 15)]) == 0


@pytest.mark.parametrize(
    ("make", "n_bytes"),
    [
        (lmdb_layer, 5 * BATCH * 4096),
        (large_lmdb_layer, 5 * BATCH * 30 * 4096),
        (leveldb_layer, 10 * BATCH * 4096),
        (annotated_layer, 10 * BATCH * 4096),
        (list_layer, 0),
        (hdf5_layer, 5 * BATCH * 7 * 8),
    ],
)
def test_slice_bytes_are_those_of_the_slices_that_are_copied(
    tmp_path: Path, make: Callable[[Path], Layer], n_bytes: int
) -> None:
    assert slice_bytes(make(tmp_path), PROTOTXT, None, [range(0, 5), range(5, 10)]) == n_bytes


def test_sliced_says_that_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(module, "_write_lmdb", full)
    said = r"/slice: a slice of the data cannot be written \(No space left on device\); free some space there, or name"
    with pytest.raises(DataError, match=said):
        sliced(lmdb_layer(tmp_path), PROTOTXT, None, range(1, 3), tmp_path / "slice")
    assert [path.name for path in tmp_path.iterdir()] == ["db"]


def dummy(text: str) -> Layer:
    return text_layer(f'top: "data" dummy_data_param {{ shape {{ dim: 2 }} {text} }}', "DummyData")


def test_dummy_data_is_the_same_from_any_record_on(tmp_path: Path) -> None:
    layer = dummy('data_filler { type: "constant" value: 3 }')
    assert unsliceable(layer) is None
    assert unsliceable(dummy("")) is None
    assert sliced(layer, PROTOTXT, None, range(3, 5), tmp_path / "slice") == layer
    assert slice_bytes(layer, PROTOTXT, None, [range(3, 5)]) == 0
    assert list(tmp_path.iterdir()) == []


def test_unsliceable_says_why(tmp_path: Path) -> None:
    said = unsliceable(dummy('data_filler { type: "gaussian" }'))
    assert said is not None
    assert said.startswith("draws gaussian values, which are others in each process of Caffe; fill it with a constant")
    said = unsliceable(text_layer('top: "data" input_param { shape { dim: 1 } }', "Input"))
    assert said is not None
    assert "`caffe test` is none that feeds; give a prototxt whose TEST phase reads data" in said
    assert [unsliceable(make(tmp_path)) for make in (lmdb_layer, list_layer, hdf5_layer)] == [None] * 3
