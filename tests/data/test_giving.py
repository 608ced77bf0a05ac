"""Arrays in the place of what data layers read."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.lib import format as npy

from distcalib.caffe import caffe_pb2
from distcalib.data import array_shapes, feed, makes_data
from distcalib.errors import DataError


def layer(text: str) -> caffe_pb2.LayerParameter:
    return text_format.Parse(f"name: 'it' {text}", caffe_pb2.LayerParameter())


def shapes_of(it: caffe_pb2.LayerParameter) -> dict[str, tuple[int, ...]]:
    return {top: tuple(shape.dim) for top, shape in zip(it.top, it.input_param.shape, strict=True)}


GIVEN = {"data": (10, 3, 8, 8), "label": (10,), "other": (2, 2)}

FED = {
    "Python": ("type: 'Python' top: 'data' top: 'label' python_param { module: 'm' }", 1),
    "HDF5": ("type: 'HDF5Data' top: 'data' top: 'label' hdf5_data_param { batch_size: 5 }", 5),
    "Data": ("type: 'Data' top: 'data' top: 'label' data_param { batch_size: 2 }", 2),
    "Window": ("type: 'WindowData' top: 'data' top: 'label' window_data_param { batch_size: 4 }", 4),
    "Memory": ("type: 'MemoryData' top: 'data' top: 'label' memory_data_param { batch_size: 3 }", 3),
    "fork": ("type: 'MyData' top: 'data' top: 'label'", 1),
}


@pytest.mark.parametrize("case", FED)
def test_feed_makes_an_input_of_a_data_layer(case: str) -> None:
    text, batch = FED[case]
    it = layer(text)
    feed(it, GIVEN, {"data", "label"})
    assert (it.name, it.type) == ("it", "Input")
    assert shapes_of(it) == {"data": (batch, 3, 8, 8), "label": (batch,)}


def test_feed_takes_as_many_rows_as_the_images_where_no_batch_is_known() -> None:
    it = layer("type: 'AbsentData' top: 'label'")
    feed(it, GIVEN, {"label"}, otherwise=5)
    assert shapes_of(it) == {"label": (5,)}


def test_feed_needs_no_array_of_a_top_that_nothing_reads() -> None:
    it = layer("type: 'Python' top: 'data' top: 'boxes'")
    feed(it, GIVEN, {"data"})
    assert shapes_of(it) == {"data": (1, 3, 8, 8)}


def test_feed_names_the_arrays_that_are_missing() -> None:
    with pytest.raises(DataError, match=r"layer 'it' \(Python\): --data gives .* none for 'boxes', 'info'; give one"):
        feed(layer("type: 'Python' top: 'data' top: 'boxes' top: 'info'"), GIVEN, {"data", "boxes", "info"})


@pytest.mark.parametrize(
    "text",
    [
        "type: 'Input' top: 'data' input_param { shape { dim: 2 } }",
        "type: 'ReLU' bottom: 'x' top: 'data'",
        "type: 'Python' top: 'elsewhere'",
        "type: 'Parameter' top: 'data'",
    ],
)
def test_feed_leaves_other_layers_alone(text: str) -> None:
    it, before = layer(text), layer(text)
    feed(it, GIVEN, {"data", "elsewhere"})
    assert it == before


def test_makes_data_is_where_data_come_in() -> None:
    assert makes_data(layer("type: 'Python' top: 'a'"))
    assert not makes_data(layer("type: 'Python' bottom: 'b' top: 'a'"))
    assert not makes_data(layer("type: 'Silence'"))


def write_header(path: Path, shape: tuple[int, ...]) -> Path:
    """A .npz with an array 'data' of that shape, and none of its values."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"shape": shape, "fortran_order": False, "descr": "<f4"})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", header.getvalue())
        archive.writestr("readme.txt", "no array")
    return path


def test_array_shapes_reads_headers_alone(tmp_path: Path) -> None:
    assert array_shapes(write_header(tmp_path / "in.npz", (10**6, 10**6))) == {"data": (10**6, 10**6)}


def test_array_shapes_refuses_rows_that_no_blob_holds(tmp_path: Path) -> None:
    path = write_header(tmp_path / "in.npz", (2, 10**30))
    with pytest.raises(DataError, match=r"in\.npz: has 'data' of shape \(2, 10+\); a blob has less than 2\^31"):
        array_shapes(path)


def test_array_shapes_reads_those_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", data=np.zeros((4, 2)), label=np.zeros(4))
    np.save(tmp_path / "in.npy", np.zeros(3))
    (tmp_path / "bad.npz").write_text("PK no")
    assert array_shapes(tmp_path / "in.npz") == {"data": (4, 2), "label": (4,)}
    assert [array_shapes(tmp_path / name) for name in ("in.npy", "bad.npz")] == [{}, {}]
    with pytest.raises(DataError, match=r"absent: does not exist; give a \.npz"):
        array_shapes(tmp_path / "absent")
