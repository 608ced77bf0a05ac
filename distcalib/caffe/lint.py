"""Find everything that is wrong with a prototxt, not only the first thing.

protobuf's own parser decides what is valid; it stops at the first error, so when it refuses a text this second, small
reader walks the whole of it and names every unknown field and value with its line. It only ever explains: it is
not run on a text that protobuf accepts, and where it finds nothing protobuf's own message stands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from distcalib.caffe.forks import FIRST

TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*')
      | (?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
      | (?P<name>-?\s*[A-Za-z_]\w*)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,  # C++ protobuf takes no other letters, digits and spaces
)
#: Kinds of tokens that can be a value.
SCALARS = ("string", "number", "name")
CLOSING = {"{": "}", "<": ">"}
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
FLOAT_NAMES = ("inf", "infinity", "nan", "inff", "infinityf")
BOOLEANS = ("true", "false", "t", "f", "True", "False", "1", "0")
#: A backslash that is not escaped itself, and a character that it cannot stand before.
ESCAPE = re.compile(r"""(?<!\\)(?:\\\\)*(\\[^abfnrtvxXuU0-7'"?\\])""")
#: What is said of types in the wrong format.
OLD_TYPE = "in `layer` a type is a string in quotes, names like CONVOLUTION belong to the old `layers`"
NEW_TYPE = "in the old `layers` a type is a name like CONVOLUTION, strings in quotes belong to `layer`"
#: The end of a text, as a token's kind.
END = "end"


class Token(NamedTuple):
    """A name, number, string or mark, and the line it begins on."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the line, counted from 1, and "what is; what would do"."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def lint(text: str, message: Descriptor) -> list[Finding]:
    """All unknown fields, values of the wrong kind, repeated singular fields and unbalanced braces of a prototxt."""
    return _Linter(text).run(message)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a prototxt, without white space and comments; one of kind END is the last."""
    line = 1
    for match in TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        if kind != "space":
            yield Token(kind, match.group(), line)
        line += match.group().count("\n")
    yield Token(END, "", line)


class _Linter:
    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self._at = 0
        self._findings: list[Finding] = []

    def run(self, message: Descriptor) -> list[Finding]:
        self._fields(message, closing=None, opened=1)
        return self._findings

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += token.kind != END
        return token

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _find(self, token: Token, text: str) -> None:
        self._findings.append(Finding(token.line, text))

    def _fields(self, message: Descriptor | None, closing: str | None, opened: int) -> None:
        """The fields up to `closing`, which the line `opened` asks for; those of an unknown message are skipped."""
        seen: set[str] = set()
        while True:
            token = self._next()
            if token.kind == END:
                if closing:
                    self._find(token, f"the text ends inside the message that line {opened} opens; add '{closing}'")
                return
            if token.text == closing:
                return
            if token.kind != "name":
                wrong = "an unfinished string" if token.text in "\"'" else f"'{token.text}'"
                self._find(token, f"{wrong} where the name of a field is expected; remove it")
                if token.text in CLOSING:
                    self._fields(None, CLOSING[token.text], token.line)
                elif token.text in "\"'":
                    self._skip_line(token.line)
                continue
            self._field(message, token, seen)
            if self._peek().text in (",", ";"):
                self._next()

    def _skip_line(self, line: int) -> None:
        while self._peek().kind != END and self._peek().line == line:
            self._next()

    def _field(self, message: Descriptor | None, name: Token, seen: set[str]) -> None:
        field = message.fields_by_name.get(name.text) if message else None
        if message and field is None:
            self._find(name, f"unknown field '{name.text}' in {message.name}; {_advice(name.text, message)}")
        if field and name.text in seen and not _is_repeated(field):
            self._find(name, f"'{name.text}' stands twice in one {_owner(field)}; keep one")
        seen.add(name.text)
        colon = self._peek().text == ":"
        if colon:
            self._next()
        if self._peek().text == "[":
            self._list(field)
        elif self._peek().text in CLOSING:
            self._message(field)
        elif not colon:
            self._find(name, f"no ':' or '{{' after '{name.text}'; write `{name.text}: value`")
            if self._peek().text == "=":
                self._next()
            if self._peek().kind in ("number", "string") and self._peek().line == name.line:  # the value is there
                self._next()
        else:
            self._value(field, name)

    def _list(self, field: FieldDescriptor | None) -> None:
        opening = self._next()
        while self._peek().text != "]":
            token = self._peek()
            if token.kind == END or token.text in CLOSING.values():
                self._find(opening, "a list that does not end; add ']'")
                return
            if token.text in CLOSING:
                self._message(field)
            elif token.kind in SCALARS:
                self._value(field, token)
            elif self._next().text != ",":
                self._find(token, f"'{token.text}' inside a list; remove it")
        self._next()

    def _message(self, field: FieldDescriptor | None) -> None:
        opening = self._next()
        if field and field.message_type is None:
            self._find(opening, f"'{field.name}' takes {_expected(field)}, not a message")
            field = None
        self._fields(field.message_type if field else None, CLOSING[opening.text], opening.line)

    def _value(self, field: FieldDescriptor | None, name: Token) -> None:
        token = self._peek()
        if token.kind not in SCALARS:
            missing = "an unfinished string" if token.text in ('"', "'") else "no value"
            self._find(name, f"{missing} after '{name.text}:'; write one")
            if token.text in ('"', "'"):
                self._skip_line(token.line)
            return
        while self._next().kind == "string":  # strings side by side are one
            self._find_escapes(self._tokens[self._at - 1])
            if self._peek().kind != "string":
                break
        if field and not _fits(field, token):
            self._find(token, f"'{field.name}' is {token.text}{_value_advice(field, token)}")

    def _find_escapes(self, token: Token) -> None:
        wrong = ESCAPE.search(token.text)
        if wrong:
            self._find(token, f"{token.text} has the unknown escape {wrong[1]}; write / or \\\\ in paths")


def _is_repeated(field: FieldDescriptor) -> bool:
    """Newer runtimes warn of `label`, older ones lack `is_repeated`."""
    known: bool | None = getattr(field, "is_repeated", None)
    return bool(getattr(field, "label", None) == FieldDescriptor.LABEL_REPEATED) if known is None else known


def _owner(field: FieldDescriptor) -> str:
    """The name of the message that `field` belongs to."""
    return field.containing_type.name if field.containing_type else ""


def _fits(field: FieldDescriptor, token: Token) -> bool:
    """Whether one scalar token is a value of `field`."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return False
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return token.kind == "string"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return token.text in BOOLEANS
    if kind in FLOATS:
        return token.kind == "number" or token.text.lstrip("- ").lower() in FLOAT_NAMES
    number = _integer(token)
    enum = field.enum_type
    if enum is not None:
        return token.text in enum.values_by_name or number in enum.values_by_number
    low, high = INTEGERS[kind]
    return number is not None and low <= number <= high


def _integer(token: Token) -> int | None:
    if token.kind != "number":
        return None
    digits = token.text.replace(" ", "")
    try:
        return int(digits, 8 if re.fullmatch(r"-?0[0-7]+", digits) else 0)
    except ValueError:
        return None


def _expected(field: FieldDescriptor) -> str:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return f"a message, `{field.name} {{ ... }}`"
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return "a string in quotes"
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    if kind in FLOATS:
        return "a number"
    if field.enum_type is not None:
        return _names(field.enum_type)
    return "a whole number from 0 on" if INTEGERS[kind][0] == 0 else "a whole number"


def _names(enum: EnumDescriptor) -> str:
    names = list(enum.values_by_name)
    shown = names if len(names) <= 8 else [*names[:6], f"{len(names) - 6} more"]
    return f"one of {', '.join(shown)}"


def _value_advice(field: FieldDescriptor, token: Token) -> str:
    owner = _owner(field)
    if field.name == "type" and owner == "LayerParameter" and token.kind == "name":
        return f"; {OLD_TYPE}"
    if field.name == "type" and owner == "V1LayerParameter" and token.kind == "string":
        return f"; {NEW_TYPE}"
    if field.enum_type is not None:
        close = difflib.get_close_matches(token.text.strip("\"'").upper(), field.enum_type.values_by_name, n=1)
        if close:
            return f", which {field.enum_type.name} does not have; {close[0]} is meant?"
    return f"; it takes {_expected(field)}"


def _advice(name: str, message: Descriptor) -> str:
    """What the writer of an unknown field may have meant."""
    names = list(message.fields_by_name)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if close:
        return f"'{close[0]}' is meant?"
    owners = [
        field.name
        for field in message.fields
        if field.number < FIRST and field.message_type is not None and name in field.message_type.fields_by_name
    ]
    if 1 <= len(owners) <= 4:
        return f"it belongs into {' or '.join(owners)} {{ }}"
    return "remove it, or is this file for another Caffe?"
