"""Which caffemodel a written prototxt is for: its first line names it.

Scales of one caffemodel with the weights of another still run, and answer wrongly.
"""

import re
from hashlib import sha256
from pathlib import Path

from distcalib.errors import printable

_LINE = re.compile(r"# For (?P<name>.*) only \(sha256 (?P<sha256>[0-9a-f]{64})\): its scales do not fit others\.\n")


def belonging_line(weights: str, digest: str) -> str:
    """The first line of a prototxt for the caffemodel `weights`; a comment for all that read prototxts."""
    return f"# For {printable(weights)} only (sha256 {digest}): its scales do not fit others.\n"


def belonging_warnings(prototxt: Path, weights: Path) -> list[str]:
    """What is to be said of a prototxt that is given with another caffemodel than the one that its first line names."""
    try:
        with prototxt.open(encoding="utf-8", errors="replace") as file:
            found = _LINE.fullmatch(file.readline(4096))
        if found is None:
            return []
        given = file_sha256(weights)
    except OSError:
        return []  # whoever opens them says it
    if given == found["sha256"]:
        return []
    return [
        f"{prototxt}: was made for {found['name']} (sha256 {found['sha256'][:12]}), and {weights} is another "
        f"caffemodel; give -w {prototxt.parent / found['name']}"
    ]


def file_sha256(path: Path) -> str:
    """The hash of a file, read piece by piece.  Raises OSError."""
    found = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()
