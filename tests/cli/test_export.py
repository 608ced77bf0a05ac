"""`distcalib export` and `distcalib verify` print the scores of files, and end with 2 where one is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from distcalib.report import ExportedFile, exported_json, exported_lines
from tests.session.tiny import ITERATIONS, Tiny

FILE = ExportedFile(
    target="openvino",
    path="out/model.xml",
    n_int8_kernels=9,
    n_layers=10,
    n_bytes=123456,
    scores={"accuracy-top1": 0.9},
    expected={"accuracy-top1": 0.9004},
    drops={"accuracy-top1": 0.0004},
    verified=True,
    images_per_second=1234.5,
    images_per_second_fp32=500.0,
    n_iterations=18,
)


def test_exported_lines_show_both_scores() -> None:
    assert exported_lines(FILE) == [
        "out/model.xml: 9 of 10 multiplying layers on integers, 0.12 MB",
        "    accuracy-top1 = 0.9, in the prototxt 0.9004",
        "    1,234 images/s of one core, 2.47 times those of FP32 (500)",
        "    verified over 18 iterations",
    ]


def test_exported_lines_warn_of_what_was_refused() -> None:
    refused = replace(FILE, verified=False, reason="loses more than 0.0001")
    assert refused.refused
    assert exported_lines(refused)[-1] == (
        "    REFUSED: loses more than 0.0001; the file is kept for a look, do not deploy it"
    )


def test_exported_json_has_no_numbers_that_json_lacks() -> None:
    found = json.loads(exported_json([replace(FILE, drops={"loss": float("inf")})]))
    assert found[0]["drops"] == {"loss": None}


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
def test_export_and_verify_print_what_they_measured(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["-i", str(ITERATIONS), "--actors", "1"]
    assert main(["export", *tiny.args, *asked, "--to", "openvino", "--out", str(tmp_path), "--json"]) == OK
    [found] = json.loads(capsys.readouterr().out)
    assert found["verified"] is True
    assert main(["verify", str(tmp_path / "model.xml"), *tiny.args, *asked]) == OK
    assert f"verified over {ITERATIONS} iterations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--to", "openvino"], "--out"),
        (["--out", "x"], "--to"),
        (["--to", "caffe2", "--out", "x"], "caffe2"),
        (["--to", "openvino", "--out", "x", "--batch", "many"], "'many' is neither a whole number nor dynamic"),
    ],
)
def test_export_refuses_arguments(tiny: Tiny, asked: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *tiny.args, *asked]) == ERROR
    assert said in capsys.readouterr().err


def test_verify_refuses_what_is_no_exported_file(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.txt").write_text("", encoding="utf-8")
    (tmp_path / "model.xml").write_text("<no", encoding="utf-8")
    assert main(["verify", str(tmp_path / "model.txt"), *tiny.args]) == ERROR
    assert "is neither a model.xml of OpenVINO nor a model.onnx" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "model.xml"), *tiny.args]) == ERROR
    assert "OpenVINO cannot read it" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none.xml"), *tiny.args]) == ERROR
    assert "none.xml: does not exist" in capsys.readouterr().err
