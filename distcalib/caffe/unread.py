"""Text that Caffe reads and Python's protobuf does not, and fields that nothing needs.

C++ protobuf skips whatever bytes a comment has and takes `- 1` for a number.  A field that caffe.proto does not have is
refused, because a net that says more than was understood would be measured as another; but not in a layer that the TEST
phase does without, such as the loss of another fork: that layer is not run, whatever it says.  Nor does a field matter
there that stands twice, such as the resize_param of a fork that takes several.  Nor in a data layer of which arrays are
given: one with a fork's parameters is taken for a type that is not read, FOREIGN behind its name, and must be fed."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.forks import FOREIGN
from distcalib.caffe.lint import TOKEN, Finding, Token, tokens
from distcalib.caffe.needed import needed
from distcalib.caffe.phase import PLAIN, State, in_test

_SIGNED = ("number", "name")
_SOURCES = frozenset(
    {"AnnotatedData", "Data", "DenseImageData", "DummyData", "HDF5Data", "ImageData", "ImageSegData", "Input"}
)
"""The data layers that are read: distcalib.data.DATA_TYPES."""


def as_utf8(content: bytes) -> bytes:
    """`content` with every byte of its comments that is not ASCII as a question mark; strings are left alone."""
    text = content.decode("latin-1")
    parts = []
    for match in TOKEN.finditer(text):
        part = match.group()
        if match.lastgroup == "space" and part.startswith("#"):
            part = part.encode("ascii", "replace").decode("ascii")
        parts.append(part)
    return "".join(parts).encode("latin-1")


def with_joined_signs(text: str) -> str:
    """`text` with no space between a minus and what it is of; lines stay where they are."""
    parts = []
    for match in TOKEN.finditer(text):
        part = match.group()
        if match.lastgroup in _SIGNED and part.startswith("-"):
            space = part[1 : len(part) - len(part[1:].lstrip())]
            part = "-" + part[1:].lstrip() + "\n" * space.count("\n")
        parts.append(part)
    return "".join(parts)


def without_unneeded(
    text: str, findings: Sequence[Finding], given: State = PLAIN
) -> tuple[caffe_pb2.NetParameter | None, list[Finding]]:
    """The net without its unknown fields, if all `findings` are such and stand in layers that a test does without.

    Else None, with the findings that stand elsewhere (all, if the text cannot be read at all).
    """
    net = caffe_pb2.NetParameter()
    try:
        text_format.Merge(text, net, allow_unknown_field=True)  # Merge takes the last of a field that stands twice
    except text_format.ParseError:
        return None, list(findings)
    spans = _spans(text)
    if len(spans) != len(net.layer):
        return None, list(findings)
    wanted = _wanted(net, given)
    idle = []
    for i, (layer, (first, last)) in enumerate(zip(net.layer, spans, strict=True)):
        own = [_is_foreign(finding.text) for finding in findings if first <= finding.line <= last]
        is_read = layer.type in _SOURCES - {"Input"} and not layer.bottom
        is_foreign = i in wanted and is_read and bool(own) and all(own)
        if is_foreign:
            layer.type += FOREIGN
        if i not in wanted or is_foreign:
            idle.append((first, last))
    serious = [f for f in findings if not any(first <= f.line <= last for first, last in idle)]
    fields = all(_is_of_a_field(finding.text) for finding in findings)
    return (net, []) if findings and fields and not serious else (None, serious or list(findings))


def _is_foreign(text: str) -> bool:
    """Whether a finding is a field that another Caffe may have in a parameter: no name of caffe.proto comes near."""
    return text.startswith("unknown field") and "is meant?" not in text and "in LayerParameter" not in text


def _is_of_a_field(text: str) -> bool:
    """Whether a finding is a field that is unknown, or that one fork repeats and caffe.proto does not."""
    return text.startswith("unknown field") or "stands twice in one" in text


def _wanted(net: caffe_pb2.NetParameter, given: State) -> set[int]:
    """The layers, by their place, whose fields matter: needed in TEST, and no makers of data in a way of their own."""
    numbered = caffe_pb2.NetParameter()
    numbered.CopyFrom(net)
    for i, layer in enumerate(numbered.layer):
        layer.name = str(i)
    kept, _ = needed(in_test(numbered, given))
    own_data = {layer.name for layer in kept if layer.type and layer.top and not layer.bottom}
    return {int(layer.name) for layer in kept if layer.name not in own_data or layer.type in _SOURCES}


def _spans(text: str) -> list[tuple[int, int]]:
    """First and last line of each layer at the top of the text."""
    spans: list[tuple[int, int]] = []
    depth = 0
    begun: Token | None = None
    last_name: Token | None = None
    for token in tokens(text):
        if token.text in ("{", "<"):
            if depth == 0 and last_name is not None and last_name.text == "layer":
                begun = last_name
            depth += 1
        elif token.text in ("}", ">"):
            depth -= 1
            if depth == 0 and begun is not None:
                spans.append((begun.line, token.line))
                begun = None
        elif depth == 0 and token.kind == "name":
            last_name = token
    return spans
