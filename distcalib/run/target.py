"""Where a calibration writes, and that it can, before hours of work."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distcalib.caffe import write_atomically
from distcalib.errors import OutputError

# A dot before it belongs to the name: the predecessor cut `resnet-1.5.prototxt` at the first one.
_SUFFIXES = (".prototxt", ".pbtxt", ".pt", ".txt")


@dataclass(frozen=True)
class Target:
    """Where the results go."""

    model: Path
    out: Path | None
    kind: str = "quantized"

    @property
    def folder(self) -> Path:
        """`--out`, or the model's own folder."""
        return self.out if self.out is not None else self.model.parent

    @property
    def prototxt(self) -> Path:
        """The net to be delivered: MODEL_quantized.prototxt."""
        name = self.model.name
        stem = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)
        return self.folder / f"{stem}_{self.kind}.prototxt"

    @property
    def report(self) -> Path:
        """The report beside it."""
        return self.folder / "report.json"

    def check(self) -> None:
        """Raise OutputError now, not after hours, if the results cannot be written in the end; leaves no trace."""
        there = next(folder for folder in (self.folder, *self.folder.absolute().parents) if os.path.lexists(folder))
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise self._refused(error) from None
        for path in (self.prototxt, self.report):
            if path.is_dir():
                raise OutputError(f"{path}: is a folder, and a file is to be written there; move it or give --out")

    def write(self, prototxt: str, report: str) -> None:
        """Write both files, in the folder made if it is not there.  Raises OutputError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from None
        write_atomically(self.prototxt, prototxt)
        write_atomically(self.report, report)

    def _refused(self, error: OSError) -> OutputError:
        reason = error.strerror or str(error)
        return OutputError(f"{self.folder}: cannot be written to ({reason}); give another folder with --out")
