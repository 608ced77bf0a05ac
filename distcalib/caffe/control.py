"""Control characters and others that are not ASCII, as C++ protobuf reads them.

Its tokenizer skips whatever bytes a comment has up to the end of the line, but for NUL, at which the comment ends and
which is refused.  White space is ASCII's alone, where Python's parser takes a no-break space for a space: Caffe
would not load such a file."""

from __future__ import annotations

import re
import unicodedata

from distcalib.caffe.lint import TOKEN

CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_QUOTES = "“”„‟‘’‚‛«»＂＇″′´`"
_DASHES = "‐‑‒–—―−﹣－"
_WORD = 'typographic quotes, as word processors write them; write "'


def stray_control(content: bytes) -> tuple[int, int] | None:
    """Line and value of the first control character that Caffe does not skip; None if there is none."""
    if CONTROL.search(content) is None:
        return None
    line = 1
    for match in TOKEN.finditer(content.decode("latin-1")):
        part = match.group().encode("latin-1")
        at = part.find(0) if part.startswith(b"#") else getattr(CONTROL.search(part), "start", lambda: -1)()
        if at >= 0:
            return line + part.count(b"\n", 0, at), part[at]
        line += part.count(b"\n")
    return None


def stray_characters(text: str) -> str | None:
    """What is said of characters that are not ASCII where no string or comment is, or of backticks; None without."""
    if text.isascii() and "`" not in text:
        return None
    lines: list[int] = []
    first, line, open_line, run_on = "", 1, 0, -1
    for match in TOKEN.finditer(text):
        part = match.group()
        if part in ("'", '"'):  # a string that does not end: what follows is its text
            open_line = line
        elif match.lastgroup == "mark" and (not part.isascii() or part == "`") and line != open_line:
            if not first or (match.start() == run_on and part not in _QUOTES):
                first, run_on = first + part, match.end()
            lines += [line] * (line not in lines[-1:])
        line += part.count("\n")
    if not lines:
        return None
    more = f" (and {len(lines) - 1} more lines)" if lines[1:] else ""
    return f"line {lines[0]}{more} has {_what(first)}"


def _what(found: str) -> str:
    """What a run of characters is, and what to write in its place."""
    if found[0] in _QUOTES:
        return 'backticks for quotes; write "' if found[0] == "`" else _WORD
    code = f"{unicodedata.name(found[0], 'a character')} (U+{ord(found[0]):04X})"
    plain = unicodedata.normalize("NFKC", found)
    if found[0] in _DASHES:
        return f"'{found[0]}', {code}, for a minus; write -"
    if unicodedata.category(found[0]) in ("Zl", "Zp") or found[0] == "\x85":
        return f"{code}, which is no line end to Caffe; write a line feed"
    if plain[0] == " " or unicodedata.category(found[0]) == "Zs":
        return f"{code}, which is no space to Caffe; write a plain one"
    if unicodedata.category(found[0]) in ("Cf", "Cc"):
        return f"{code}, which cannot be seen; remove it"
    if plain.isascii():
        return f"'{found}', {code}{' and so on' if found[1:] else ''}, which Caffe does not read; write {plain}"
    return f"'{found[0]}', {code}, outside of strings and comments, where Caffe reads ASCII only; correct it"
