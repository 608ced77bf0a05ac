"""A value as it lies in Ray's object store: written once, and read by any process as read-only views of it."""

import mmap
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_INLINE = 4096  # of bytes that are sent along; so that no socket is ever full
_ALIGNMENT = 64


@dataclass(frozen=True)
class Stored:
    """The pickle of a value and the buffers of its arrays, at `spans` of `content`: the bytes, or the file of them."""

    content: bytes | Path
    spans: Sequence[tuple[int, int]]

    def load(self) -> Any:
        """The value; its arrays are read-only."""
        if isinstance(self.content, bytes):
            content = memoryview(self.content)
        else:
            with self.content.open("rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        pickled, *buffers = (content[begin:end] for begin, end in self.spans)
        return pickle.loads(pickled, buffers=buffers)


def store(value: object, folder: Path) -> Stored:
    """Write a value, to a file in `folder` if it is large."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    spans: list[tuple[int, int]] = []
    end = 0
    for part in parts:
        begin = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = begin + part.nbytes
        spans.append((begin, end))
    if end <= _MOST_INLINE:
        content = bytearray(end)
        for (begin, stop), part in zip(spans, parts, strict=True):
            content[begin:stop] = part
        return Stored(bytes(content), spans)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        for (begin, _), part in zip(spans, parts, strict=True):
            file.seek(begin)
            file.write(part)
    return Stored(Path(file.name), spans)
