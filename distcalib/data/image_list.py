"""The list of an ImageData layer: a line an image, its path and its label, the last space between them.

Paths may hold spaces. Caffe takes anything for a label (`atoi`: 0 where there is no number), so that a list with
commas or tabs tests silently on wrong labels; here each such line is named."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from distcalib.caffe.paths import resolve_path, special
from distcalib.caffe.reading import in_utf16
from distcalib.data.datum import BadRecord, MachineFault
from distcalib.data.looking_up import absent
from distcalib.data.records import SAME_DATA, Records
from distcalib.data.source import Index, LineIndex
from distcalib.errors import DataError

BOM = b"\xef\xbb\xbf"
"""What some editors put before the first line, and nobody sees; Caffe takes it for a part of the first name."""
_BLANK_END = re.compile(rb"[ \t]\r?\n?$")
_OLD_ENDS = re.compile(rb" [+-]?[0-9]+\r[^\r\n]")
_TWO_LABELS = re.compile(r".+ [+-]?[0-9.]+")
_LINE = re.compile(rb"(.+) ([+-]?[0-9]{1,10})\r?")  # a label of more digits is none: Caffe reads an int
_OF_THE_LIST = frozenset({errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What is wrong with a name, not with a disk."""
_WAS_THERE = (
    "and was there for the driver when the run began; put the images where every node sees them, or give --ship-data, "
    "and leave them as they are during a run"
)
_AT_A_TIME = 1024  # lines: some 100 kB
_MOST_NAMED = 5
_MOST_SOUGHT = 256  # names of which one shows the folder that they are in


class Line(NamedTuple):
    """Line `number` (from 1) of a list: the image's file and its label, or the file of its labels."""

    number: int
    file: str
    label: int
    labels_file: str = ""


class ImageList:
    """The lines of the list at `path`; the names in it begin with `root`, as it is spelled.

    A relative name starts from the working directory if the first image that there is is found there, as in Caffe, else
    from the folder of `prototxt`. Without `index` all lines are read once, and DataError names those that are none.
    `missing`: the records whose files were not there for the driver, and why; None: this machine decides."""

    pattern = _LINE
    """A line, in two parts."""
    wanted = "path, a space and a whole number"

    def __init__(
        self,
        path: Path,
        root: str,
        prototxt: Path,
        index: Index | None = None,
        missing: Mapping[int, str] | None = None,
    ) -> None:
        if index is not None and not isinstance(index, LineIndex):
            raise TypeError(f"{path}: an index of lines is wanted, not {type(index).__name__}")
        self.path = path
        self._root = root
        self._missing = missing
        self._place = (-1, 0)  # number of a record and the byte that its line begins at: where the last read ended
        with self._opened() as file:
            self.index = index if index is not None else self._scan(file, prototxt)
            size = os.fstat(file.fileno()).st_size
        if size != self.index.size:
            raise DataError(f"{path}: has {size} bytes where it had {self.index.size} before; {SAME_DATA}")

    def read(self, first: int, count: int) -> list[Line]:
        """`count` lines from record `first` (from 0) on; after the last comes the first again."""
        lines = []
        with self._opened() as file:
            position, offset = self._place
            file.seek(offset)
            for at in range(first, first + count):
                if at % self.index.n_records != position:
                    position = at % self.index.n_records
                    self._seek(file, position)
                lines.append(self._line(position, file.readline()))
                position += 1
            self._place = position, file.tell()
        return lines

    def beginning(self, n_records: int) -> Iterator[Line]:
        """The first `n_records` lines, each once; all, where there are fewer."""
        n_records = min(n_records, self.index.n_records)
        for first in range(0, n_records, _AT_A_TIME):
            yield from self.read(first, min(_AT_A_TIME, n_records - first))

    def name(self, line: Line) -> str:
        """The image's name as it stands in the list, without the folder that it is in on this machine."""
        return name_in(self.index, line)

    def contents(self, line: Line) -> bytes:
        """The bytes of a line's file. Raises BadRecord."""
        if self._missing and (known := self._missing.get(line.number - 1)):
            raise BadRecord(known)
        if kind := special(line.file):
            raise BadRecord(f"is {kind}, not a file; correct the list")
        try:
            return Path(line.file).read_bytes()
        except (OSError, ValueError) as error:
            raise self._fault(error, line.file) from error

    def _opened(self) -> BinaryIO:
        """The file. Raises DataError."""
        try:
            return self.path.open("rb")
        except FileNotFoundError as error:
            raise absent(self.path) from error
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be read: {error.strerror}; give a text file of paths and labels"
            ) from error

    def _fault(self, error: OSError | ValueError, file: str) -> BadRecord:
        """What a file that cannot be read is to a run."""
        if wrong := _wrong_name(error, file):
            known = self._missing is not None
            return MachineFault(f"{wrong.partition('; ')[0]}, {_WAS_THERE}") if known else BadRecord(wrong)
        assert isinstance(error, OSError), "any other is of the name"
        denied = isinstance(error, PermissionError)
        remedy = "give the right to read it on all nodes" if denied else "see to the disk, and give the command again"
        return MachineFault(f"cannot be read ({error.strerror}); {remedy}")

    def _scan(self, file: BinaryIO, prototxt: Path) -> LineIndex:
        offsets, bad, at, trailing = [], [], 0, 0
        names: list[bytes] = []
        head = file.read(64)
        if in_utf16(head):
            raise DataError(f"{self.path}: is text in UTF-16; save the list as UTF-8")
        if head.startswith(BOM):
            at = len(BOM)
        file.seek(at)
        for number, line in enumerate(file, 1):
            if _OLD_ENDS.search(line):
                raise DataError(f"{self.path}: its lines end with a carriage return alone; write a newline behind each")
            offsets.append(at)
            at += len(line)
            parts = self.pattern.fullmatch(line.removesuffix(b"\n"))
            if parts is None:
                bad.append(number)
                trailing += _BLANK_END.search(line) is not None
            elif len(names) < _MOST_SOUGHT:
                names.append(parts[1])
        if bad:
            blanks = " (what ends in blanks has no label to Caffe)" if trailing else ""
            raise DataError(f"{self.path}: {_numbered(bad)} no {self.wanted}{blanks}; correct the list")
        if not offsets:
            raise DataError(f"{self.path}: the list is empty; give a line 'path label' for each image")
        step = -(-len(offsets) // Records.MAX_KEYS)
        tried = [Path(self._root + os.fsdecode(name)) for name in names]
        first = next((one for one in tried if os.path.exists(resolve_path(str(one), prototxt))), tried[0])
        here = resolve_path(str(first), prototxt) == first
        folder = Path.cwd() if here else prototxt.parent.absolute()
        return LineIndex(len(offsets), step, tuple(offsets[::step]), at, str(folder), self._root)

    def _seek(self, file: BinaryIO, position: int) -> None:
        anchor, steps = divmod(position, self.index.step)
        file.seek(self.index.offsets[anchor])
        for _ in range(steps):
            file.readline()

    def _line(self, position: int, line: bytes) -> Line:
        parts = self.pattern.fullmatch(line.removesuffix(b"\n"))
        if parts is None:
            raise DataError(
                f"{self.path}: line {position + 1} is not what it was when the list was indexed; {SAME_DATA}"
            )
        return self.made(position + 1, parts[1], parts[2])

    def made(self, number: int, first: bytes, second: bytes) -> Line:
        """What the two parts of a line say."""
        return Line(number, self._path(first), int(second))

    def _path(self, name: bytes) -> str:
        return os.path.join(self.index.folder, self.index.root + os.fsdecode(name))


def why_missing(file: str) -> str | None:
    """What `contents` would say of an image whose file is not there or none, found without reading it; else None."""
    try:
        is_folder = stat.S_ISDIR(os.stat(file).st_mode)
    except (OSError, ValueError) as error:
        return _wrong_name(error, file)
    if is_folder:
        return _wrong_name(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    return f"is {kind}, not a file; correct the list" if (kind := special(file)) else None


def _wrong_name(error: OSError | ValueError, file: str = "") -> str | None:
    """What is wrong with a name in a list; None where the fault is the machine's."""
    if isinstance(error, FileNotFoundError) and _TWO_LABELS.fullmatch(file):
        return "does not exist; has the line two labels? ImageData reads one, so write one, or use HDF5Data"
    if isinstance(error, FileNotFoundError):
        return "does not exist; correct the list or root_folder"
    if isinstance(error, ValueError):  # a null byte
        return f"cannot be read ({error}); correct the list"
    return f"cannot be read ({error.strerror}); correct the list" if error.errno in _OF_THE_LIST else None


def name_in(index: LineIndex, line: Line) -> str:
    """The name in the list of `index` of a line's image."""
    return line.file.removeprefix(os.path.join(index.folder, index.root))


def _numbered(lines: list[int]) -> str:
    """`line 3 is`, `lines 3, 4 are`, with at most a few of them named."""
    named = ", ".join(map(str, lines[:_MOST_NAMED]))
    more = f" and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
    return f"line {named} is" if len(lines) == 1 else f"lines {named}{more} are"
