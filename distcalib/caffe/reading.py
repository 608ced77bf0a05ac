"""Read a net from prototxt text or a binary NetParameter.

Which of the two a file is, its content decides and not its name: text has no control characters but white space,
while a binary net cannot do without them (the tag of a layer alone has two). Caffe skips unknown fields of a binary
net silently; here they are errors as in text, because a net that says more than was understood would be measured as
another net."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, cast

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from distcalib.caffe import caffe_pb2
from distcalib.caffe.causes import one_cause
from distcalib.caffe.control import CONTROL, stray_characters, stray_control
from distcalib.caffe.lint import Finding, lint
from distcalib.caffe.paths import not_utf8, special
from distcalib.caffe.phase import PLAIN, State
from distcalib.caffe.unread import as_utf8, with_joined_signs, without_unneeded
from distcalib.caffe.upgrade import upgrade_net
from distcalib.caffe.upgrade_v0 import ignored_parameters
from distcalib.errors import FindingsError, FormatError, told

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LFS_MAGIC = b"version https://git-lfs"
#: As many findings as a terminal shows; the rest are counted.
MAX_SHOWN = 40
#: More are no net: ten times those of the deepest that were published, and a minute to look at.
MOST_LAYERS = 20_000
_LAYER = re.compile(rb"\blayers?\s*\{")
_MERGE_MARKS = re.compile(rb"(?m)^(<<<<<<<|>>>>>>>) ")


def read_net(path: str | os.PathLike[str], given: State = PLAIN) -> caffe_pb2.NetParameter:
    """The net of a prototxt or binary file, brought to today's format; layers of all phases are kept.

    `given` tells which layers are of the test, whose fields must all be known.

    FormatError names the file and all that is wrong with it: unknown fields, enum values and values of the wrong
    kind with their lines."""
    content = read_file(path)
    net = caffe_pb2.NetParameter()
    where = os.fspath(path)
    with told(FormatError, where, "correct it, or give another net"):
        if is_text(content):
            _parse_text(_decode(content, where), net, where, given)
        else:
            _parse_binary(content, net, where)
        _refuse_no_text(net, where)
        upgrade_net(net, where)
    if not net.layer:
        raise FormatError(f"{where}: has no layers; give the prototxt of a net")
    return net


def left_unread(path: str | os.PathLike[str]) -> list[str]:
    """What `read_net` passes over in the text `path`: the unknown fields of layers that a test does without."""
    content = read_file(path)
    where = os.fspath(path)
    if not is_text(content):
        return []
    text = with_joined_signs(_decode(content, where))
    try:
        _parse_strictly(text, caffe_pb2.NetParameter(), where)
    except (text_format.ParseError, DeprecationWarning):
        return [str(finding) for finding in _findings(text)]
    return []


def ignored_in(path: str | os.PathLike[str]) -> list[str]:
    """What `read_net` passes over in the V0 text `path` as Caffe does: parameters that are of other types of layers."""
    content = read_file(path)
    net = caffe_pb2.NetParameter()
    if is_text(content) and b"layers" in content:  # what V0 calls them; to parse a large net again takes a while
        with suppress(text_format.ParseError):
            text_format.Parse(with_joined_signs(_decode(content, os.fspath(path))), net, allow_unknown_field=True)
    return ignored_parameters(net)


def read_label_map(path: Path) -> dict[int, str]:
    """The display names of classes in a label map, as text, by label.

    Empty where it cannot be read: Caffe itself does not look into it to test.
    """
    label_map = caffe_pb2.LabelMap()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a wrong escape in a name
            text_format.Parse(path.read_text("utf-8"), label_map)
        _refuse_no_text(label_map, "")
    except (OSError, ValueError, RecursionError, text_format.ParseError, FormatError):  # ValueError: no UTF-8, or a NUL
        return {}
    return {item.label: item.display_name or item.name for item in label_map.item}


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a file that must exist, be a file and not be empty; FormatError says what it is instead."""
    where = os.fspath(path)
    if wrong := not_utf8(where):
        raise FormatError(f"{where}: {wrong}")
    if kind := special(where):  # a pipe of the shell's, too: a net is read more than once
        raise FormatError(f"{where}: is {kind}, not a file; write it to a file first")
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise FormatError(cannot_read(where, error)) from None
    if not content.strip():
        raise FormatError(f"{where}: is empty; give the prototxt of a net")
    return content


def cannot_read(where: str, error: OSError | ValueError) -> str:
    """The sentence for a file that the system does not let us read; a ValueError is of a name with a null byte."""
    if isinstance(error, ValueError):
        return f"{where}: cannot be a file ({error}); check the path"
    if isinstance(error, FileNotFoundError):
        return f"{where}: no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return f"{where}: is a folder; name the file inside it"
    return f"{where}: cannot be read ({error.strerror or error}); check the path and its permissions"


def in_utf16(content: bytes) -> bool:
    """Whether the bytes are text in UTF-16 (or UTF-32), as some editors save it: with a mark before it, or each second
    byte 0."""
    head = content[:64]
    halves = (head[0::2], head[1::2])
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or (
        len(head) >= 8 and any(not any(a) and all(b) for a, b in (halves, halves[::-1]))
    )


def is_text(content: bytes | memoryview) -> bool:
    """Whether the first 64 KiB look like text in an encoding that ASCII is part of."""
    head = bytes(content[:65536])
    return not head.startswith(HDF5_MAGIC) and stray_control(head) is None


def _decode(content: bytes, where: str) -> str:
    if content.startswith(LFS_MAGIC):
        raise FormatError(f"{where}: is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
    if mark := _MERGE_MARKS.search(content):
        line = content.count(b"\n", 0, mark.start()) + 1
        raise FormatError(f"{where}: line {line} is the mark of a merge that was not finished; choose one of its sides")
    if sum(1 for _ in _LAYER.finditer(content)) > MOST_LAYERS:
        raise FormatError(f"{where}: has more than {MOST_LAYERS} layers; no net has, so give another file")
    _refuse_control(content, where)
    if content.lstrip().startswith(b"<"):
        raise FormatError(f"{where}: is a web page or XML, not a prototxt; download the file itself")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        content = as_utf8(content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FormatError(
            f"{where}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from None


def _refuse_control(content: bytes, where: str) -> None:
    """Raise FormatError for a text with a control character that Caffe does not skip."""
    if stray := stray_control(content):
        line, value = stray
        said = (
            "a NUL byte, which Caffe refuses in comments, too" if value == 0 else f"the control character 0x{value:02x}"
        )
        raise FormatError(f"{where}: line {line} has {said}; remove it")


def _parse_text(text: str, net: caffe_pb2.NetParameter, where: str, given: State) -> None:
    text = with_joined_signs(text)
    try:
        _parse_strictly(text, net, where)
    except (text_format.ParseError, DeprecationWarning) as error:
        try:
            findings = _findings(text)
            loose, serious = without_unneeded(text, findings, given)
        except RecursionError:
            raise FormatError(
                f"{where}: has messages in messages, some hundred deep; no net has, so give another file"
            ) from None
        if loose is None or stray_characters(text):
            cause = one_cause(text, findings)
            listed = [str(finding) for finding in serious] or [_own_message(error)]
            raise (FormatError(f"{where}: {cause}") if cause else _all_of(where, listed)) from None
        net.CopyFrom(loose)
        _check_required(net, where)
    else:
        if strange := stray_characters(text):
            raise FormatError(f"{where}: {strange}")


def _parse_strictly(text: str, net: caffe_pb2.NetParameter, where: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # Python's way to say that a string has a wrong escape
        text_format.Parse(text, net)
    _check_required(net, where)


def _findings(text: str) -> list[Finding]:
    return lint(text, cast(Descriptor, caffe_pb2.NetParameter.DESCRIPTOR))


def _own_message(error: Exception) -> str:
    """The parser's message "LINE:COLUMN : reason" as "line LINE: reason; correct it"."""
    reason = str(error).strip().splitlines()[-1]
    match = re.match(r"(\d+):\d+ : (?:'.*?'?: )?(.*)", reason)
    return f"line {match[1]}: {match[2].rstrip('.')}; correct it" if match else f"{reason.rstrip('.')}; correct it"


def _all_of(where: str, findings: list[str]) -> FormatError:
    """The error of one finding, or of several below each other, at most MAX_SHOWN of them."""
    if len(findings) == 1:
        return FormatError(f"{where}: {findings[0]}")
    shown = findings[:MAX_SHOWN]
    if len(findings) > MAX_SHOWN:
        shown.append(f"and {len(findings) - MAX_SHOWN} more")
    return FindingsError.of(f"{where}: {len(findings)} things cannot be read:", shown)


def _parse_binary(content: bytes, net: caffe_pb2.NetParameter, where: str) -> None:
    if content.startswith(HDF5_MAGIC):
        raise FormatError(f"{where}: is an HDF5 file; give the prototxt of the net")
    if in_utf16(content):
        raise FormatError(f"{where}: is text in UTF-16; save the file as UTF-8")
    try:
        net.ParseFromString(content)
    except DecodeError:
        _refuse_mean(content, where)
        if len(CONTROL.findall(content)) <= max(1, len(content) // 50):
            _refuse_control(content, where)
        raise FormatError(
            f"{where}: is neither prototxt text nor a whole binary net; copy it again, or give the prototxt"
        ) from None
    unknown = [_in_layer(net, place) for place in _unknown(net, ())]
    if unknown:
        _refuse_mean(content, where)
        raise _all_of(where, unknown)
    _check_required(net, where)


def _refuse_mean(content: bytes, where: str) -> None:
    """Raise FormatError for the file of a mean image, a BlobProto that holds as many values as it declares."""
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(content)
    except DecodeError:
        return
    n_values = max(len(blob.data), len(blob.double_data))
    declared = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    if n_values and n_values == prod(declared):
        raise FormatError(
            f"{where}: is a mean file, a blob of {n_values} values, not a net; give the prototxt of the net"
        )


def _refuse_no_text(message: Message, where: str) -> None:
    """Raise FormatError for names that are not UTF-8: protobuf takes any bytes, and Python has no text of them."""
    wrong = list(dict.fromkeys(_no_text(message, ())))
    if wrong:
        raise FormatError(f"{where}: {', '.join(wrong)}: is not text in UTF-8; write it in ASCII")


def _no_text(message: Message, place: tuple[str, ...]) -> Iterator[str]:
    for field, value in message.ListFields():
        inner = (*place, field.name)
        several = not isinstance(value, str | bytes | Message) and field.cpp_type in (
            field.CPPTYPE_STRING,
            field.CPPTYPE_MESSAGE,
        )
        for i, one in enumerate(value if several else [value]):
            at = (*inner[:-1], f"{field.name}[{i}]") if several else inner
            if isinstance(one, Message):
                yield from _no_text(one, at)
            elif field.type == field.TYPE_STRING and isinstance(one, bytes):
                yield ".".join(at)


def _unknown(message: Message, place: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    """Where unknown fields or enum values stand: field names and list indices, the number of the field last."""
    for stray in cast(Iterable[Any], UnknownFieldSet(message)):
        yield (*place, stray.field_number)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        several = not isinstance(value, Message)
        for i, child in enumerate(value if several else [value]):
            yield from _unknown(child, (*place, field.name, i) if several else (*place, field.name))


def _in_layer(net: caffe_pb2.NetParameter, place: tuple[object, ...]) -> str:
    """A sentence for one of `_unknown`'s places, which names the layer it is in."""
    number = place[-1]
    path = [part for part in place[:-1] if isinstance(part, str)]
    owner: Any = net.DESCRIPTOR
    for name in path:
        owner = owner.fields_by_name[name].message_type
    where = "the net"
    if path and path[0] in ("layer", "layers") and isinstance(place[1], int):
        layer = net.layer[place[1]] if path[0] == "layer" else net.layers[place[1]]
        where = f"layer '{layer.name or (layer.layer.name if path[0] == 'layers' else '')}'"  # type: ignore[union-attr]
        path = path[1:]
    inside = ".".join(path)
    field = owner.fields_by_number.get(number) if isinstance(number, int) else None
    if field is not None:
        what = f"an unknown value of {'.'.join([*path, field.name])}"
    else:
        what = f"the unknown field {number}" + (f" in {inside}" if inside else "")
    return f"{where}: has {what}; give the net as a prototxt without it"


def _check_required(net: caffe_pb2.NetParameter, where: str) -> None:
    missing: list[str] = net.FindInitializationErrors()  # type: ignore[attr-defined]  # the stubs lack it
    if missing:
        raise FormatError(f"{where}: required fields are missing: {', '.join(missing)}; add them")
