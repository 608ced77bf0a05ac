"""report.json, read again."""

import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import cattrs

from distcalib.caffe.paths import special
from distcalib.errors import FormatError
from distcalib.report.form import SCHEMA_VERSION, ungrouped
from distcalib.report.record import CalibrationReport

_INFINITE = ("distances", "output_errors")
"""Maps in which null stands for infinity."""


def read_report(path: str | Path) -> CalibrationReport:
    """The report in the file `path`, a report.json.

    Raises FormatError for a file that cannot be read, is not such a JSON, or is of another version of the form.

        distcalib.read_report("out/report.json").fp32_layers
    """
    path = Path(path)
    if kind := special(path, streams=True):
        raise FormatError(f"{path}: is {kind}, not a file; name a file")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not JSON ({error}); give the report.json of a calibration") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if version != SCHEMA_VERSION:
        raise FormatError(
            f"{path}: has schema_version {version}, and {SCHEMA_VERSION} is read; calibrate again with this distcalib, "
            "or read it with the one that wrote it"
        )
    try:
        return _structured(ungrouped(fields))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"{path}: is damaged ({reason}); copy it again, or calibrate again") from None


def _structured(fields: dict[str, Any]) -> CalibrationReport:
    for name in _INFINITE:
        fields[name] = {key: math.inf if value is None else value for key, value in fields[name].items()}
    converter, hints = cattrs.Converter(detailed_validation=False), get_type_hints(CalibrationReport)
    return CalibrationReport(**{name: converter.structure(value, hints[name]) for name, value in fields.items()})
