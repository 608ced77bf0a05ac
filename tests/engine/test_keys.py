"""A label that is no class is named by the file and its key, line or row."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data.source import Index, KeyIndex, RowIndex
from distcalib.engine.spec import NetSpec
from distcalib.engine.worker import NetWorker, Setting
from distcalib.errors import DataError
from tests.data.databases import noise, raw_datum, write_datums

_NET = """
{data}
layer {{ name: "flat" type: "Flatten" bottom: "data" top: "flat" }}
layer {{ name: "labels" type: "Reshape" bottom: "label" top: "labels" reshape_param {{ shape {{ dim: 0 dim: 1 }} }} }}
layer {{ name: "top1" type: "Accuracy" bottom: "flat" bottom: "labels" top: "top1" }}
"""
_LABELS = (0.0, 1.0, 2.0, 7.0)


def refusal(
    folder: Path,
    data: str,
    arrays: Mapping[str, npt.NDArray[np.float32]] | None = None,
    index: Index | None = None,
) -> str:
    """What the score of four records says of the last, whose label is none of four classes.

    `index`: as an actor is given it, so that no child process walks the data beside the threads of other tests."""
    net = text_format.Parse(_NET.format(data=data), caffe_pb2.NetParameter()).SerializeToString()
    worker = NetWorker(Setting(folder / "net.prototxt", {}, "net.caffemodel", {"d": index}, arrays), 1)
    worker.load("net", worker.compile(NetSpec(net, "net.prototxt")))
    with pytest.raises(DataError) as caught:
        worker.run("net", range(2))
    return str(caught.value)


def said(shown: str, where: str) -> str:
    return (
        f"net.prototxt: layer 'top1' (Accuracy): 1 of 2 labels lie outside the classes 0 to 3 (such as {shown}); "
        f"correct the data set, or set ignore_label (the first: {where})"
    )


def test_a_label_of_a_database_is_named_by_its_key(tmp_path: Path) -> None:
    write_datums(tmp_path / "db", [raw_datum(noise(1, 2, 2), int(label)) for label in _LABELS])
    data = 'layer { name: "d" type: "Data" top: "data" top: "label" '
    data += 'data_param { source: "db" batch_size: 2 backend: LMDB } }'
    index = KeyIndex(4, 1, tuple(f"{i:08d}".encode() for i in range(4)))
    assert refusal(tmp_path, data, index=index) == said("7", "db: record '00000003'")


@pytest.mark.parametrize(("label", "shown"), [(7.0, "7"), (1e30, "1e+30"), (-1e20, "-1e+20")])
def test_a_label_of_hdf5_is_named_by_file_and_row(label: float, shown: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((4, 4), np.float32), np.array([*_LABELS[:3], label], np.float32)
    (tmp_path / "list.txt").write_text("a.h5\n")
    data = (
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" '
        f'hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 2 }} }}'
    )
    index = RowIndex(4, ((str(tmp_path / "a.h5"), 4),))
    assert refusal(tmp_path, data, index=index) == said(shown, "list.txt: 'a.h5' row 3, counted from 0")


def test_a_label_of_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(2, 2))
    (tmp_path / "list.txt").write_text("".join(f"a.png {label:.0f}\n" for label in _LABELS))
    data = (
        'layer { name: "d" type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "list.txt" root_folder: "{tmp_path}/" batch_size: 2 is_color: false }} }}'
    )
    assert refusal(tmp_path, data) == said("7", "list.txt: line 4: 'a.png'")


def test_a_label_of_arrays_is_named_by_its_row(tmp_path: Path) -> None:
    data = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }'
    data += 'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 } } }'
    arrays = {"data": np.zeros((4, 4), np.float32), "label": np.array(_LABELS, np.float32)}
    assert refusal(tmp_path, data, arrays) == said("7", "row 3 of 'label', counted from 0")
