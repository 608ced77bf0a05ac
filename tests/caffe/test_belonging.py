"""A prototxt that names the caffemodel which it was measured with."""

import os
from pathlib import Path

import pytest

from distcalib.caffe import read_net
from distcalib.caffe.belonging import (
    belonging_line,
    belonging_named,
    belonging_warnings,
    belonging_weights,
    file_sha256,
)
from distcalib.errors import WeightsError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A prototxt with the caffemodel that it belongs to, and another one."""
    net, new, given = tmp_path / "q.prototxt", tmp_path / "a\nb_new.caffemodel", tmp_path / "a.caffemodel"
    new.write_bytes(b"new")
    given.write_bytes(b"given")
    text = 'name: "net" layer { name: "a" type: "Silence" bottom: "a" }\n'
    net.write_text(belonging_line(new.name, file_sha256(new)) + text)
    return net, new, given


def test_the_weights_that_were_measured_are_right_whatever_they_are_called(files: tuple[Path, Path, Path]) -> None:
    net, new, _ = files
    assert belonging_warnings(net, new) == []
    assert belonging_warnings(net, new.rename(new.with_name("other"))) == []


def test_other_weights_are_warned_of(files: tuple[Path, Path, Path]) -> None:
    net, new, given = files
    [warning] = belonging_warnings(net, given)
    assert f"was made for a\\nb_new.caffemodel (sha256 {file_sha256(new)[:12]})" in warning
    assert warning.endswith("_new.caffemodel")


def test_a_caffemodel_that_is_elsewhere_is_named_without_a_path(files: tuple[Path, Path, Path]) -> None:
    net, new, given = files
    new.unlink()
    [warning] = belonging_warnings(net, given)
    assert warning.endswith("is another caffemodel; give -w with the path of a\\nb_new.caffemodel")


def test_the_line_is_a_comment_whatever_the_name_has_in_it(files: tuple[Path, Path, Path]) -> None:
    assert read_net(files[0]).name == "net"


@pytest.mark.parametrize("text", ["", 'name: "net"', "# For x", "\xff\xfe"], ids=["empty", "none", "cut", "other"])
def test_nothing_is_said_of_other_files(tmp_path: Path, text: str) -> None:
    net, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_text(text, encoding="latin-1")
    assert belonging_warnings(net, weights) == []
    assert belonging_warnings(tmp_path / "absent", weights) == []


def test_what_is_not_a_file_is_not_read(files: tuple[Path, Path, Path]) -> None:
    """Whoever opens it refuses it; a device would be hashed without an end, a pipe lose its first line."""
    net = files[0]
    assert belonging_warnings(net, Path("/dev/zero")) == []
    pipe = net.with_name("pipe")
    os.mkfifo(pipe)
    assert belonging_weights(pipe) is None
    assert belonging_warnings(pipe, files[1]) == []


def test_a_name_that_no_file_can_have_is_absent(files: tuple[Path, Path, Path]) -> None:
    files[0].write_text(belonging_line("x" * 300, "0" * 64))
    assert belonging_weights(files[0]) is None


def test_weights_that_are_not_there_are_told_by_whoever_reads_them(files: tuple[Path, Path, Path]) -> None:
    assert belonging_warnings(files[0], files[2].with_name("absent")) == []


def test_the_weights_that_a_prototxt_names_are_beside_it(tmp_path: Path) -> None:
    net, new = tmp_path / "q.prototxt", tmp_path / "a_new.caffemodel"
    net.write_text(belonging_line(new.name, "0" * 64))
    assert belonging_weights(net) is None, "not there"
    new.write_bytes(b"new")
    assert belonging_weights(net) == new
    net.write_text("name: 'net'")
    assert belonging_weights(net) is None
    assert belonging_weights(tmp_path / "absent") is None


def test_blobs_that_do_not_fit_are_those_of_another(files: tuple[Path, Path, Path]) -> None:
    net, new, given = files
    with pytest.raises(WeightsError, match=r"b_new\.caffemodel .* is another caffemodel"), belonging_named(net, given):
        raise WeightsError("layer 'a': does not fit")
    with pytest.raises(WeightsError, match="does not fit"), belonging_named(net, new):
        raise WeightsError("layer 'a': does not fit")
