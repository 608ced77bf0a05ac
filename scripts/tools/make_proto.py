"""Make distcalib/caffe/caffe.proto from the table of fields, and caffe_pb2 from caffe.proto.

    python scripts/tools/make_proto.py                       # caffe.proto -> caffe_pb2.py, caffe_pb2.pyi
    python scripts/tools/make_proto.py --fields FIELDS.json  # the table -> caffe.proto first

To Intel Caffe's table come the fields of other forks, from fork_fields.json beside this script.  Forks use the same
numbers for different fields, so theirs are numbered from 10001 on here: they are read from text alone, and the weights
of a fork by layer name and shape.

The second step needs grpcio-tools 1.62 (protoc 4.25) and refuses any other: Python code made by a newer protoc
checks the version of the protobuf runtime that imports it and warns or fails; code of 4.25 does not check, and
tests/caffe/test_make_proto.py shows that this file imports without a warning. caffe.proto is committed, so the
table itself, which is not part of the repository, is needed only to change the format.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROTO = Path("distcalib/caffe/caffe.proto")
FORKS = Path(__file__).parent / "fork_fields.json"
#: What a net, its weights and its data are made of; solvers are not read.
ROOTS = ("NetParameter", "BlobProto", "BlobProtoVector", "Datum", "AnnotatedDatum", "LabelMap")
PROTOC = "1.62"

HEADER = """\
// The messages of Intel Caffe 1.1.6 that a net, its weights and its data are made of: names, numbers, labels,
// types and defaults of the wire format, nothing else. Fields from 10001 on, and the messages that only they name, are
// of other forks, read from text alone. Made by scripts/tools/make_proto.py; do not edit by hand.
syntax = "proto2";

package caffe;
"""


def with_forks(fields: Mapping[str, Any], forks: Mapping[str, Any]) -> dict[str, Any]:
    """Intel Caffe's table with the fields, values and messages of `forks` added; ValueError if a field is in both."""
    messages = {name: dict(body) for name, body in fields["messages"].items()}
    for name, extra in forks["messages"].items():
        body = messages.setdefault(name, {"fields": []})
        doubled = {field[1] for field in body["fields"]} & {field[1] for field in extra["fields"]}
        if doubled:
            raise ValueError(f"{name}: {', '.join(sorted(doubled))} are in both tables")
        body["fields"] = [*body["fields"], *extra["fields"]]
        enums = dict(body.get("enums", {}))
        for enum, values in extra.get("enums", {}).items():
            enums[enum] = {**enums.get(enum, {}), **values}
        if enums:
            body["enums"] = enums
    return {**fields, "messages": messages}


def reachable(messages: Mapping[str, Any], roots: Sequence[str]) -> set[str]:
    """Names of the messages that `roots` hold, directly or through others, enum owners included."""
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for _, _, _, kind, *_ in messages[name]["fields"]:
            owner = kind.removeprefix("enum ").split(".")[0]
            if owner in messages:
                pending.append(owner)
    return found


def literal(kind: str, value: object) -> str:
    """A default as protoc reads it; a float in the fewest digits that give the same float32."""
    if kind == "bool":
        return "true" if value else "false"
    if kind == "string":
        return json.dumps(value)
    if kind == "float":
        return np.format_float_positional(np.float32(float(str(value))), unique=True, trim="-")
    return str(value)


def enum_lines(name: str, values: Mapping[str, int], indent: str) -> Iterator[str]:
    yield f"{indent}enum {name} {{"
    yield from (f"{indent}  {key} = {number};" for key, number in values.items())
    yield f"{indent}}}"


def field_line(number: int, name: str, label: str, kind: str, *rest: object) -> str:
    """One field of the table: [number, name, label, type, "packed" or the default, if any]."""
    options = ""
    if rest and label == "repeated" and rest[0] == "packed":
        options = " [packed = true]"
    elif rest:
        options = f" [default = {literal(kind, rest[0])}]"
    return f"  {label} {kind.removeprefix('enum ')} {name} = {number}{options};"


def proto_text(fields: Mapping[str, Any]) -> str:
    """The .proto of all messages reachable from ROOTS, in the order of the table."""
    lines = [HEADER]
    for name, values in fields["enums"].items():
        lines += [*enum_lines(name, values, ""), ""]
    wanted = reachable(fields["messages"], ROOTS)
    for message, body in fields["messages"].items():
        if message not in wanted:
            continue
        lines.append(f"message {message} {{")
        for name, values in body.get("enums", {}).items():
            lines += enum_lines(name, values, "  ")
        lines += [field_line(*field) for field in body["fields"]]
        lines += ["}", ""]
    return "\n".join(lines).rstrip() + "\n"


def read_forks() -> Any:
    """The table of fields that only forks have."""
    return json.loads(FORKS.read_text(encoding="utf-8"))


def own_pool(code: str) -> str:
    """The generated code with a pool of its own: in protobuf's common one a process can have the messages of one Caffe
    alone ("duplicate symbol 'caffe.BlobShape'"), and a program that imports pycaffe as well has two.
    """
    common = "_descriptor_pool.Default()"
    if code.count(common) != 1:
        sys.exit(f"make_proto: protoc has written {common} {code.count(common)} times, not once; see own_pool")
    return code.replace(common, "_descriptor_pool.DescriptorPool()")


def compile_proto() -> None:
    """Run protoc; the paths are relative to ROOT, so that the module is named distcalib.caffe.caffe_pb2."""
    try:
        version = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        version = "absent"
    if not version.startswith(PROTOC + "."):
        sys.exit(f"make_proto: grpcio-tools is {version}; install 'grpcio-tools=={PROTOC}.*' 'setuptools<80'")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--pyi_out=.", str(PROTO)]
    subprocess.run(command, cwd=ROOT, check=True)
    made = (ROOT / PROTO).with_name("caffe_pb2.py")
    made.write_text(own_pool(made.read_text()))
    stub = (ROOT / PROTO).with_name("caffe_pb2.pyi")
    # protoc leaves the mapping that stands for a message bare, which mypy --strict does not accept
    stub.write_text(
        stub.read_text()
        .replace("_Mapping]", "_Mapping[str, _Any]]")
        .replace("from typing import ClassVar", "from typing import Any as _Any, ClassVar")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fields", type=Path, help="table of fields (JSON) to make caffe.proto from")
    options = parser.parse_args()
    if options.fields:
        (ROOT / PROTO).write_text(
            proto_text(with_forks(json.loads(options.fields.read_text()), read_forks())), encoding="utf-8"
        )
    compile_proto()


if __name__ == "__main__":
    main()
