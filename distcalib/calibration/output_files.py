"""Where a calibration writes, and that it can, before hours of work."""

from dataclasses import dataclass
from pathlib import Path

from distcalib.caffe import write_atomically
from distcalib.errors import OutputError
from distcalib.report import CalibrationReport, page
from distcalib.session.checks import check_folder, unwritable

# A dot before it belongs to the name: the predecessor cut `resnet-1.5.prototxt` at the first one.
_SUFFIXES = (".prototxt", ".pbtxt", ".pt", ".txt")


@dataclass(frozen=True)
class Target:
    """Where the results go."""

    model: Path
    out: Path | None
    kind: str = "quantized"
    weights: Path | None = None
    """The caffemodel given, where another may be written beside the net."""

    @property
    def folder(self) -> Path:
        """`--out`, or the model's own folder."""
        return self.out if self.out is not None else self.model.parent

    @property
    def prototxt(self) -> Path:
        """The net to be delivered: MODEL_quantized.prototxt."""
        return self.folder / f"{self._stem}_{self.kind}.prototxt"

    @property
    def forced_prototxt(self) -> Path:
        """The net to be delivered with -fu: MODEL_quantized_force_u8.prototxt."""
        return self.folder / f"{self._stem}_{self.kind}_force_u8.prototxt"

    @property
    def caffemodel(self) -> Path:
        """The weights that belong to it: WEIGHTS_new.caffemodel."""
        if self.weights is None:
            raise AssertionError("no new caffemodel is written in this run")
        return self.folder / f"{self.weights.name.removesuffix('.caffemodel')}_new.caffemodel"

    @property
    def _stem(self) -> str:
        name = self.model.name
        return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)

    @property
    def report(self) -> Path:
        """The report beside it."""
        return self.folder / "report.json"

    @property
    def page(self) -> Path:
        """The report to be looked at."""
        return self.folder / "report.html"

    def check(self) -> None:
        """Raise OutputError now, not after hours, if the results cannot be written in the end; leaves no trace."""
        forced = () if self.weights is None else (self.forced_prototxt, self.caffemodel)
        paths = (self.prototxt, self.report, self.page, *forced)
        check_folder(self.folder, paths)
        for path in paths:
            if self.weights is not None and path.exists() and self.weights.exists() and path.samefile(self.weights):
                raise OutputError(f"{path}: is the caffemodel given, and a file is to be written there; give --out")

    def make_folder(self) -> None:
        """Make the folder if it is not there.  Raises OutputError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def write(self, prototxt: str, report: CalibrationReport) -> None:
        """Write the net and both reports, in the folder made if it is not there.  Raises OutputError."""
        texts = {self.prototxt: prototxt, self.report: report.to_json(), self.page: page(report)}
        self.make_folder()
        for path, text in texts.items():
            write_atomically(path, text)

    def write_reports(self, report: CalibrationReport) -> None:
        """Write both reports again.  Raises OutputError."""
        write_atomically(self.report, report.to_json())
        write_atomically(self.page, page(report))
