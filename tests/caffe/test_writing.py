"""Text that reads back the same, and files that are whole or not there."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, net_text, read_net, write_atomically
from distcalib.errors import OutputError


def test_net_text_keeps_every_float32_of_a_scale(tmp_path: Path) -> None:
    scales = np.random.default_rng(0).lognormal(0, 20, 2000).astype(np.float32)
    net = caffe_pb2.NetParameter(name="naïve")
    layer = net.layer.add(name="c", type="Convolution")
    layer.quantization_param.scale_params.extend(scales.tolist())
    (tmp_path / "net.prototxt").write_text(net_text(net), encoding="utf-8")
    again = read_net(tmp_path / "net.prototxt")
    assert again == net
    assert np.array_equal(np.array(again.layer[0].quantization_param.scale_params, np.float32), scales)


def test_net_text_is_prototxt_in_field_order() -> None:
    net = caffe_pb2.NetParameter()
    net.layer.add(top=["y"], bottom=["x"], type="ReLU", name="r").relu_param.negative_slope = 0.1
    lines = [
        '  name: "r"',
        '  type: "ReLU"',
        '  bottom: "x"',
        '  top: "y"',
        "  relu_param {",
        "    negative_slope: 0.1",
    ]
    assert net_text(net).splitlines() == ["layer {", *lines, "  }", "}"]
    assert net_text(net).endswith("}\n")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param("naïve\n", "naïve\n".encode(), id="text"),
        pytest.param(b"\0\1", b"\0\1", id="bytes"),
        pytest.param([b"a", memoryview(b"bc")], b"abc", id="pieces"),
    ],
)
def test_write_atomically_writes_and_replaces(tmp_path: Path, data: str | bytes | list[bytes], expected: bytes) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        write_atomically(path, data)
        assert path.read_bytes() == expected
    assert os.listdir(tmp_path) == ["out"]


def test_write_atomically_keeps_permissions_and_symbolic_links(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_write_atomically_gives_new_files_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "new", "")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_write_atomically_leaves_the_old_file_when_the_data_fail(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("no more")

    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(ValueError, match="no more"):
        write_atomically(path, pieces())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("absent/out", "No such file or directory.*make its folder first", id="no_folder"),
        pytest.param("file/out", "Not a directory", id="file_as_folder"),
        pytest.param("folder", "Is a directory.*name a file", id="folder"),
    ],
)
def test_write_atomically_refuses_in_a_sentence(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"{name}: cannot be written .*{message}"):
        write_atomically(tmp_path / name, "data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_write_atomically_leaves_the_old_file_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "out"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out: cannot be written \(No space left on device\); free some space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]
