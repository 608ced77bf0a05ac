import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data import data_identity, open_source
from distcalib.data.identity import files_in
from distcalib.errors import DataError
from tests.data.databases import raw_datum, write_datums


def _layer(text: str) -> caffe_pb2.LayerParameter:
    return text_format.Parse(f'name: "data" top: "data" top: "label" {text}', caffe_pb2.LayerParameter())


def _identity(layer: caffe_pb2.LayerParameter, folder: Path) -> object:
    source = open_source(layer, folder / "net.prototxt")
    index = {"data": source.index}
    source.close()
    return data_identity([layer], folder / "net.prototxt", index)


def _touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def _rewrite(path: Path) -> None:
    """Other bytes at the end, the time as it was."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "time of a database": ("db/data.mdb", _touch),
    "end of a database": ("db/data.mdb", _rewrite),
    "time of an image": ("images/b.ppm", _touch),
    "time of a list": ("list.txt", _touch),
    "mean file": ("mean.binaryproto", _rewrite),
}
IGNORED = {
    "lock of a reader": ("db/lock.mdb", lambda path: path.write_bytes(b"lock")),
    "a file beside": ("other.txt", lambda path: path.write_bytes(b"other")),
}


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[caffe_pb2.LayerParameter]:
    """An LMDB with a mean, and two images, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_datums(tmp_path / "db", [raw_datum(np.full((1, 2, 2), i, np.uint8), i) for i in range(3)])
    mean = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=2, data=[1.0] * 4)
    Path("mean.binaryproto").write_bytes(mean.SerializeToString())
    Path("images").mkdir()
    for name in "ab":
        Path(f"images/{name}.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    Path("list.txt").write_text("a.ppm 0\nb.ppm 1\n")
    return [
        _layer(
            'type: "Data" data_param { source: "db" batch_size: 1 backend: LMDB } '
            'transform_param { mean_file: "mean.binaryproto" }'
        ),
        _layer('type: "ImageData" image_data_param { source: "list.txt" root_folder: "images/" batch_size: 1 }'),
    ]


@pytest.mark.parametrize(("file", "change"), CHANGES.values(), ids=list(CHANGES))
def test_identity_is_another_when_data_change(
    layers: list[caffe_pb2.LayerParameter], tmp_path: Path, file: str, change: Callable[[Path], None]
) -> None:
    before = [_identity(layer, tmp_path) for layer in layers]
    assert [_identity(layer, tmp_path) for layer in layers] == before
    change(tmp_path / file)
    assert [_identity(layer, tmp_path) for layer in layers] != before


@pytest.mark.parametrize(("file", "change"), IGNORED.values(), ids=list(IGNORED))
def test_identity_is_the_same_when_nothing_that_is_read_changes(
    layers: list[caffe_pb2.LayerParameter], tmp_path: Path, file: str, change: Callable[[Path], object]
) -> None:
    before = [_identity(layer, tmp_path) for layer in layers]
    change(tmp_path / file)
    assert [_identity(layer, tmp_path) for layer in layers] == before


def test_identity_is_not_sought_in_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    layer = _layer('type: "Data" data_param { source: "pipe" batch_size: 1 backend: LMDB }')
    [(path, *rest)] = data_identity([layer], tmp_path / "net.prototxt", {})
    assert (Path(path).name, rest) == ("pipe", [-1, -1, b""])
    with pytest.raises(DataError, match="pipe: is a pipe, not a file; name a file or a database"):
        open_source(layer, tmp_path / "net.prototxt")


def test_files_in_a_folder_that_may_not_be_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert list(files_in(tmp_path)) == [tmp_path]
