"""Nets as text and binary, and files that are neither."""

from pathlib import Path

import pytest

from distcalib.caffe import caffe_pb2, net_text, read_label_map, read_net, reading, test_net
from distcalib.errors import FormatError


def write(folder: Path, content: str | bytes, name: str = "net.prototxt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def golden_nets(golden: Path) -> list[Path]:
    """Those that Intel Caffe was asked about; cases/ holds inputs that went wrong.

    ssd_bgneg.prototxt is none that it can read: the background_label_id of a DetectionEvaluate has no sign.
    """
    others = ("labelmap.prototxt", "ssd_bgneg.prototxt")
    paths = (path for path in golden.rglob("*.prototxt") if path.name not in others)
    return sorted(path for path in paths if "cases" not in path.relative_to(golden).parts)


def test_read_net_reads_all_golden_nets_and_writes_them_back(golden: Path, tmp_path: Path) -> None:
    paths = golden_nets(golden)
    assert len(paths) >= 43
    for path in paths:
        net = read_net(path)
        assert read_net(write(tmp_path, net_text(net))) == net, path
        assert read_net(write(tmp_path, net.SerializeToString())) == net, path
        assert test_net(net).layer, path


def test_read_net_reads_scales_of_golden_nets(golden: Path) -> None:
    quantized = [layer.quantization_param for path in golden_nets(golden) for layer in read_net(path).layer]
    assert sum(bool(param.scale_params) for param in quantized) > 100


def test_read_net_keeps_all_phases(tmp_path: Path) -> None:
    text = 'layer { name: "a" include { phase: TRAIN } } layer { name: "a" include { phase: TEST } }'
    assert len(read_net(write(tmp_path, text)).layer) == 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('\ufefflayer { name: "naïve" }', id="byte_order_mark"),
        pytest.param('# ©\r\nlayer {\r\n\tname: "naïve" }\r\n\f', id="windows"),
        pytest.param(caffe_pb2.NetParameter(layer=[{"name": "naïve"}]).SerializeToString(), id="binary"),
    ],
)
def test_read_net_sniffs_the_content_not_the_name(tmp_path: Path, content: str | bytes) -> None:
    for name in ("net.prototxt", "net.binaryproto"):
        assert read_net(write(tmp_path, content, name)).layer[0].name == "naïve"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty; give the prototxt", id="empty"),
        pytest.param(b" \n", "is empty; give the prototxt", id="blank"),
        pytest.param(b'name: "no layers"', "has no layers; give the prototxt", id="no_layers"),
        pytest.param(b"layer {\n name: '\xe9'\n}", r"line 2 is not UTF-8 \(byte 0xe9\); save the file", id="latin_1"),
        pytest.param('layer { name: "a" }'.encode("utf-16"), "is text in UTF-16; save the file as UTF-8", id="utf_16"),
        pytest.param(b"\x89HDF\r\n\x1a\n\0\0", "is an HDF5 file; give the prototxt", id="hdf5"),
        pytest.param(b"\x7fELF\x02\x01\x01\0", "is neither prototxt text nor a whole binary net", id="garbage"),
        pytest.param(
            caffe_pb2.NetParameter(layer=[{"name": "abc"}]).SerializeToString()[:-1],
            "is neither prototxt text nor a whole binary net; copy it again",
            id="truncated_binary",
        ),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull", id="lfs"),
        pytest.param(b"layer {\n nam: 'a' }", "line 2: unknown field 'nam' in LayerParameter; 'name' is", id="field"),
        pytest.param(
            b"<!DOCTYPE html>\n<html></html>", "is a web page or XML, not a prototxt; download", id="web_page"
        ),
        pytest.param(
            b"layer { psroi_pooling_param { output_dim: 1 group_size: 2 } }",
            "required fields are missing: .*spatial_scale; add",
            id="required",
        ),
    ],
)
def test_read_net_refuses_in_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=f"net.prototxt: .*{message}"):
        read_net(write(tmp_path, content))


def test_read_net_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="absent: no such file; check the path"):
        read_net(tmp_path / "absent")
    with pytest.raises(FormatError, match="is a folder; name the file inside it"):
        read_net(tmp_path)


def test_read_net_reports_all_mistakes_of_a_text_at_once(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_net(write(tmp_path, "layer { nam: 'a' }\nlayer { tops: 'b' }\n"))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'net.prototxt'}: 2 things cannot be read:",
        "  line 1: unknown field 'nam' in LayerParameter; 'name' is meant?",
        "  line 2: unknown field 'tops' in LayerParameter; 'top' is meant?",
    ]


def test_read_net_shows_no_more_mistakes_than_a_screen(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_net(write(tmp_path, "x: 1\n" * 100))
    assert len(str(caught.value).splitlines()) == reading.MAX_SHOWN + 2
    assert str(caught.value).endswith("and 60 more")


def test_read_net_reports_what_the_second_look_does_not_see(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"net.prototxt: line 2: .*; correct it"):
        read_net(write(tmp_path, "layer {\n name: '\\x' }"))


def test_read_net_reports_all_unknown_parts_of_a_binary_net(tmp_path: Path) -> None:
    pooling = caffe_pb2.PoolingParameter()
    pooling.MergeFromString(b"\x08\x09")  # pool: 9
    layer = caffe_pb2.LayerParameter(name="p")
    layer.pooling_param.MergeFromString(pooling.SerializeToString())
    layer.MergeFromString(b"\xba\x3e\x01x")  # field 999
    net = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="first"), layer])
    net.MergeFromString(b"\x98\x06\x01")  # field 99
    with pytest.raises(FormatError) as caught:
        read_net(write(tmp_path, net.SerializeToString()))
    lines = str(caught.value).splitlines()
    assert lines[1:] == [
        "  the net: has the unknown field 99; give the net as a prototxt without it",
        "  layer 'p': has the unknown field 999; give the net as a prototxt without it",
        "  layer 'p': has an unknown value of pooling_param.pool; give the net as a prototxt without it",
    ]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ('item { name: "n01" label: 1 display_name: "a" } item { name: "n02" label: 2 }', {1: "a", 2: "n02"}),
        ("", {}),
        ("no label map", {}),
        ("\udcff", {}),
    ],
    ids=["names", "empty", "other", "bytes"],
)
def test_read_label_map_gives_names_where_there_are_some(tmp_path: Path, content: str, names: dict[int, str]) -> None:
    path = tmp_path / "labelmap.prototxt"
    path.write_text(content, "utf-8", "surrogateescape")
    assert read_label_map(path) == names
    assert read_label_map(tmp_path / "none") == {}
