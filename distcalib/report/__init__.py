"""Results as data, and data as text."""

from distcalib.report.record import (
    TIMING_KEYS,
    CalibrationReport,
    CandidateRecord,
    CurvePoint,
    Evaluation,
    PlainRecord,
    drop_text,
    score_name,
)

__all__ = [
    "TIMING_KEYS",
    "CalibrationReport",
    "CandidateRecord",
    "CurvePoint",
    "Evaluation",
    "PlainRecord",
    "drop_text",
    "score_name",
]
