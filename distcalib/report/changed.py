"""What the page shows of images that are lost: where they are, how they look, which classes take their places."""

import re
from dataclasses import dataclass

from distcalib.report.record import CalibrationReport

_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*")
"""What may stand in the page: a report.json may come from anybody."""


@dataclass(frozen=True)
class LostRow:
    """A lost image: what it is called, what became of its class, and a picture of it, "" if there is none."""

    name: str
    told: str
    picture: str


@dataclass(frozen=True)
class ClassRow:
    """Lost images that went from one class to another."""

    before: str
    after: str
    count: int
    width: float
    """Of its bar, in percent of the most frequent."""


def lost_rows(report: CalibrationReport) -> list[LostRow]:
    """In the order of the data."""
    if report.changes is None:
        return []
    rows = []
    for one in report.changes.records:
        told = ""
        if one.label is not None and one.fp32_class is not None and one.int8_class is not None:
            told = f"{_class(report, one.fp32_class)} → {_class(report, one.int8_class)}"
            if one.label != one.fp32_class:
                told = f"{_class(report, one.label)}: {told}"
        picture = report.thumbnails.get(one.number, "")
        name = one.key or f"image {one.number}"
        rows.append(LostRow(name, told, picture if _PICTURE.fullmatch(picture) else ""))
    return rows


def class_change_rows(report: CalibrationReport) -> list[ClassRow]:
    """The most frequent first."""
    changes = () if report.changes is None else report.changes.class_changes
    most = max((one.count for one in changes), default=1)
    return [
        ClassRow(_class(report, one.fp32_class), _class(report, one.int8_class), one.count, 100.0 * one.count / most)
        for one in changes
    ]


def _class(report: CalibrationReport, number: int) -> str:
    return report.class_names.get(number, str(number))
