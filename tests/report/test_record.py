"""Reports as sentences and as JSON."""

import json
from dataclasses import replace

import pytest

from distcalib.report import CandidateRecord, PlainRecord, drop_text
from tests.report.reports import EVALUATION, REPORT


def test_report_json_tells_of_candidates() -> None:
    text = REPORT.to_json()
    assert text.endswith("}\n")
    assert json.loads(text)["search"]["candidates"][1] == {
        "fp32_layers": ["conv3"],
        "n_int8_layers": 1,
        "meets": True,
        "score": 0.745,
        "drop": 0.005,
        "failed": None,
        "likely_drop": None,
    }


def test_json_has_null_for_what_is_no_number() -> None:
    broken = replace(REPORT, drop=float("inf"), candidates=(CandidateRecord((), 2, False, float("nan"), float("inf")),))
    found = json.loads(broken.to_json(), parse_constant=pytest.fail)
    assert found["score"]["drop"] is None
    assert found["search"]["candidates"][0]["score"] is None
    evaluation = json.loads(EVALUATION.to_json(), parse_constant=pytest.fail)
    assert evaluation["scores"] == {"accuracy": 0.5, "löss": None}
    assert evaluation["loss"] is None


def test_json_nests_the_net_without_force_u8() -> None:
    plain = PlainRecord("net_quantized.prototxt", "1" * 64, 0.75, float("nan"))
    found = json.loads(replace(REPORT, plain=plain).to_json())
    assert found["output"]["plain"] == {
        "output": "net_quantized.prototxt",
        "sha256": "1" * 64,
        "score": 0.75,
        "drop": None,
    }


def test_json_keeps_every_digit() -> None:
    assert json.loads(replace(REPORT, score=0.1 + 0.2).to_json())["score"]["score"] == 0.1 + 0.2


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        pytest.param(
            {},
            "Tolerance 0.01 met: accuracy-top1 0.745 against 0.75 in FP32 (drop 0.005) with 1 of 2 quantizable layers "
            "in INT8; wrote out/net_quantized.prototxt",
            id="met",
        ),
        pytest.param(
            {"met": False, "score": 0.5, "drop": 0.25},
            "Tolerance 0.01 NOT met: accuracy-top1 0.5 against 0.75 in FP32 (drop 0.25) with 1 of 2 quantizable layers "
            "in INT8; wrote out/net_quantized.prototxt",
            id="not_met",
        ),
        pytest.param(
            {"met": None, "score": None, "drop": None, "fp32_score": None},
            "Quantized, not measured: 1 of 2 quantizable layers in INT8; wrote out/net_quantized.prototxt",
            id="not_measured",
        ),
        pytest.param(
            {"metric": "loss", "lower_is_better": True, "score": 1.5, "fp32_score": 1.25, "drop": 0.25, "met": False},
            "Tolerance 0.01 NOT met: loss (lower is better) 1.5 against 1.25 in FP32 (rise 0.25) with 1 of 2 "
            "quantizable layers in INT8; wrote out/net_quantized.prototxt",
            id="loss",
        ),
        pytest.param(
            {"flags": ("first_conv_force_u8",), "output_weights": "out/net_new.caffemodel"},
            "Tolerance 0.01 met: accuracy-top1 0.745 against 0.75 in FP32 (drop 0.005) with 1 of 2 quantizable layers "
            "in INT8; wrote out/net_quantized.prototxt and out/net_new.caffemodel",
            id="force_u8",
        ),
        pytest.param(
            {"flags": ("first_conv_force_u8",)},
            "Tolerance 0.01 met: accuracy-top1 0.745 against 0.75 in FP32 (drop 0.005) with 1 of 2 quantizable layers "
            "in INT8; -fu changed nothing, since the first convolution fell back to FP32; wrote "
            "out/net_quantized.prototxt",
            id="nothing_to_force",
        ),
    ],
)
def test_verdict_is_one_sentence(changes: dict[str, object], verdict: str) -> None:
    assert replace(REPORT, **changes).verdict == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drop", "accuracy", "loss"),
    [(0.002, "drop 0.002", "rise 0.002"), (-0.5, "gain 0.5", "fall 0.5"), (0.0, "no drop", "no rise")],
)
def test_drop_text_tells_better_from_worse(drop: float, accuracy: str, loss: str) -> None:
    assert drop_text(drop) == accuracy
    assert drop_text(drop, lower_is_better=True) == loss
