"""Where a path inside a prototxt points.

Caffe takes a relative `source` or `mean_file` from the working directory; models that travel with their data want
it taken from the prototxt. Both work here, and Caffe's way wins when both exist, so that Caffe's results hold."""

from __future__ import annotations

from pathlib import Path


def resolve_path(source: str, prototxt: Path) -> Path:
    """`source` as it stands if that exists, else from the folder of `prototxt` if that exists, else as it stands.

    The last, for an error message: it is the spelling that the user wrote."""
    as_given = Path(source)
    if as_given.is_absolute() or as_given.exists():
        return as_given
    beside = Path(prototxt).parent / source
    return beside if beside.exists() else as_given
