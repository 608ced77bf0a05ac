"""`calibrate --export`: the delivered net in files too, measured, and the report with what they are worth.

By a session of its own, after the prototxt and its report are written: whatever becomes of the files, the calibration
is there.
"""

from dataclasses import replace
from pathlib import Path

from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.output_files import Target
from distcalib.report import CalibrationReport
from distcalib.session.export import export
from distcalib.session.export_options import ExportOptions
from distcalib.session.progress import Reporter


def with_files(
    report: CalibrationReport, weights: Path, options: CalibrationOptions, target: Target, reporter: Reporter
) -> CalibrationReport:
    """Export what `report` says was written, and write the report again with it.  Raises what `export` raises."""
    asked = ExportOptions.of(options, to=options.export, out=target.folder)
    files = export(report.output, report.output_weights or weights, asked, reporter=reporter)
    speeds = {
        f"{one.target} {kind}": rate
        for one in files
        for kind, rate in (("FP32", one.images_per_second_fp32), ("INT8", one.images_per_second))
        if rate is not None
    }
    timeless = tuple(replace(one, images_per_second=None, images_per_second_fp32=None) for one in files)
    report = replace(report, exported=timeless, exported_images_per_second=speeds)
    target.write_reports(report)
    return report
