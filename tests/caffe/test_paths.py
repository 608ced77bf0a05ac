"""Relative paths of a prototxt: the working directory first, then the prototxt's folder."""

import os
from pathlib import Path

import pytest

from distcalib.caffe import read_net, read_weights, resolve_path
from distcalib.caffe.paths import not_utf8, special
from distcalib.errors import DataError, FormatError


@pytest.mark.parametrize(
    ("here", "beside", "expected"),
    [
        pytest.param(True, False, "db", id="in_the_working_directory"),
        pytest.param(False, True, "model/db", id="beside_the_prototxt"),
        pytest.param(True, True, "db", id="in_both_as_caffe_reads_it"),
        pytest.param(False, False, "db", id="nowhere_as_written"),
    ],
)
def test_resolve_path_looks_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, beside: bool, expected: str
) -> None:
    (tmp_path / "model").mkdir()
    if here:
        (tmp_path / "db").touch()
    if beside:
        (tmp_path / "model" / "db").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_path("db", Path("model/net.prototxt")) == Path(expected)


def test_resolve_path_leaves_absolute_paths_alone(tmp_path: Path) -> None:
    assert resolve_path(str(tmp_path / "absent"), Path("net.prototxt")) == tmp_path / "absent"


def test_special_tells_what_is_no_file(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.touch()
    found = [special(path) for path in (pipe, "/dev/zero", file, tmp_path, tmp_path / "nothing", "a\0b")]
    assert found == ["a pipe", "a device", None, None, None, None]


def test_special_lets_pass_what_the_shell_has_opened(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        opened, named = Path(f"/dev/fd/{reading}"), tmp_path / "pipe:[1]"
        os.mkfifo(named)
        assert [special(opened), special(opened, streams=True)] == ["a pipe", None]
        assert [special(named, streams=True), special("/dev/zero", streams=True)] == ["a pipe", "a device"]
    finally:
        os.close(reading)
        os.close(writing)


def test_not_utf8_heeds_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    said = "its path is not text in UTF-8; rename the folder or the file"
    assert not_utf8(tmp_path / "é") is None
    assert not_utf8(folder / "a") == said
    monkeypatch.chdir(folder)
    assert not_utf8("a") == said
    (folder / "net.prototxt").write_text("layer { }")
    for read in (read_net, read_weights):
        with pytest.raises(FormatError, match=said):
            read("net.prototxt")


def test_resolve_path_refuses_a_null_byte(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the name of a file, .* contains a null byte; correct it"):
        resolve_path("images\0.txt", tmp_path / "net.prototxt")
