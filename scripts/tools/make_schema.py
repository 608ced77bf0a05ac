"""Write distcalib/report/report.schema.json, the JSON Schema of report.json, from the fields of CalibrationReport.

    python -m scripts.tools.make_schema

Needs pydantic, which `make test` installs.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from distcalib.caffe import write_atomically
from distcalib.report import CalibrationReport
from distcalib.report.form import GROUPS, SCHEMA, SCHEMA_VERSION

_NULLABLE = ("distances", "output_errors")


def schema() -> dict[str, Any]:
    """Of all groups; numbers that are not finite are null."""
    made = TypeAdapter(CalibrationReport).json_schema(mode="validation")
    fields: dict[str, Any] = {name: _without_titles(one) for name, one in made["properties"].items()}
    for name in _NULLABLE:
        fields[name]["additionalProperties"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    groups = {
        group: {
            "type": "object",
            "properties": {name: fields[name] for name in names},
            "required": list(names),
        }
        for group, names in GROUPS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of distcalib calibrate",
        "type": "object",
        "properties": {"schema_version": {"const": SCHEMA_VERSION}, "warnings": fields["warnings"], **groups},
        "required": ["schema_version", "warnings", *GROUPS],
        "$defs": _without_titles(made.get("$defs", {})),
    }


def _without_titles(node: Any) -> Any:
    """Without the titles that repeat the names of keys, and the defaults, which are none of a file."""
    if isinstance(node, Mapping):
        return {key: _without_titles(one) for key, one in node.items() if key not in ("title", "default")}
    return [_without_titles(one) for one in node] if isinstance(node, list) else node


def main() -> None:
    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(SCHEMA, text)


if __name__ == "__main__":
    main()
