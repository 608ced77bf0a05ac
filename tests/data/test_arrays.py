from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data import array_shapes, load_arrays, open_source
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer
from tests.every import every

ONE = layer('top: "x" input_param { shape { dim: 2 dim: 3 } }', "Input")
TWO = layer('top: "x" top: "info" input_param { shape { dim: 2 dim: 3 } shape { dim: 1 dim: 4 } }', "Input")
OTHER = layer('top: "noise" dummy_data_param { shape { dim: 2 } }', "DummyData")
X = np.arange(15, dtype=np.float64).reshape(5, 3)
INFO = np.ones((1, 4), np.float32)


def test_load_arrays_takes_a_npz_by_top_name(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=X, info=INFO, other=np.array([{}], object))
    arrays = load_arrays(tmp_path / "a.npz", [OTHER, TWO], PROTOTXT)
    assert list(arrays) == ["x", "info"]
    source = open_source(TWO, PROTOTXT, arrays=arrays)
    np.testing.assert_array_equal(source.batch(2)["x"], X[[4, 0]])  # wrapped around


def test_load_arrays_takes_the_tops_of_several_layers(tmp_path: Path) -> None:
    info = layer('top: "info" input_param { shape { dim: 1 dim: 4 } }', "Input")
    np.savez(tmp_path / "a.npz", x=X, info=INFO)
    assert set(load_arrays(tmp_path / "a.npz", [ONE, info], PROTOTXT)) == {"x", "info"}


@pytest.mark.parametrize("array", [X, X.astype(">f4"), X.astype(np.uint8), np.asfortranarray(X), X > 3])
def test_load_arrays_takes_a_npy_for_the_only_top(tmp_path: Path, array: npt.NDArray[np.generic]) -> None:
    np.save(tmp_path / "a.npy", array)
    source = open_source(ONE, PROTOTXT, arrays=load_arrays(tmp_path / "a.npy", [ONE], PROTOTXT))
    batch = source.batch(0)["x"]
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, array[:2].astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "sentences"),
    [
        ({"y": X}, ["top 'x' has no array (there are: y); give one", "top 'info' has no array"]),
        ({"x": X.T, "info": INFO}, ["the array of top 'x' is (3, 5); give one of (n, 3,)"]),
        ({"x": X[:0], "info": INFO}, ["the array of top 'x' is (0, 3); give one of (n, 3,)"]),
        ({"x": X.astype(complex), "info": INFO}, ["the array of top 'x' holds complex128 values; give numbers"]),
        ({"x": X.astype(str), "info": INFO}, ["the array of top 'x' holds <U32 values; give numbers"]),
    ],
    ids=["missing", "other shape", "empty", "complex", "text"],
)
def test_load_arrays_names_all_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.generic]], sentences: list[str]
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError) as error:
        load_arrays(tmp_path / "a.npz", [TWO], PROTOTXT)
    assert str(error.value).startswith(f"{tmp_path}/a.npz: ")
    assert every(sentence in str(error.value) for sentence in sentences)


def test_load_arrays_refuses_one_array_for_two_tops(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(DataError, match=r"a.npy: is one array for 2 tops; give a .npz with arrays 'x', 'info'"):
        load_arrays(tmp_path / "a.npy", [TWO], PROTOTXT)


def test_load_arrays_refuses_a_net_without_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not wanted, since net.prototxt has no Input layer in the TEST phase"):
        load_arrays(tmp_path / "a.npy", [OTHER], PROTOTXT)


def _broken() -> bytes:
    return b"PK\x03\x04 and no more"


def _text() -> bytes:
    return b"1, 2, 3\n"


def _empty() -> bytes:
    return b""


def _cut() -> bytes:
    return b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (5, 3), }".ljust(128) + bytes(40)


@pytest.mark.parametrize("content", [_broken, _text, _empty, _cut], ids=lambda made: made.__name__[1:])
def test_load_arrays_refuses_what_is_no_array(tmp_path: Path, content: object) -> None:
    assert callable(content)
    (tmp_path / "a.npz").write_bytes(content())
    with pytest.raises(DataError) as error:
        load_arrays(tmp_path / "a.npz", [ONE], PROTOTXT)
    assert str(error.value).startswith(f"{tmp_path}/a.npz: is not a .npy or .npz of numbers (")
    assert str(error.value).endswith("); write it by numpy.savez with arrays 'x'")
    assert "\n" not in str(error.value)


def test_load_arrays_refuses_python_objects(tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz"):
        with (tmp_path / name).open("wb") as file:
            objects = np.array([{}, {}], object)
            np.save(file, objects) if name == "a.npy" else np.savez(file, x=objects)
        with pytest.raises(DataError, match=r"is not a .npy or .npz of numbers \(.*bject"):
            load_arrays(tmp_path / name, [ONE], PROTOTXT)


def test_load_arrays_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.npz: does not exist; give a .npz with arrays 'x'"):
        load_arrays(tmp_path / "a.npz", [ONE], PROTOTXT)


def test_load_arrays_reads_nothing_that_is_packed_with_bzip2(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        for i in range(12):
            archive.writestr(f"x{i}.npy", bytes(1000))
    for read in (array_shapes, lambda path: load_arrays(path, [ONE], PROTOTXT)):
        with pytest.raises(DataError) as error:
            read(tmp_path / "a.npz")
        assert str(error.value) == (
            f"{tmp_path}/a.npz: arrays packed with bzip2 are not read ('x0', 'x1', 'x2', 'x3', 'x4', 'x5', 'x6', 'x7', "
            "'x8', 'x9' and 2 more); write it by numpy.savez_compressed"
        )


def test_load_arrays_lists_the_first_names_of_many(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for i in range(10_000):
            archive.writestr(f"m{i:05}.npy", b"")
    with pytest.raises(DataError, match=r"\(there are: m00000, [m0-9, ]*, m00009 and 9990 more\); give one$"):
        load_arrays(tmp_path / "a.npz", [ONE], PROTOTXT)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_load_arrays_says_nothing_of_a_huge_shape_but_its_sentence(tmp_path: Path, name: str) -> None:
    array = b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 3), }".ljust(
        128
    )
    (tmp_path / "a.npy").write_bytes(array)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "x.npy")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(DataError, match=r"is not a .npy or .npz of numbers \(ValueError: "):
            load_arrays(tmp_path / name, [ONE], PROTOTXT)
    assert not said
