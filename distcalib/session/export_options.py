"""What is exported, where to, and how it is measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distcalib.actors.isa import known_isa
from distcalib.errors import OptionError
from distcalib.exporters.building import DYNAMIC
from distcalib.exporters.preprocess import FORMS
from distcalib.exporters.runtimes import need_onnx
from distcalib.metrics import DEFAULT_AP
from distcalib.session.checks import check_ap_version
from distcalib.session.options import SessionOptions

TARGETS = ("openvino", "onnx")
"""What a net can be exported to."""
ACCEPTED_DROP: Mapping[str, float] = {"openvino": 0.0005, "onnx": 0.001}
"""What a file may lose by default against the prototxt."""


@dataclass(frozen=True)
class ExportOptions(SessionOptions):
    """What the flags of the same names say; see `distcalib export --help`.  Raises OptionError.

    distcalib.ExportOptions(to=["onnx"], out="folder")
    """

    to: tuple[str, ...] = ("openvino",)
    out: Path = Path(".")
    outputs: tuple[str, ...] | None = None
    batch: int | str | None = None
    accept_drop: float | None = None
    preprocess: str | None = None
    ap_version: str = DEFAULT_AP

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ap_version(self.ap_version, self.root)
        known_isa(self.isa)
        if self.root is not None:
            raise OptionError("-r: an exported file is measured beside the embedded engine; leave it out")
        unknown = [name for name in self.to if name not in TARGETS]
        if unknown:
            raise OptionError(f"--to {', '.join(unknown)}: unknown; choose {' or '.join(TARGETS)}")
        if not self.to:
            raise OptionError(f"--to: names nothing; choose {' or '.join(TARGETS)}")
        if isinstance(self.batch, int) and self.batch < 1:
            raise OptionError(f"--batch {self.batch}: must be at least 1, or {DYNAMIC}")
        if isinstance(self.batch, str) and self.batch != DYNAMIC:
            raise OptionError(f"--batch {self.batch}: must be a whole number, or {DYNAMIC}")
        if self.accept_drop is not None and not 0.0 <= self.accept_drop < math.inf:
            raise OptionError(f"--accept-drop {self.accept_drop:g}: must be 0 or more; 0.001 is a tenth of a point")
        if self.preprocess is not None and self.preprocess not in FORMS:
            raise OptionError(f"--preprocess {self.preprocess}: unknown; choose {', '.join(FORMS[:-1])} or {FORMS[-1]}")
        if "onnx" in self.to:
            need_onnx()

    def drop_of(self, target: str) -> float:
        """What a file of `target` may lose."""
        return ACCEPTED_DROP[target] if self.accept_drop is None else self.accept_drop


def given(options: ExportOptions | None) -> ExportOptions:
    """`options`, by default all as they are by default.  Raises OptionError for another type."""
    if options is None:
        return ExportOptions()
    if not isinstance(options, ExportOptions):
        raise OptionError(f"options={options!r}: must be ExportOptions, such as ExportOptions(to=['onnx'], out='DIR')")
    return options
