"""The table of fields as .proto text, and the committed module that came of it."""

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distcalib.caffe import caffe_pb2
from scripts.tools.make_proto import PROTO, ROOT, literal, proto_text, reachable, read_forks, with_forks


@pytest.fixture
def fields(golden: Path) -> Any:
    return with_forks(json.loads((golden / "caffe_fields.json").read_text()), read_forks())


def test_proto_text_is_what_is_committed(fields: Any) -> None:
    assert proto_text(fields) == (ROOT / PROTO).read_text(encoding="utf-8")


def test_caffe_pb2_has_every_field_of_the_table(fields: Any) -> None:
    messages = caffe_pb2.DESCRIPTOR.message_types_by_name
    assert set(messages) == reachable(
        fields["messages"], ["NetParameter", "BlobProtoVector", "AnnotatedDatum", "LabelMap"]
    )
    for name, message in messages.items():
        found = {field.name: field for field in message.fields}
        assert set(found) == {entry[1] for entry in fields["messages"][name]["fields"]}
        for number, field_name, _, kind, *default in fields["messages"][name]["fields"]:
            field = found[field_name]
            assert field.number == number, f"{name}.{field_name}"
            if not default or default == ["packed"]:
                continue
            value = getattr(getattr(caffe_pb2, name)(), field_name)
            if kind == "float":
                assert struct.pack("<f", value) == struct.pack("<f", default[0]), f"{name}.{field_name}"
            elif kind.startswith("enum "):
                assert field.enum_type is not None
                assert field.enum_type.values_by_number[value].name == default[0], f"{name}.{field_name}"
            else:
                assert value == default[0], f"{name}.{field_name}"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("float", 0.20000000298023224, "0.2"),
        ("float", 9.999999717180685e-10, "0.000000001"),
        ("float", -1.0, "-1"),
        ("bool", False, "false"),
        ("string", 'a"b', '"a\\"b"'),
        ("enum Phase", "TEST", "TEST"),
        ("int32", -1, "-1"),
    ],
    ids=str,
)
def test_literal_is_as_short_as_can_be(kind: str, value: object, expected: str) -> None:
    assert literal(kind, value) == expected


def test_blob_data_are_packed_and_datum_floats_are_not() -> None:
    assert caffe_pb2.BlobProto(data=[1, 2]).SerializeToString()[:2] == b"\x2a\x08"
    assert caffe_pb2.Datum(float_data=[1, 2]).SerializeToString()[:1] == b"\x35"


def test_caffe_pb2_imports_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", "import distcalib.caffe.caffe_pb2"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_messages_are_pickled_by_the_name_of_their_module() -> None:
    assert caffe_pb2.NetParameter.__module__ == "distcalib.caffe.caffe_pb2"
