from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data.hdf5 import Hdf5Source, _stored
from distcalib.data.source import KeyIndex, RowIndex
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer
from tests.every import every

Array = npt.NDArray[np.generic]


def write_files(folder: Path, *files: Mapping[str, Array], **options: object) -> Path:
    """HDF5 files 0.h5, 1.h5, .. of these datasets, and the list of them."""
    for number, datasets in enumerate(files):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            for name, values in datasets.items():
                file.create_dataset(name, data=values, **options)
    (folder / "list.txt").write_text("".join(f"{folder}/{number}.h5\n" for number in range(len(files))))
    return folder / "list.txt"


def numbered(*counts: int) -> list[dict[str, Array]]:
    """Datasets of so many rows, each row filled with its number over all files, which is its label too."""
    ends = np.cumsum((0, *counts))
    rows = [np.arange(start, stop) for start, stop in pairwise(ends)]
    return [{"x": np.repeat(n, 6).reshape(-1, 2, 3).astype(np.float64), "label": n} for n in rows]


BOTH = 'top: "x" top: "label"'


def opened(source: Path, batch: int = 1, index: RowIndex | None = None, tops: str = BOTH) -> Hdf5Source:
    text = f'{tops} hdf5_data_param {{ source: "{source}" batch_size: {batch} }}'
    return Hdf5Source(layer(text, "HDF5Data"), PROTOTXT, index)


@pytest.mark.parametrize(
    ("counts", "batch", "iteration", "rows"),
    [
        ((4, 2), 3, 0, [0, 1, 2]),
        ((4, 2), 3, 1, [3, 4, 5]),
        ((4, 2), 3, 2, [0, 1, 2]),
        ((3, 1, 1), 4, 0, [0, 1, 2, 3]),
        ((3, 1, 1), 4, 1, [4, 0, 1, 2]),
        ((3, 1, 1), 3, 1, [3, 4, 0]),
        ((2,), 5, 1, [1, 0, 1, 0, 1]),
        ((1, 1), 7, 0, [0, 1, 0, 1, 0, 1, 0]),
        ((4, 3), 1, 1_000_003, [1_000_003 % 7]),
    ],
)
def test_batch_crosses_files_and_wraps_around(
    tmp_path: Path, counts: tuple[int, ...], batch: int, iteration: int, rows: list[int]
) -> None:
    source = opened(write_files(tmp_path, *numbered(*counts)), batch)
    got = source.batch(iteration)
    assert source.shapes == {"x": (batch, 2, 3), "label": (batch,)}
    assert every(values.dtype == np.float32 for values in got.values())
    assert got["label"].tolist() == rows
    assert got["x"][:, 1, 2].tolist() == rows
    assert {top: values.shape for top, values in got.items()} == source.shapes
    source.close()
    source.close()


@pytest.mark.parametrize("numbers", [[6, 0, 3, 4, 5], [2, 2, 1], [9, 7, 20]])
def test_rows_are_had_by_number(tmp_path: Path, numbers: list[int]) -> None:
    found = opened(write_files(tmp_path, *numbered(3, 1, 3)), 2).pick(numbers)
    assert found["label"].tolist() == [number % 7 for number in numbers]
    assert found["x"][:, 0, 1].tolist() == found["label"].tolist()
    assert found["x"].shape == (len(numbers), 2, 3)
    assert every(values.dtype == np.float32 for values in found.values())


def test_batches_are_the_same_in_any_order_with_and_without_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.RandomState(0)
    counts = (5, 1, 8)
    files: list[dict[str, Array]] = [{"x": draw.rand(n, 3, 4), "label": draw.randint(0, 9, n)} for n in counts]
    source = write_files(tmp_path, *files, chunks=True, compression="gzip")
    in_order = opened(source, 4)
    expected = [in_order.batch(k) for k in range(9)]
    index = pickle.loads(pickle.dumps(in_order.index))
    assert index == RowIndex(14, tuple((f"{tmp_path}/{i}.h5", n) for i, n in enumerate(counts)))
    source.write_text("")  # with an index nothing is scanned
    for seed in range(3):
        made = opened(source, 4, index)
        for iteration in random.Random(seed).sample(range(9), 9):
            for top, values in made.batch(iteration).items():
                assert values.tobytes() == expected[iteration][top].tobytes()


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", ">i4", "<i8", "u8", "<f2", "<f4", ">f4", "<f8"])
def test_numbers_become_float32(tmp_path: Path, dtype: str) -> None:
    values = np.array([0, 1, 77, 16_777_217 if np.dtype(dtype).itemsize > 2 else 100], np.float64).astype(dtype)
    source = opened(write_files(tmp_path, {"x": values, "label": values}), 4)
    np.testing.assert_array_equal(source.batch(0)["x"], values.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300], ids=["nan", "inf", "minus_inf", "beyond_float32"])
def test_values_that_are_no_numbers_are_refused_by_file_and_row(tmp_path: Path, bad: float) -> None:
    good, spoilt = np.zeros((3, 2, 2)), np.zeros((4, 2, 2))
    spoilt[2, 1, 0] = bad
    source = opened(write_files(tmp_path, {"x": good}, {"x": spoilt}), 2, tops='top: "x"')
    assert not source.batch(0)["x"].any()
    with pytest.raises(
        DataError, match=r"1\.h5: row 2 of dataset 'x' holds values that are NaN or infinite; correct it"
    ):
        source.batch(2)


def test_names_in_the_list_are_found_beside_the_prototxt(tmp_path: Path) -> None:
    write_files(tmp_path, *numbered(2, 1))
    (tmp_path / "list.txt").write_text("1.h5 0.h5\n")  # Caffe splits at blanks, too
    text = 'top: "label" hdf5_data_param { source: "list.txt" batch_size: 3 }'
    source = Hdf5Source(layer(text, "HDF5Data"), tmp_path / "net.prototxt")
    assert source.batch(0)["label"].tolist() == [2, 0, 1]


def test_files_without_write_permission_are_read(tmp_path: Path) -> None:
    source = write_files(tmp_path, *numbered(2))
    (tmp_path / "0.h5").chmod(0o444)
    assert opened(source, 2).batch(0)["label"].tolist() == [0, 1]


def test_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pattern = np.arange(8, dtype=np.float32) + 12345
    files = [{"x": np.stack([pattern + i for i in range(5)])} for _ in range(2)]
    source = write_files(tmp_path, *files, chunks=(1, 8), fletcher32=True)
    data = bytearray((tmp_path / "1.h5").read_bytes())
    at = data.index((pattern + 3).tobytes())
    data[at] ^= 1
    (tmp_path / "1.h5").write_bytes(data)
    made = opened(source, 10, tops='top: "x"')
    with pytest.raises(DataError) as error:
        made.batch(0)
    assert str(error.value).startswith(f"{tmp_path}/1.h5: row 3 of dataset 'x' cannot be read (")
    assert str(error.value).endswith("); write the file again")
    assert "\n" not in str(error.value)


def _missing(folder: Path) -> None:
    (folder / "1.h5").unlink()


def _no_hdf5(folder: Path) -> None:
    (folder / "1.h5").write_text("something else")


def _cut(folder: Path) -> None:
    (folder / "1.h5").write_bytes((folder / "1.h5").read_bytes()[:-100])


def _with(**datasets: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / "1.h5", "a") as file:
            for name, values in datasets.items():
                del file[name]
                if values is not None:
                    file[name] = values

    return spoil


def _group(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "a") as file:
        del file["x"]
        file.create_group("x")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_missing, "1.h5: does not exist; a relative name is looked up from the working directory, then from the"),
        (_no_hdf5, "1.h5: cannot be read as an HDF5 file (Unable to"),
        (_cut, "1.h5: cannot be read as an HDF5 file (Unable to"),
        (_with(x=None), "1.h5: has no dataset 'x' (there are: label); write it again or leave it out"),
        (_group, "1.h5: 'x' is a group, not a dataset; write it again or leave it out"),
        (_with(x=np.zeros((3, 3, 2))), "dataset 'x' has rows of 3 x 2 where {folder}/0.h5 has 2 x 3; write it again"),
        (_with(label=np.zeros((3, 1))), "dataset 'label' has rows of 1 where {folder}/0.h5 has one value; write it"),
        (_with(label=np.zeros(4)), "datasets have different numbers of rows ('x' 3, 'label' 4); write it again"),
        (_with(label=np.array([b"text"] * 3)), "dataset 'label' holds |S4 values, not numbers"),
        (_with(label=np.array([True, False, True])), "dataset 'label' holds bool values, not numbers"),
        (_with(label=np.float32(1)), "dataset 'label' is of shape (), without rows"),
        (_with(label=np.zeros(0)), "dataset 'label' is of shape (0,), without rows"),
        (_with(x=None, label=np.zeros(0)), "has no dataset 'x' (there are: label); write it again or leave it out; "),
    ],
    ids=[
        "missing",
        "no HDF5",
        "cut",
        "dataset",
        "group",
        "shape",
        "column",
        "rows",
        "text",
        "bool",
        "scalar",
        "empty",
        "two",
    ],
)
def test_unusable_file_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    source = write_files(tmp_path, *numbered(2, 3, 1))
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        opened(source)
    assert str(error.value).startswith(f"{source}: {tmp_path}/1.h5: ")
    assert sentence.format(folder=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_all_unusable_files_are_named_at_once(tmp_path: Path) -> None:
    source = write_files(tmp_path, *numbered(2, 3, 1))
    _missing(tmp_path)
    (tmp_path / "2.h5").unlink()
    with pytest.raises(DataError, match=r"1.h5: does not exist;.*2.h5: does not exist"):
        opened(source)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist; a relative source is looked up from the working directory, then from"),
        (b" \n", "the list is empty; give the name of an HDF5 file a line"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; give a text file that lists its name"),
        ("data/a.h5\n".encode("utf-16-le"), "is text in UTF-16; save the list as UTF-8"),
    ],
    ids=["missing", "empty", "HDF5", "UTF-16"],
)
def test_unusable_list_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        opened(tmp_path / "list.txt")
    assert str(error.value).startswith(f"{tmp_path}/list.txt: {sentence}")


def test_index_of_other_files_is_refused(tmp_path: Path) -> None:
    source = write_files(tmp_path, *numbered(2))
    made = opened(source, 3, RowIndex(3, ((f"{tmp_path}/0.h5", 3),)))
    with pytest.raises(DataError, match="dataset 'x' has 2 rows, fewer than were counted before; every machine must"):
        made.batch(0)
    with pytest.raises(TypeError, match="an index of rows is wanted, not KeyIndex"):
        other = layer('top: "x" hdf5_data_param { source: "l" batch_size: 1 }', "HDF5Data")
        Hdf5Source(other, PROTOTXT, KeyIndex(1, 1, (b"",)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('hdf5_data_param { source: "l" batch_size: 1 }', "has no tops; name the datasets to be read"),
        ('top: "x" hdf5_data_param { batch_size: 1 }', "hdf5_data_param has no source; name a list of HDF5 files"),
        ('top: "x" hdf5_data_param { source: "l" }', "hdf5_data_param has no batch_size; give the number of rows"),
        (
            'top: "x" hdf5_data_param { source: "l" batch_size: 1 } transform_param {}',
            "transform_param is refused by Caffe for HDF5 data; write the values transformed",
        ),
        ("", "has no tops; name the datasets to be read; hdf5_data_param has no source; name a list of HDF5 files; "),
    ],
    ids=["tops", "source", "batch", "transform", "all at once"],
)
def test_layer_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        Hdf5Source(layer(text, "HDF5Data"), PROTOTXT)
    assert str(error.value).startswith(f"net.prototxt: layer 'data' (HDF5Data): {sentence}")


def test_a_pipe_in_a_list_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n")
    text = f'top: "data" hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 3 }}'
    with pytest.raises(DataError, match=r"a\.h5: is a pipe, not a file; write it to a file first"):
        Hdf5Source(layer(text, "HDF5Data"), tmp_path / "net.prototxt")


def test_a_folder_in_a_list_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.h5").mkdir()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "list.txt")
    said = "is a folder, not an HDF5 file; name the file inside it"
    assert str(error.value) == f"{tmp_path}/list.txt: {tmp_path}/a.h5: {said}"


@pytest.mark.parametrize("target", ["/x", "/label", "/nothing", "other.h5"])
def test_a_link_that_leads_astray_is_told_as_one(tmp_path: Path, target: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink(target, "/x") if target == "other.h5" else h5py.SoftLink(target)
        file["label"] = h5py.SoftLink("/x")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "list.txt", tops='top: "x" ')
    said = "'x' is a link that leads to no dataset; write it again or leave it out"
    assert str(error.value) == f"{tmp_path}/list.txt: {tmp_path}/a.h5: {said}"


@pytest.mark.parametrize("n_stored", [0, 3], ids=["nothing", "some"])
def test_rows_that_a_file_declares_and_does_not_store_are_not_walked(tmp_path: Path, n_stored: int) -> None:
    source = write_files(tmp_path, {})
    with h5py.File(tmp_path / source.read_text().split()[0], "w") as file:
        for name in BOTH.split('"')[1::2]:
            dataset = file.create_dataset(name, (2**40, 4), np.float32, chunks=(8, 4))
            dataset[100 : 100 + n_stored] = np.ones((n_stored, 4))
    tops = opened(source, batch=4, tops=BOTH).pick([99, 100, 101, 2**40 - 1])
    expected = [0.0, float(n_stored > 0), float(n_stored > 0), 0.0]
    assert every(top[:, 0].tolist() == expected for top in tops.values())


def test_rows_of_other_files_are_walked(tmp_path: Path) -> None:
    write_files(tmp_path, {"x": np.arange(6.0).reshape(3, 2), "label": np.arange(3)})
    (tmp_path / "0.h5").rename(tmp_path / "kept.h5")
    with h5py.File(tmp_path / "0.h5", "w") as file:
        for name, shape in (("x", (3, 2)), ("label", (3,))):
            layout = h5py.VirtualLayout(shape, np.float64)
            layout[:] = h5py.VirtualSource(tmp_path / "kept.h5", name, shape=shape)
            file.create_virtual_dataset(name, layout)
        assert every(list(_stored(file[name])) == [(0, 3)] for name in ("x", "label"))
    assert opened(tmp_path / "list.txt", batch=3).batch(0)["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
