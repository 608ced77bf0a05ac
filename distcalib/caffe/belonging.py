"""Which caffemodel a written prototxt is for: its first line names it.

Scales of one caffemodel with the weights of another still run, and answer wrongly.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from distcalib.caffe.paths import special
from distcalib.errors import WeightsError, printable

_LINE = re.compile(r"# For (?P<name>.*) only \(sha256 (?P<sha256>[0-9a-f]{64})\): its scales do not fit others\.\n")


def belonging_line(weights: str, digest: str) -> str:
    """The first line of a prototxt for the caffemodel `weights`; a comment for all that read prototxts."""
    return f"# For {printable(weights)} only (sha256 {digest}): its scales do not fit others.\n"


def belonging_weights(prototxt: Path) -> Path | None:
    """The caffemodel that the first line of `prototxt` names, if it is there, beside it."""
    named = _named(prototxt)
    path = None if named is None else prototxt.parent / named["name"]
    return path if path is not None and os.path.isfile(path) else None  # Path.is_file raises for a name too long


@contextmanager
def belonging_named(prototxt: Path, weights: Path) -> Iterator[None]:
    """Where the blobs of `weights` do not fit, say that `prototxt` belongs to others, if it does: WeightsError."""
    try:
        yield
    except WeightsError:
        for warning in belonging_warnings(prototxt, weights):
            raise WeightsError(warning) from None
        raise


def belonging_warnings(prototxt: Path, weights: Path) -> list[str]:
    """The warning about a prototxt that is given with another caffemodel than the one that its first line names."""
    match = _named(prototxt)
    if match is None or special(weights):
        return []
    try:
        given = file_sha256(weights)
    except OSError:
        return []  # whoever opens it says it
    if given == match["sha256"]:
        return []
    wanted = belonging_weights(prototxt) or f"with the path of {match['name']}"
    return [
        f"{prototxt}: was made for {match['name']} (sha256 {match['sha256'][:12]}), and {weights} is another "
        f"caffemodel; give -w {wanted}"
    ]


def _named(prototxt: Path) -> re.Match[str] | None:
    """The first line, if it names a caffemodel; None of a file that cannot be read, too: whoever opens it says it."""
    if special(prototxt):
        return None
    try:
        with prototxt.open(encoding="utf-8", errors="replace") as file:
            return _LINE.fullmatch(file.readline(4096))
    except OSError:
        return None


def file_sha256(path: Path) -> str:
    """The hash of a file, read piece by piece.  Raises OSError."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
