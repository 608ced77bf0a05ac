"""Results as data, and data as text."""

from distcalib.report.bad_records import BadRecords, bad_records
from distcalib.report.comparing import differing, facts, not_comparable
from distcalib.report.exported import ExportedFile, exported_json, exported_lines
from distcalib.report.form import TIMING_KEYS
from distcalib.report.page import page
from distcalib.report.reading import read_report
from distcalib.report.record import (
    CalibrationReport,
    CandidateRecord,
    Changes,
    ClassChange,
    CurvePoint,
    Evaluation,
    LayerDetail,
    LostImage,
    PhaseTime,
    PlainRecord,
    drop_text,
    score_name,
)

__all__ = [
    "TIMING_KEYS",
    "BadRecords",
    "CalibrationReport",
    "CandidateRecord",
    "Changes",
    "ClassChange",
    "CurvePoint",
    "Evaluation",
    "ExportedFile",
    "LayerDetail",
    "LostImage",
    "PhaseTime",
    "PlainRecord",
    "bad_records",
    "differing",
    "drop_text",
    "exported_json",
    "exported_lines",
    "facts",
    "not_comparable",
    "page",
    "read_report",
    "score_name",
]
