"""By what the journal knows a program's rows: a hash of everything that decides their bytes.

The context of a run is its weights, its data (data/identity.py), the engine with its version, target and kernels, and
the version of distcalib; a program is its net, batch included, with all that its spec says.  How many actors there are
decides nothing.  Where a net came from decides nothing either, so that a copy of the files in another folder differs by
its data alone.
"""

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from distcalib.actors.isa import Isa
from distcalib.engine.timing import TimingSpec
from distcalib.journal.codec import FORMAT

# Of the versions that a report has, those that can change a bit of a row.
_DECIDING = ("distcalib", "openvino", "numpy", "opencv", "intel_caffe")
_PLUGIN = "plugin "
# Fields of specs that only name things for messages.
_NAMES = frozenset({"where"})


class Keys:
    """The keys of one run."""

    def __init__(self, weights: object, data: object, isa: Isa, versions: Mapping[str, str]) -> None:
        deciding = {name: versions[name] for name in _DECIDING if name in versions}
        deciding |= {name: code for name, code in versions.items() if name.startswith(_PLUGIN)}
        self._context = digest((FORMAT, weights, data, isa, deciding))

    def key(self, spec: object) -> bytes:
        """Of the rows of the program that `spec` makes; times are of one machine."""
        machine = platform.node() if isinstance(spec, TimingSpec) else ""
        return digest((self._context, machine, spec))


def digest(value: object) -> bytes:
    """SHA-256 of a value made of plain types, arrays, dataclasses and protobuf's bytes, in one spelling for each.

    Raises TypeError for any other type: what is not hashed must not be left out in silence.
    """
    hasher = hashlib.sha256()
    _feed(hasher.update, value)
    return hasher.digest()


def _feed(update: Callable[[Any], None], value: object) -> None:
    if value is None or isinstance(value, (bool, int, float, str)):
        said = (value.hex() if isinstance(value, float) else str(value)).encode(errors="surrogateescape")
        update(b"%s %d:" % (type(value).__name__.encode(), len(said)))
        update(said)
    elif isinstance(value, (bytes, bytearray)):
        update(b"bytes %d:" % len(value))
        update(value)
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects has no bytes to be hashed")
        update(f"array {value.dtype.str} {value.shape}:".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        update(b"mapping %d:" % len(value))
        for pair in value.items():
            _feed(update, pair)
    elif isinstance(value, (Sequence, range)):
        update(b"sequence %d:" % len(value))
        for item in value:
            _feed(update, item)
    elif is_dataclass(value) and not isinstance(value, type):
        update(f"{type(value).__name__}:".encode())
        for field in fields(value):
            if field.name not in _NAMES:
                _feed(update, (field.name, getattr(value, field.name)))
    else:
        raise TypeError(f"{type(value).__name__}: cannot be hashed; add it to {__name__}")
