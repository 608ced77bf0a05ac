from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data.database import DatabaseSource
from distcalib.data.records import Records
from distcalib.errors import DataError
from tests.data.databases import (
    PROTOTXT,
    data_layer,
    encoded_datum,
    layer,
    noise,
    numbered,
    raw_datum,
    write_datums,
    write_leveldb,
    write_lmdb,
)

#: Backend, and what makes a database of it.
BACKENDS = (("LMDB", write_lmdb), ("LEVELDB", write_leveldb))
Write = Callable[[Path, Iterable[tuple[bytes, bytes]]], Path]


def opened(folder: Path, batch: int = 1, transform: str = "", data: str = "", backend: str = "LMDB") -> DatabaseSource:
    return DatabaseSource(data_layer(folder, batch, transform, data, backend), PROTOTXT)


@pytest.mark.parametrize(("backend", "write"), BACKENDS, ids=["LMDB", "LevelDB"])
@pytest.mark.parametrize(
    ("n", "batch", "iteration", "records"),
    [
        (6, 3, 0, [0, 1, 2]),
        (6, 3, 1, [3, 4, 5]),
        (6, 3, 2, [0, 1, 2]),
        (5, 3, 1, [3, 4, 0]),
        (5, 3, 2, [1, 2, 3]),
        (5, 3, 5, [0, 1, 2]),
        (2, 5, 0, [0, 1, 0, 1, 0]),
        (2, 5, 1, [1, 0, 1, 0, 1]),
        (1, 3, 7, [0, 0, 0]),
        (7, 1, 1_000_003, [1_000_003 % 7]),
    ],
)
def test_batch_wraps_around_at_the_end_of_the_data(
    tmp_path: Path, n: int, batch: int, iteration: int, records: list[int], backend: str, write: Write
) -> None:
    source = opened(write_datums(tmp_path / "db", numbered(n), write=write), batch, backend=backend)
    got = source.batch(iteration)
    assert got["label"].dtype == np.float32
    assert got["label"].tolist() == records
    assert got["data"][:, 0, 0, 0].tolist() == records
    assert (
        {top: values.shape for top, values in got.items()}
        == source.shapes
        == {
            "data": (batch, 1, 2, 2),
            "label": (batch,),
        }
    )


@pytest.mark.parametrize(("backend", "write"), BACKENDS, ids=["LMDB", "LevelDB"])
@pytest.mark.parametrize("key", ["{:08d}", "{:05d}_a b/c.JPEG", "{:x}"])
def test_batches_are_the_same_in_any_order_with_and_without_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, backend: str, write: Write
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 4)
    datums = [raw_datum(noise(3, 4, 4, seed=i), i) for i in range(23)]
    folder = write_datums(tmp_path / "db", datums, key.format, write)
    made = data_layer(folder, batch=5, transform="scale: 0.1 mean_value: 100 crop_size: 2", backend=backend)
    in_order = DatabaseSource(made, PROTOTXT)
    expected = [in_order.batch(k) for k in range(12)]
    index = pickle.loads(pickle.dumps(in_order.index))
    for seed in range(3):
        order = random.Random(seed).sample(range(12), 12)
        for source in (DatabaseSource(made, PROTOTXT), DatabaseSource(made, PROTOTXT, index)):
            for iteration in order:
                for top, values in source.batch(iteration).items():
                    assert values.tobytes() == expected[iteration][top].tobytes()


def test_source_without_label_top(tmp_path: Path) -> None:
    folder = write_datums(tmp_path / "db", numbered(2))
    source = DatabaseSource(
        layer(f'top: "x" data_param {{ source: "{folder}" batch_size: 2 backend: LMDB }}'), PROTOTXT
    )
    assert source.shapes == {"x": (2, 1, 2, 2)}
    assert list(source.batch(0)) == ["x"]


def test_source_is_found_beside_the_prototxt(tmp_path: Path) -> None:
    write_datums(tmp_path / "db", numbered(2))
    source = DatabaseSource(data_layer(Path("db")), tmp_path / "net.prototxt")
    assert source.batch(1)["label"] == [1]


def test_bytes_and_floats_may_be_mixed(tmp_path: Path) -> None:
    pixels: list[npt.NDArray[np.generic]] = [
        noise(1, 2, 2),
        np.full((1, 2, 2), 0.25, np.float32),
        noise(1, 2, 2, seed=1),
    ]
    source = opened(write_datums(tmp_path / "db", map(raw_datum, pixels)), batch=3, transform="scale: 2")
    np.testing.assert_array_equal(source.batch(0)["data"], 2 * np.stack(pixels).astype(np.float32))


def test_encoded_and_raw_images_may_be_mixed(tmp_path: Path) -> None:
    image = noise(4, 5, 3)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    source = opened(write_datums(tmp_path / "db", [encoded_datum(image), raw_datum(planes)]), batch=2)
    np.testing.assert_array_equal(source.batch(0)["data"], [planes, planes])


def test_force_encoded_color_is_force_color(tmp_path: Path) -> None:
    folder = write_datums(tmp_path / "db", [encoded_datum(noise(4, 4))])
    assert opened(folder, data="force_encoded_color: true").shapes["data"] == (1, 3, 4, 4)


@pytest.mark.parametrize(("backend", "write"), BACKENDS, ids=["LMDB", "LevelDB"])
def test_padded_images_have_the_shape_that_is_told(tmp_path: Path, backend: str, write: Write) -> None:
    images = [noise(8, 8, 3, seed=seed) for seed in range(3)]
    folder = write_datums(tmp_path / "db", [encoded_datum(image) for image in images], write=write)
    source = opened(folder, 2, "crop_size: 4 pad: 3", backend=backend)
    assert source.shapes == {"data": (2, 3, 10, 10), "label": (2,)}
    for iteration, pair in enumerate([(0, 1), (2, 0)]):
        got = source.batch(iteration)["data"]
        assert got.shape == source.shapes["data"]
        wanted = [np.pad(images[i].transpose(2, 0, 1), [(0, 0), (1, 1), (1, 1)]) for i in pair]
        np.testing.assert_array_equal(got, np.stack(wanted))


def test_images_of_different_sizes_are_cropped_to_one(tmp_path: Path) -> None:
    images = [noise(6, 8, 3), noise(9, 5, 3)]
    source = opened(write_datums(tmp_path / "db", map(encoded_datum, images)), batch=2, transform="crop_size: 4")
    expected = [images[0][1:5, 2:6], images[1][2:6, 0:4]]
    np.testing.assert_array_equal(source.batch(0)["data"], np.stack(expected).transpose(0, 3, 1, 2))


def _another_size() -> bytes:
    return raw_datum(noise(3, 4, 5)).SerializeToString()


def _another_depth() -> bytes:
    return encoded_datum(noise(4, 4)).SerializeToString()


def _bad_parse() -> bytes:
    return b"\xff\xff"


def _bad_count() -> bytes:
    return caffe_pb2.Datum(channels=3, height=4, width=4, data=b"123").SerializeToString()


def _bad_image() -> bytes:
    return caffe_pb2.Datum(data=b"\xff\xd8broken", encoded=True).SerializeToString()


@pytest.mark.parametrize(("backend", "write"), BACKENDS, ids=["LMDB", "LevelDB"])
@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (_another_size, "gives 3 x 4 x 5 values where the first record gives 3 x 4 x 4; set crop_size or resize_param"),
        (_another_depth, "gives 1 x 4 x 4 values where the first record gives 3 x 4 x 4; set crop_size"),
        (_bad_parse, "is not a Datum (2 bytes); write it again or leave it out"),
        (_bad_count, "declares 3 x 4 x 4 = 48 values but holds 3 bytes; write it again or leave it out"),
        (_bad_image, "is not an image that can be decoded (8 bytes); write it again or leave it out"),
    ],
    ids=lambda value: value.__name__[1:] if callable(value) else "",
)
def test_bad_record_is_named_by_its_key(
    tmp_path: Path, record: Callable[[], bytes], sentence: str, backend: str, write: Write
) -> None:
    good = raw_datum(noise(3, 4, 4)).SerializeToString()
    folder = write(tmp_path / "db", [(b"0", good), (b"1_cat/x.JPEG", record()), (b"2", good)])
    source = opened(folder, batch=3, backend=backend)
    with pytest.raises(DataError) as error:
        source.batch(0)
    assert str(error.value).startswith(f"{folder}: record '1_cat/x.JPEG' {sentence}")
    assert "\n" not in str(error.value)


def test_bad_first_record_is_named_when_opened(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "db", [(b"0", b"\xff\xff")])
    with pytest.raises(DataError, match="record '0' is not a Datum"):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('top: "a" data_param { source: "db" backend: LMDB }', "data_param has no batch_size; give the number of"),
        (
            'top: "a" data_param { batch_size: 1 backend: LMDB }',
            "data_param has no source; name the folder of the database",
        ),
        ('data_param { source: "db" batch_size: 1 backend: LMDB }', "has 0 tops; give one for the images and, if"),
        (
            'top: "a" data_param { source: "db" batch_size: 1 backend: LMDB rand_skip: 9 }',
            "rand_skip: 9 begins at a random record, so no score could be measured twice; take it out",
        ),
        (
            'top: "a" data_param { source: "db" batch_size: 1 backend: LMDB crop_size: 3 }',
            "data_param.crop_size is of an old format; write it in transform_param",
        ),
        ('top: "a" data_param { source: "db" batch_size: 1 backend: LMDB side: 7 }', "side is for labels of boxes"),
        (
            'top: "a" data_param { side: 7 }',
            "data_param has no source; name the folder of the database; data_param has no batch_size; give the "
            "number of records an iteration; side is for labels of boxes",
        ),
    ],
    ids=["batch", "source", "tops", "rand_skip", "old format", "side", "all at once"],
)
def test_layer_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        DatabaseSource(layer(text), PROTOTXT)
    assert str(error.value).startswith(f"net.prototxt: layer 'data' (Data): {sentence}")


@pytest.mark.golden
def test_cifar10_of_the_golden_data(golden: Path) -> None:
    """Numbers from the images themselves: 10,000 in 10 classes of 1,000, of mean 0.0547 under this net's transform."""
    prototxt = golden / "cifar10" / "resnet20.prototxt"
    net = text_format.Parse(prototxt.read_text(), caffe_pb2.NetParameter())
    source = DatabaseSource(net.layer[0], prototxt)
    assert source.shapes == {"data": (100, 3, 32, 32), "label": (100,)}
    assert source.index.n_records == 10_000
    first = source.batch(0)
    assert first["label"][:10].tolist() == [3, 8, 1, 0, 4, 0, 9, 3, 4, 9]
    assert first["data"].astype(np.float64).mean() == pytest.approx(0.0547279, abs=1e-7)
    labels = np.concatenate([source.batch(k)["label"] for k in range(100)])
    assert np.bincount(labels.astype(int)).tolist() == [1000] * 10
    assert source.batch(100)["data"].tobytes() == first["data"].tobytes()
