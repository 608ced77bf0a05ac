"""`calibrate --export`: the delivered net in files too, measured.

By a session of its own, after the prototxt and its report are written: whatever becomes of the files, the calibration
is there.
"""

from dataclasses import replace
from pathlib import Path

from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.report_builder import Exported
from distcalib.session.export import export
from distcalib.session.export_options import ExportOptions
from distcalib.session.progress import Reporter


def exported_files(
    model: str | Path, weights: str | Path, options: CalibrationOptions, folder: Path, reporter: Reporter
) -> Exported:
    """Export the delivered net `model` into `folder`.  Raises what `export` raises."""
    asked = ExportOptions.of(options, to=options.export, out=folder)
    files = export(model, weights, asked, reporter=reporter)
    speeds = {
        f"{one.target} {kind}": rate
        for one in files
        for kind, rate in (("FP32", one.images_per_second_fp32), ("INT8", one.images_per_second))
        if rate is not None
    }
    timeless = tuple(replace(one, images_per_second=None, images_per_second_fp32=None) for one in files)
    return Exported(timeless, speeds)
