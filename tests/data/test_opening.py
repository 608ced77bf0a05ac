from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.data import DATA_TYPES, REFUSED_DATA, VARIES, open_source
from distcalib.errors import UnsupportedError
from tests.data.databases import PROTOTXT, data_layer, layer, noise, numbered, raw_datum, write_datums, write_lmdb
from tests.every import every


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "0.h5", "w") as file:
        file["x"] = np.zeros((3, 2))
    (folder / "files.txt").write_text(f"{folder}/0.h5\n")
    return folder / "files.txt"


def _images(folder: Path) -> Path:
    cv2.imwrite(str(folder / "0.png"), noise(4, 4, 3))
    (folder / "images.txt").write_text(f"{folder}/0.png 1\n")
    return folder / "images.txt"


def test_open_source_opens_each_type(tmp_path: Path) -> None:
    boxes = AnnotatedDatum(datum=raw_datum(noise(1, 2, 2)), type=AnnotatedDatum.BBOX)
    annotated = data_layer(write_lmdb(tmp_path / "boxes", [(b"0", boxes.SerializeToString())]))
    annotated.type = "AnnotatedData"
    layers = {
        "AnnotatedData": annotated,
        "Data": data_layer(write_datums(tmp_path / "db", numbered(3))),
        "DenseImageData": layer(_dense(tmp_path), "DenseImageData"),
        "DummyData": layer('top: "data" dummy_data_param { shape { dim: 2 } }', "DummyData"),
        "HDF5Data": layer(f'top: "x" hdf5_data_param {{ source: "{_hdf5(tmp_path)}" batch_size: 2 }}', "HDF5Data"),
        "ImageData": layer(f'top: "x" top: "y" image_data_param {{ source: "{_images(tmp_path)}" }}', "ImageData"),
        "ImageSegData": layer(
            _dense(tmp_path).replace("dense_image_data_param {", "image_data_param { label_type: PIXEL"), "ImageSegData"
        ),
        "Input": layer('top: "data" input_param { shape { dim: 2 } }', "Input"),
    }
    assert set(layers) == DATA_TYPES
    for each in layers.values():
        source = open_source(each, PROTOTXT, arrays={"data": np.zeros(2, np.float32)})
        batch = source.batch(0)
        fixed = {top: tuple(1 if n == VARIES else n for n in shape) for top, shape in source.shapes.items()}
        assert {top: values.shape for top, values in batch.items()} == fixed
        assert every(values.flags.c_contiguous and values.dtype == np.float32 for values in batch.values())
        assert tuple(batch) == source.tops
        source.close()
        source.close()


def test_open_source_gives_arrays_that_the_caller_may_keep(tmp_path: Path) -> None:
    source = open_source(data_layer(write_datums(tmp_path / "db", numbered(3))), PROTOTXT)
    first = source.batch(0)["data"]
    source.batch(1)
    first += 1
    assert first.max() == 1
    assert source.batch(0)["data"].max() == 0


@pytest.mark.parametrize("type_", sorted(REFUSED_DATA))
def test_open_source_names_what_it_does_not_read(type_: str) -> None:
    assert type_ not in DATA_TYPES
    with pytest.raises(UnsupportedError) as error:
        open_source(layer("", type_), PROTOTXT)
    assert str(error.value) == f"net.prototxt: layer 'data' ({type_}) {REFUSED_DATA[type_]}"
    assert "; " in REFUSED_DATA[type_]


def test_open_source_names_a_layer_that_is_no_data() -> None:
    with pytest.raises(
        UnsupportedError, match=r"\(Pooling\) is not a data layer; AnnotatedData, Data, DenseImageData, DummyData, "
    ):
        open_source(layer("", "Pooling"), PROTOTXT)


def _dense(folder: Path) -> str:
    """The fields of a layer that reads an image with its labels."""
    for name, image in (("dense.png", noise(2, 2, 3)), ("labels.png", noise(2, 2))):
        (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "pairs.txt").write_text(f"{folder}/dense.png {folder}/labels.png\n")
    return f'top: "x" top: "y" dense_image_data_param {{ source: "{folder}/pairs.txt" batch_size: 1 }}'
