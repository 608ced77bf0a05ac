"""Blobs without a copy, compared with protobuf's own parsing, and files that are broken."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe import caffe_pb2, read_net, read_weights
from distcalib.caffe.wire import header
from distcalib.errors import FormatError


def blob(data: Sequence[float], shape: Sequence[int]) -> caffe_pb2.BlobProto:
    return caffe_pb2.BlobProto(data=data, shape=caffe_pb2.BlobShape(dim=shape))


def net(*layers: caffe_pb2.LayerParameter) -> bytes:
    return caffe_pb2.NetParameter(name="net", layer=layers).SerializeToString()


def write(folder: Path, content: bytes) -> Path:
    path = folder / "w.caffemodel"
    path.write_bytes(content)
    return path


def layer_of(blob_message: bytes) -> bytes:
    """A net of one layer "x" with one blob whose message is encoded already."""
    layer = caffe_pb2.LayerParameter(name="x").SerializeToString() + header(7, len(blob_message)) + blob_message
    return header(100, len(layer)) + layer


def unpacked(form: str, values: Sequence[float]) -> bytes:
    """`values` as one field each: data (field 5, float) or double_data (field 8)."""
    tag = {"<f": b"\x2d", "<d": b"\x41"}[form]
    return b"".join(tag + struct.pack(form, value) for value in values)


def by_protobuf(path: Path) -> dict[str, list[npt.NDArray[np.float32]]]:
    parsed = caffe_pb2.NetParameter.FromString(path.read_bytes())
    return {
        layer.name: [np.array(b.data, np.float32).reshape(tuple(b.shape.dim)) for b in layer.blobs]
        for layer in parsed.layer
        if layer.blobs
    }


def test_read_weights_equals_protobuf_on_all_golden_files(golden: Path) -> None:
    paths = sorted(golden.rglob("*.caffemodel"))
    assert len(paths) >= 44
    for path in paths:
        weights, expected = read_weights(path), by_protobuf(path)
        assert list(weights) == list(expected), path
        for name, blobs in expected.items():
            for ours, theirs in zip(weights[name], blobs, strict=True):
                np.testing.assert_array_equal(ours, theirs, strict=True)


def test_read_weights_gives_read_only_views_into_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, net(caffe_pb2.LayerParameter(name="x", blobs=[blob([1, 2, 3, 4, 5, 6], [2, 3])])))
    (array,) = read_weights(path)["x"]
    assert array.dtype == np.float32
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert array.tolist() == [[1, 2, 3], [4, 5, 6]]


PACKED = header(5, 8) + struct.pack("<2f", 1, 2)
SHAPE_4 = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[4])).SerializeToString()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(unpacked("<f", [1, 2, 3, 4]) + SHAPE_4, [1, 2, 3, 4], id="unpacked"),
        pytest.param(PACKED + SHAPE_4 + unpacked("<f", [3, 0]), [1, 2, 3, 0], id="mixed"),
        pytest.param(PACKED + PACKED + SHAPE_4, [1, 2, 1, 2], id="packed_in_pieces"),
        pytest.param(header(8, 32) + struct.pack("<4d", 1, 2, 3, 0.1) + SHAPE_4, [1, 2, 3, 0.1], id="doubles"),
        pytest.param(unpacked("<d", [0, 1, 2, 3]) + SHAPE_4, [0, 1, 2, 3], id="doubles_unpacked"),
        pytest.param(PACKED + header(8, 32) + struct.pack("<4d", 5, 6, 7, 8) + SHAPE_4, [5, 6, 7, 8], id="doubles_win"),
        pytest.param(
            PACKED + header(6, 4) + b"\0\0\0\0" + PACKED + header(9, 8) + b"\0" * 8 + SHAPE_4,
            [1, 2, 1, 2],
            id="no_diff",
        ),
        pytest.param(PACKED + b"\x08\1\x10\1\x18\1\x20\2", [[[[1, 2]]]], id="legacy_shape"),
        pytest.param(PACKED + SHAPE_4 + b"\x08\1\x10\2\x18\1\x20\1", [[[[1]], [[2]]]], id="legacy_shape_wins"),
        pytest.param(
            # two optional sub-messages of one number are one: dim 1 of the first, dim 2 of the second
            PACKED + b"\x3a\x03\x0a\x01\x01" + b"\x3a\x03\x0a\x01\x02",
            [[1, 2]],
            id="merged_shape",
        ),
        pytest.param(PACKED[:1] + b"\4" + PACKED[2:6] + b"\x3a\0", 1.0, id="scalar"),
        pytest.param(b"\x3a\x03\x0a\x01\0", [], id="no_elements"),
    ],
)
def test_read_weights_reads_every_form_of_a_blob(tmp_path: Path, message: bytes, expected: object) -> None:
    (array,) = read_weights(write(tmp_path, layer_of(message)))["x"]
    np.testing.assert_array_equal(array, np.array(expected, np.float32), strict=True)
    assert not array.flags.writeable


def test_read_weights_reads_v1_and_v0(tmp_path: Path) -> None:
    old = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    content = caffe_pb2.NetParameter(
        layers=[
            caffe_pb2.V1LayerParameter(name="v1", blobs=[old, old]),
            caffe_pb2.V1LayerParameter(layer=caffe_pb2.V0LayerParameter(name="v0", type="conv", blobs=[old])),
        ]
    ).SerializeToString()
    weights = read_weights(write(tmp_path, content))
    assert {name: [b.shape for b in blobs] for name, blobs in weights.items()} == {
        "v1": [(1, 1, 1, 2)] * 2,
        "v0": [(1, 1, 1, 2)],
    }
    assert [layer.name for layer in read_net(tmp_path / "w.caffemodel").layer] == ["v1", "v0"]


def test_read_weights_takes_the_last_of_a_name_that_has_blobs(tmp_path: Path) -> None:
    layers = [caffe_pb2.LayerParameter(name="x", blobs=[blob([i], [1])] * (i < 2)) for i in range(3)]
    weights = read_weights(write(tmp_path, net(*layers, caffe_pb2.LayerParameter(name="relu"))))
    assert {name: [b.tolist() for b in blobs] for name, blobs in weights.items()} == {"x": [[1.0]]}


def test_read_weights_skips_fields_that_it_does_not_know(tmp_path: Path) -> None:
    content = layer_of(PACKED + b"\x3a\x03\x0a\x01\x02") + header(5000, 3) + b"abc" + b"\x98\x06\x01"
    assert read_weights(write(tmp_path, content))["x"][0].tolist() == [1, 2]


@pytest.mark.parametrize("cut", [1, 10, 30, 60])
def test_read_weights_says_where_a_file_is_cut_off(tmp_path: Path, cut: int) -> None:
    first = caffe_pb2.LayerParameter(name="first", type="Convolution", blobs=[blob([1] * 10, [10])])
    last = caffe_pb2.LayerParameter(name="last", type="Convolution", blobs=[blob([1] * 10, [10])])
    whole = net(first, last)
    at = len(net(first))
    with pytest.raises(FormatError) as caught:
        read_weights(write(tmp_path, whole[:-cut]))
    assert str(caught.value) == (
        f"{tmp_path / 'w.caffemodel'}: is cut off at byte {len(whole) - cut} in layer 'last'; the message that begins "
        f"at byte {at} needs {cut} more; copy or download it again"
    )


def test_read_weights_finds_every_cut(tmp_path: Path) -> None:
    layer = caffe_pb2.LayerParameter(name="x", blobs=[blob([1] * 10, [10])])
    whole, boundaries = net(layer, layer), {len(net()), len(net(layer))}
    for n_bytes in set(range(len(whole))) - boundaries:
        with pytest.raises(FormatError, match=r"w.caffemodel: is (cut off|empty|text)"):
            read_weights(write(tmp_path, whole[:n_bytes]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty; copy or download it again", id="empty"),
        pytest.param(b'layer { name: "x" }', "is text, not weights; give the binary .caffemodel", id="prototxt"),
        pytest.param(b"\x89HDF\r\n\x1a\n\0\0", r"is a caffemodel in HDF5.*net.save\('NAME.caffemodel'\)", id="hdf5"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull", id="lfs"),
        pytest.param(b"\x08\x90\x4e\x12\x01a", "is a solver state or a mean file, not weights", id="solver_state"),
        pytest.param(b"\x0a\x03net\x12\0"[:5], "has no layers; give the .caffemodel", id="no_layers"),
        pytest.param(b"\x7fELF\x02\x01\x01\0", "is not a caffemodel", id="garbage"),
        pytest.param(b"PK\x03\x04\x14\0\0\0", "is not a caffemodel", id="zip"),
        pytest.param(
            net(caffe_pb2.LayerParameter(name="x")) + b"\x07", "is damaged at byte 11 of 12; copy", id="behind"
        ),
        pytest.param(layer_of(b"\x2a\x50\0\0"), "is damaged at byte 8, in layer 'x'; copy or", id="in_a_blob"),
        pytest.param(layer_of(b"\x2a\x03\0\0\0"), "is damaged at byte 8, in layer 'x'", id="three_bytes_of_floats"),
        pytest.param(layer_of(b"\x28\x03"), "is damaged at byte 8, in layer 'x'", id="floats_as_varints"),
        pytest.param(layer_of(b"\x3a\x02\x0a\x50"), "is damaged at byte 8, in layer 'x'", id="shape"),
        pytest.param(b"\xa2\x06\x03\x0a\x50x", "is damaged at byte 3, in layer ''", id="in_a_layer"),
    ],
)
def test_read_weights_refuses_in_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=f"w.caffemodel: .*{message}"):
        read_weights(write(tmp_path, content))


def test_read_weights_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="absent: no such file; check the path"):
        read_weights(tmp_path / "absent")
    with pytest.raises(FormatError, match="is a folder; name the file inside it"):
        read_weights(tmp_path)


def test_read_weights_names_all_blobs_that_do_not_fill_their_shape(tmp_path: Path) -> None:
    content = net(
        caffe_pb2.LayerParameter(name="a", blobs=[blob([1, 2], [2]), blob([1, 2], [3])]),
        caffe_pb2.LayerParameter(name="b", blobs=[blob([], [2, 2])]),
        caffe_pb2.LayerParameter(name="c", blobs=[blob([1], [-1, -1])]),
    )
    with pytest.raises(FormatError) as caught:
        read_weights(write(tmp_path, content))
    assert str(caught.value) == (
        f"{tmp_path / 'w.caffemodel'}: layer 'a', blob 1: holds 2 values where its shape (3,) needs 3; "
        "layer 'b', blob 0: holds 0 values where its shape (2, 2) needs 4; "
        "layer 'c', blob 0: holds 1 values where its shape (-1, -1) needs 1; "
        "save the weights again from the framework that made them"
    )
