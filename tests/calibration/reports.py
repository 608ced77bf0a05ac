"""What two reports of the same calibration have in common."""

import json
from pathlib import Path
from typing import Any

from distcalib.report import TIMING_KEYS, CalibrationReport
from distcalib.report.form import ungrouped


def lasting(report: CalibrationReport | str, *besides: str) -> dict[str, object]:
    """A report, or the text of one, without what depends on how the run went and on where its files are.

    `besides`: what else is left out.
    """
    found = ungrouped(json.loads(report if isinstance(report, str) else report.to_json()))
    return {key: value for key, value in found.items() if key not in (*TIMING_KEYS, "output", *besides)}


def fields_of(file: Path) -> dict[str, Any]:
    """The fields of the report.json `file` by their names, whatever their groups."""
    return ungrouped(json.loads(file.read_text(encoding="utf-8")))
