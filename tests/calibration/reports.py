"""What two reports of the same calibration have in common."""

import json

from distcalib.report import TIMING_KEYS, CalibrationReport


def lasting(report: CalibrationReport | str, *besides: str) -> dict[str, object]:
    """A report, or the text of one, without what depends on how the run went and on where its files are.

    `besides`: what else is left out.
    """
    found: dict[str, object] = json.loads(report if isinstance(report, str) else report.to_json())
    return {key: value for key, value in found.items() if key not in (*TIMING_KEYS, "output", *besides)}
