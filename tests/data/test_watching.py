"""Files that change under a run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.data import watching
from distcalib.data.watching import Watched, watch
from distcalib.errors import DataError
from tests.data.databases import numbered, write_datums


def layer(folder: Path) -> caffe_pb2.LayerParameter:
    text = f"""name: "data" type: "Data" transform_param {{ mean_file: "{folder / "mean"}" }}
      data_param {{ source: "{folder / "db"}" batch_size: 1 backend: LMDB }}"""
    return text_format.Parse(text, caffe_pb2.LayerParameter())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_datums(tmp_path / "db", numbered(3))
    (tmp_path / "mean").write_bytes(b"mean")
    (tmp_path / "w").write_bytes(bytes(100_000))
    return tmp_path


def watched(folder: Path) -> Watched:
    made = watch([layer(folder)], folder / "net.prototxt", {}, {"weights": folder / "w"})
    return pickle.loads(pickle.dumps(made))  # type: ignore[no-any-return]


def rename_over(path: Path) -> None:
    """Another file of the same size and time."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


def write_last_byte(path: Path) -> None:
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


CHANGES: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "renamed_over": (rename_over, "was replaced since the run began", True),
    "longer": (append, "changed from .* bytes since", True),
    "touched": (lambda path: os.utime(path, ns=(0, 0)), "was written to since", True),
    "gone": (lambda path: path.unlink(), r"went away \(No such file or directory\) since", True),
    "last_byte": (write_last_byte, "got other bytes since", False),
}
"""name: (what is done, what is said, whether a glance tells)"""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("file", "reader"), [("db/data.mdb", "data"), ("mean", "data"), ("w", "weights")])
def test_check_tells_what_changed(folder: Path, file: str, reader: str, change: str) -> None:
    made = watched(folder)
    made.check("data")
    made.check_all(ends=True)
    do, said, at_a_glance = CHANGES[change]
    do(folder / file)
    with pytest.raises(DataError, match=rf"{file} {said}"):
        made.check(reader)
    with pytest.raises(DataError, match=rf"{file} {said}"):
        made.check_all(ends=True)
    if at_a_glance:
        with pytest.raises(DataError, match=rf"{file} {said}"):
            made.check_all()
    made.check("another layer")


def test_a_copy_on_another_machine_is_the_same_file(folder: Path) -> None:
    made = watched(folder)
    made.machine = "another"
    rename_over(folder / "db" / "data.mdb")
    os.utime(folder / "mean", ns=(0, 0))
    made.check("data")
    write_last_byte(folder / "mean")
    with pytest.raises(DataError, match="mean holds other bytes than for the driver; every machine must see the same"):
        made.check("data")
    append(folder / "mean")
    with pytest.raises(DataError, match="mean has 5 bytes, and 4 for the driver; every machine must see the same data"):
        made.check("data")
    (folder / "mean").unlink()
    made.check("data")  # whoever opens it says so


def test_what_only_readers_write_is_not_looked_at(folder: Path) -> None:
    made = watched(folder)
    (folder / "db" / "lock.mdb").write_bytes(b"x")
    made.check_all(ends=True)


def test_a_file_that_was_not_there_may_stay_away_and_not_appear(folder: Path) -> None:
    (folder / "mean").unlink()
    made = watched(folder)
    made.check("data")
    (folder / "mean").write_bytes(b"m")
    with pytest.raises(DataError, match="mean appeared since the run began"):
        made.check("data")


def test_many_files_are_looked_at_once_in_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MANY_FILES", 1)
    made = watched(folder)
    made.check_all()
    append(folder / "mean")
    made.check_all()
    with pytest.raises(DataError, match="mean changed"):
        made.check_all(ends=True)
    monkeypatch.setattr(watching, "BETWEEN_SECONDS", 0.0)
    with pytest.raises(DataError, match="mean changed"):
        made.check_all()
