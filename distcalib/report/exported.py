"""What an exported file is worth, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from distcalib.report.bad_records import BadRecords
from distcalib.report.form import json_text


@dataclass(frozen=True)
class ExportedFile:
    """One file, and its scores in its own runtime beside those of the prototxt, over the same iterations.

    `n_int8_kernels` of `n_layers` layers that multiply do so on integers in that runtime; `reason` says why it is not
    `verified`.
    """

    target: str
    path: str
    n_int8_kernels: int
    n_layers: int
    n_bytes: int
    scores: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    drops: Mapping[str, float] = field(default_factory=dict)
    """By score, positive is worse."""
    verified: bool = False
    reason: str = ""
    images_per_second: float | None = None
    """Of one core, the inference alone, in batches of the prototxt's size."""
    images_per_second_fp32: float | None = None
    """Where the net has INT8 layers: the same of the FP32 net in the same runtime."""
    n_iterations: int = 0
    isa: str = ""
    earlier: str = ""
    """Where it is refused: a file of the same name that an earlier export left, and that is not this one."""
    bad_records: BadRecords | None = None
    """Where records that cannot be read are left out: which."""

    @property
    def refused(self) -> bool:
        """Whether it was measured and loses too much."""
        return bool(self.scores) and not self.verified


def exported_json(files: Iterable[ExportedFile]) -> str:
    """For machines: a list, in the order of --to; NaN and infinity are null."""
    entries = [asdict(one) for one in files]
    return json_text(entries)


def exported_lines(one: ExportedFile) -> list[str]:
    """What the terminal shows of a file."""
    kernels = f"{one.n_int8_kernels} of {one.n_layers} multiplying layers on integers"
    shown = [f"{one.path}: {kernels}, {one.n_bytes / 1e6:,.2f} MB"]
    for name, score in one.scores.items():
        shown.append(f"    {name} = {score:.6g}, in the prototxt {one.expected[name]:.6g}")
    if one.images_per_second is not None:
        line = f"    {one.images_per_second:,.0f} images/s of one core"
        if one.images_per_second_fp32 is not None:
            ratio = one.images_per_second / one.images_per_second_fp32
            line += f", {ratio:.2f} times those of FP32 ({one.images_per_second_fp32:,.0f})"
        shown.append(line)
    if one.verified:
        shown.append(f"    verified over {one.n_iterations} iterations")
    elif one.refused:
        shown.append(f"    REFUSED: {one.reason}; the file is kept for a look, do not deploy it")
        if one.earlier:
            shown.append(f"    {one.earlier} is still there, but of an earlier export")
    else:
        shown.append(f"    not measured: {one.reason}")
    return shown
