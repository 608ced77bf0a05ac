"""Commands and Python in the docs, as a reader would copy them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    \S.*\n(?:^     *\S.*\n)*)+", re.MULTILINE)
_INLINE = re.compile(r"`(distcalib [^`\n]*)`")
_SETTING = re.compile(r"[A-Z_]+=\S*$")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command `distcalib ...` in blocks, without comments, settings and what a shell redirects to."""
    blocks = [block for kind, block in _BLOCK.findall(text) if kind in ("", "sh", "bash", "console")]
    plain = _BLOCK.sub("", text)
    for block in (*blocks, *_INDENTED.findall(plain)):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        typed = [line[2:] for line in lines if line.startswith("$ ")]  # the others are what it prints then
        for line in typed or lines:
            yield from _command(line)


def inline(text: str) -> Iterator[list[str]]:
    """Those that stand in a sentence, which may be incomplete."""
    for found in _INLINE.findall(_BLOCK.sub("", text)):
        yield from _command(found)


def pythons(text: str) -> list[str]:
    """The blocks of Python."""
    return [block for kind, block in _BLOCK.findall(text) if kind == "python"]


def _command(line: str) -> Iterator[list[str]]:
    line = re.sub(r"^source <\((.*)\)", r"\1", line)
    if not re.match(r"([A-Z_]+=\S* )*distcalib ", line):
        return
    words = shlex.split(re.sub(r"\[([^|\]]*)(\|[^\]]*)?\]", r"\1", line), comments=True)  # the first of a choice
    while _SETTING.match(words[0]):
        words.pop(0)
    yield words[: words.index(">")] if ">" in words else words
