"""The wire format against protobuf's own encoding."""

import pytest

from distcalib.caffe import caffe_pb2
from distcalib.caffe.wire import WireError, header, read_varint, varint, walk


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32 - 1, 2**32, 2**63])
def test_varint_reads_back(value: int) -> None:
    encoded = varint(value)
    assert read_varint(memoryview(encoded), 0, len(encoded)) == (value, len(encoded))


def test_walk_finds_every_field_of_a_message() -> None:
    layer = caffe_pb2.LayerParameter(name="conv", type="Convolution", phase=caffe_pb2.TEST, loss_weight=[0.5, 2.0, 1.0])
    layer.convolution_param.num_output = 300
    encoded = layer.SerializeToString()
    fields = list(walk(memoryview(encoded), 0, len(encoded)))
    assert [field.number for field in fields] == [1, 2, 5, 10, 106]  # the three loss weights are one run
    assert encoded[fields[0].start : fields[0].end] == b"conv"
    assert fields[2].end - fields[2].start == 3 * 5 - 1
    assert [field.end for field in fields[:-1]] == [field.at for field in fields[1:]]


def test_walk_ends_a_run_at_another_field() -> None:
    encoded = b"\x2d\0\0\0\0\x2d\1\0\0\0\x08\x05\x2d\2\0\0\0"
    assert [(f.number, f.start, f.end) for f in walk(memoryview(encoded), 0, len(encoded))] == [
        (5, 1, 10),
        (1, 11, 12),
        (5, 13, 17),
    ]


@pytest.mark.parametrize(
    ("encoded", "at", "short_by"),
    [
        pytest.param(b"\x0a\x05abc", 0, 2, id="text_cut_off"),
        pytest.param(b"\x08\x01\x2d\0\0", 2, 2, id="float_cut_off"),
        pytest.param(b"\x08\xff", 1, 1, id="varint_cut_off"),
        pytest.param(b"\x08" + b"\xff" * 11, 1, 0, id="varint_too_long"),
        pytest.param(b"\x02\x01a", 0, 0, id="field_number_0"),
        pytest.param(b"\x0b", 0, 0, id="group"),
        pytest.param(b"\x0f", 0, 0, id="no_such_wire_type"),
    ],
)
def test_walk_says_where_a_message_breaks(encoded: bytes, at: int, short_by: int) -> None:
    with pytest.raises(WireError) as caught:
        list(walk(memoryview(encoded), 0, len(encoded)))
    assert (caught.value.at, caught.value.short_by) == (at, short_by)


def test_header_is_tag_and_length() -> None:
    assert header(100, 300) == b"\xa2\x06\xac\x02"
