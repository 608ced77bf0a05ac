"""report.json: its groups, its schema, and the way back."""

import json
from dataclasses import fields, replace
from math import inf
from pathlib import Path

import jsonschema
import pytest

from distcalib.data import LeftOut
from distcalib.errors import FormatError
from distcalib.report import (
    CalibrationReport,
    CandidateRecord,
    Changes,
    ClassChange,
    CurvePoint,
    ExportedFile,
    LayerDetail,
    LostImage,
    PhaseTime,
    PlainRecord,
    bad_records,
    read_report,
)
from distcalib.report.form import GROUPS, SCHEMA, SCHEMA_VERSION
from scripts.tools.make_schema import schema
from tests.report.reports import REPORT

FULL = replace(
    REPORT,
    plain=PlainRecord("net.prototxt", "1" * 64, 0.75, None),
    fp32_average_precisions={1: 0.5, 20: 0.25},
    class_names={1: "one"},
    fp32_class_accuracies={0: 0.5, 3: 1.0},
    class_accuracies={0: 0.25, 3: 1.0},
    classes_without_labels=(1, 2),
    distances={"conv2": 0.125, "conv3": inf},
    pareto=(CurvePoint(("conv2",), 0.5, 0.25, 10.0, True),),
    bad_records=bad_records([LeftOut("data", 3, "'k3'", "no image")], 10),
    exported=(ExportedFile("onnx", "model.onnx", 1, 2, 3, {"top1": 0.5}, verified=True),),
    warnings=("little data",),
    changes=Changes(
        80, 2, 1, -0.03, 0.06, 1.0, (3, 7), (LostImage(3, "'3'", 1, 1, 2), LostImage(7, "")), (ClassChange(1, 2, 1),), 2
    ),
    layer_details={"conv2": LayerDetail("conv1", -1.0, 2.0, 1.5, None, 0.5, (3, 2, 0, 1), 8, (2.0, 1.0))},
    phases=(PhaseTime("FP32", 0.0, 1.5, 1.0, 0.25, 0.125, 80, None),),
    actor_spans=((0, 0, 0.0, 1.5, 1.375),),
    utilisation=0.5,
    cpus={"Xeon": 2},
    layer_seconds={"conv2": (0.5, 0.25), "": (1.0, 1.0)},
    thumbnails={3: "data:image/png;base64,AAAA"},
    core_images_per_second={"FP32": 10.0},
    candidate_shares=(0.5, 1.0),
    commands={"calibrate": "distcalib calibrate"},
    quantizable_layers=("conv2", "conv3"),
)


def test_every_field_of_a_report_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted([*grouped, "warnings"]) == sorted(field.name for field in fields(CalibrationReport))


def test_report_json_has_its_version_first_and_then_the_groups() -> None:
    found = json.loads(FULL.to_json())
    assert list(found) == ["schema_version", "warnings", *GROUPS]
    assert found["schema_version"] == SCHEMA_VERSION
    assert {group: list(found[group]) for group in GROUPS} == {group: list(names) for group, names in GROUPS.items()}


@pytest.mark.parametrize(
    "report", [REPORT, FULL, replace(FULL, met=None, score=None)], ids=["plain", "full", "quantized"]
)
def test_read_report_gives_the_report_that_was_written(report: CalibrationReport, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == report


def test_read_report_reads_what_an_earlier_distcalib_wrote(tmp_path: Path) -> None:
    found = json.loads(FULL.to_json())
    del found["score"]["changes"], found["run"]["commands"], found["run"]["core_images_per_second"], found["pictures"]
    (tmp_path / "report.json").write_text(json.dumps(found), encoding="utf-8")
    expected = replace(FULL, changes=None, commands={}, core_images_per_second={}, thumbnails={})
    assert read_report(tmp_path / "report.json") == expected


def test_read_report_reads_changes_of_an_earlier_distcalib(tmp_path: Path) -> None:
    found = json.loads(FULL.to_json())
    for name in ("records", "class_changes", "n_classified"):
        del found["score"]["changes"][name]
    (tmp_path / "report.json").write_text(json.dumps(found), encoding="utf-8")
    assert read_report(tmp_path / "report.json").changes == Changes(80, 2, 1, -0.03, 0.06, 1.0, (3, 7))


def test_report_json_has_a_list_of_numbers_in_a_line() -> None:
    text = replace(FULL, model="[\n 1,\n 2]").to_json()
    assert '        "sizes": [3, 2, 0, 1],\n' in text
    assert '        "channels": [2.0, 1.0]\n' in text
    assert json.loads(text)["model"]["model"] == "[\n 1,\n 2]"


def test_report_json_follows_its_schema() -> None:
    known = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for report in (REPORT, FULL):
        jsonschema.validate(json.loads(report.to_json()), known)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(REPORT.to_json()), "score": {"metric": 1}}, known)


def test_the_schema_is_that_of_the_fields() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema(), "python -m scripts.tools.make_schema"


def test_a_candidate_that_could_not_be_run_has_no_drop(tmp_path: Path) -> None:
    report = replace(REPORT, candidates=(CandidateRecord((), 2, False, None, inf, "EngineError"),))
    (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
    assert read_report(tmp_path / "report.json").candidates[0].drop is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "is not JSON", id="empty"),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
        pytest.param("[]", "has schema_version None, and 1 is read", id="list"),
        pytest.param('{"score": 0.5}', "has schema_version None, and 1 is read", id="without_a_version"),
        pytest.param('{"schema_version": 2}', "has schema_version 2, and 1 is read", id="of_another_version"),
        pytest.param('{"schema_version": 1, "warnings": []}', r"is damaged \(KeyError: 'model'\)", id="no_group"),
        pytest.param(
            REPORT.to_json().replace('"tolerance": 0.01', '"tolerance": "x"'), "is damaged .ValueError", id="no_number"
        ),
        pytest.param(REPORT.to_json().replace('"distances": {', '"distances": 3, "x": {'), "is damaged", id="no_map"),
    ],
)
def test_read_report_refuses_what_is_no_report(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=f"report.json: {said}"):
        read_report(tmp_path / "report.json")


def test_read_report_names_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"report\.json: cannot be read .No such file or directory.; check the path"):
        read_report(tmp_path / "report.json")
