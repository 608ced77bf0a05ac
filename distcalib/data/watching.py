"""Whether the files of a run are still those that it began with.

A run reads its data for hours, and an actor that is started again opens them anew: another database that was renamed
over the first gives rows of other images, which no score shows.  So each opening is compared with what the driver saw:
size, time of the last change and inode, and a hash of both ends; on another machine, which may have a copy, size and
hash alone.  Who changes a byte in the middle and puts the time back is not found out.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import named_paths, special
from distcalib.data.identity import END_BYTES, files_in
from distcalib.data.records import SAME_DATA
from distcalib.data.source import Index, RowIndex
from distcalib.errors import DataError

MANY_FILES, BETWEEN_SECONDS = 64, 1.0
"""More files than this are looked at no more often than that."""


@dataclass(frozen=True)
class Seen:
    """A file as it was; `size` -1: it was not there."""

    path: str
    size: int
    changed_ns: int
    inode: int
    ends: bytes

    def difference(self, *, here: bool, ends: bool) -> str:
        """What is other now; "" if nothing is.  `here`: on the machine that saw it; `ends`: whether to look inside.

        What is missing on another machine is reported by what opens it.
        """
        try:
            stat = Path(self.path).stat()
        except OSError as error:
            return f"went away ({error.strerror})" if here and self.size >= 0 else ""
        if stat.st_size != self.size:
            if not here:
                return f"has {stat.st_size:,} bytes, and {self.size:,} for the driver"
            return f"changed from {self.size:,} to {stat.st_size:,} bytes" if self.size >= 0 else "appeared"
        if here and (stat.st_mtime_ns, stat.st_ino) != (self.changed_ns, self.inode):
            return "was replaced" if stat.st_ino != self.inode else "was written to"
        if ends and _ends(Path(self.path), stat.st_size) != self.ends:
            return "got other bytes" if here else "holds other bytes than for the driver"
        return ""


@dataclass
class Watched:
    """The files of a run by what reads them: the name of a layer, or any other."""

    files: Mapping[str, tuple[Seen, ...]]
    machine: str
    _looked: float = field(default=-BETWEEN_SECONDS, init=False)

    def check(self, name: str) -> None:
        """Raise DataError if what `name` reads is not what the run began with; to be asked around each opening."""
        _refuse(self.files.get(name, ()), here=self.machine == this_machine(), ends=True)

    def check_all(self, ends: bool = False) -> None:
        """Raise DataError if any file is not what it was; with `ends` for certain, else by a glance."""
        now = time.monotonic()
        is_many = sum(map(len, self.files.values())) > MANY_FILES
        if is_many and not ends and now - self._looked < BETWEEN_SECONDS:
            return
        self._looked = now
        for seen in self.files.values():
            _refuse(seen, here=self.machine == this_machine(), ends=ends)


def watch(
    layers: Iterable[caffe_pb2.LayerParameter],
    prototxt: Path,
    indexes: Mapping[str, Index | None],
    others: Mapping[str, Path],
) -> Watched:
    """The files that `layers` name, and `others`, as they are now; images of a list are not among them."""
    seen: dict[str, tuple[Seen, ...]] = {name: (_seen(path),) for name, path in others.items()}
    for layer in layers:
        paths = [file for path in named_paths(layer, prototxt) for file in files_in(path)]
        index = indexes.get(layer.name)
        if isinstance(index, RowIndex):
            paths += [Path(name) for name, _ in index.files]
        if paths:
            seen[layer.name] = tuple(_seen(path) for path in paths)
    return Watched(seen, this_machine())


@cache
def this_machine() -> str:
    """What tells a machine, since it was started, from others; a container with files of its own is another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


def _refuse(files: Iterable[Seen], *, here: bool, ends: bool) -> None:
    differences = [f"{one.path} {said}" for one in files if (said := one.difference(here=here, ends=ends))]
    if differences and here:
        raise DataError(
            f"{'; '.join(differences)} since the run began; nothing may change data or weights during a run: put them "
            "back as they were, and give the command again"
        )
    if differences:
        raise DataError(f"{'; '.join(differences)}; {SAME_DATA}")


def _seen(path: Path) -> Seen:
    try:
        stat = path.stat()
        return Seen(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, _ends(path, stat.st_size))
    except OSError:
        return Seen(str(path.absolute()), -1, 0, 0, b"")


def _ends(path: Path, size: int) -> bytes:
    if special(path):  # refused by who reads it
        return b""
    try:
        with path.open("rb") as file:
            first = file.read(END_BYTES)
            file.seek(max(0, size - END_BYTES))
            return hashlib.sha256(first + file.read(END_BYTES)).digest()
    except OSError:
        return b""
