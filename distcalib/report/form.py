"""The form of report.json: the fields of a CalibrationReport in groups, and the version of that form.

Everything but the group `run` follows from the inputs, the versions and the instruction set: the same bytes on any
number of actors.  report.schema.json beside this file is its JSON Schema (scripts/tools/make_schema.py).
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
"""Grows when a key is moved, removed or given another meaning; new keys leave it as it is."""
SCHEMA = Path(__file__).with_name("report.schema.json")

GROUPS: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "weights"),
    "output": ("output", "sha256", "output_weights", "output_weights_sha256", "plain"),
    "score": (
        "metric",
        "lower_is_better",
        "tolerance",
        "met",
        "fp32_score",
        "all_int8_score",
        "all_int8_score_given",
        "score",
        "drop",
        "changes",
        "ap_version",
        "fp32_average_precisions",
        "average_precisions",
        "classes_without_objects",
        "class_names",
        "fp32_class_accuracies",
        "class_accuracies",
        "classes_without_labels",
    ),
    "layers": (
        "quantizable_layers",
        "int8_layers",
        "fp32_layers",
        "refused_layers",
        "without_int8_kernel",
        "equalized_layers",
        "corrected_layers",
        "distances",
        "layer_details",
    ),
    "calibration": (
        "weights_channel",
        "flags",
        "recover",
        "calibration_algo",
        "algorithms",
        "output_errors",
        "n_sampled",
    ),
    "search": ("strategy", "confidence", "minimal", "stopped_by", "image_order", "candidates", "layers_saved"),
    "data": ("n_iterations", "batch", "bad_records"),
    "environment": ("isa", "way", "kernels", "versions"),
    "export": ("exported",),
    "run": (
        "n_actors",
        "n_retired",
        "cores_per_actor",
        "seconds",
        "cost_passes",
        "images_per_second",
        "pareto",
        "exported_images_per_second",
        "n_rows_from_journal",
        "core_images_per_second",
        "layer_seconds",
        "cpus",
        "candidate_shares",
        "commands",
        "phases",
        "actor_spans",
        "utilisation",
    ),
    "pictures": ("thumbnails",),
}
"""The keys of each group, which are the names of the fields."""
_NUMBERS = re.compile(r"\[(\n[-+.0-9eE,\s]+)\]")
"""A list of numbers over several lines, which no string has: a newline in one is escaped."""
_LATER = frozenset({"pictures"})
"""Groups that an earlier distcalib did not write."""
TIMING_KEYS = GROUPS["run"]
"""The fields that depend on the machine and its mood."""


def grouped(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a report as report.json has them.  `warnings` stand alone, first."""
    grouped = {"schema_version": SCHEMA_VERSION, "warnings": fields["warnings"]}
    return grouped | {group: {name: fields[name] for name in names} for group, names in GROUPS.items()}


def ungrouped(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a report from what report.json has, those that an earlier distcalib did not write left out.

    Raises KeyError or TypeError where a group is missing.
    """
    fields = {"warnings": found["warnings"]}
    there = {group: {} if group in _LATER and group not in found else found[group] for group in GROUPS}
    return fields | {n: there[group][n] for group, names in GROUPS.items() for n in names if n in there[group]}


def json_text(value: object) -> str:
    """`value` as JSON text: two spaces, lists of numbers in one line, a newline at the end.

    NaN and infinity, which JSON has not, are null.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
