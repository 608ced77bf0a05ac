"""report.html: what it shows of a report, and that it is one sound file."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from distcalib.data import LeftOut
from distcalib.report import (
    BadRecords,
    CalibrationReport,
    CandidateRecord,
    Changes,
    CurvePoint,
    ExportedFile,
    PlainRecord,
    page,
)
from tests.report.reports import REPORT

VOID = {"meta", "line", "br", "polyline"}
MAP = replace(
    REPORT,
    metric="mAP",
    ap_version="11point",
    fp32_average_precisions={1: 0.75, 2: 0.5},
    average_precisions={1: 0.7, 2: 0.5},
    classes_without_objects=(3,),
    class_names={1: "cat"},
)
BY_CLASS = replace(
    REPORT,
    fp32_class_accuracies={0: 0.75, 2: 1.0},
    class_accuracies={0: 0.5, 2: 1.0},
    classes_without_labels=(1,),
)
NOTHING_MEASURED = replace(
    REPORT,
    metric="",
    fp32_score=None,
    all_int8_score=None,
    score=None,
    drop=None,
    met=None,
    minimal=False,
    candidates=(),
    distances={},
    cost_passes=None,
    images_per_second={},
)


class Text(HTMLParser):
    """The text of a page; fails where a tag is not closed or not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data.split()


def text_of(report: CalibrationReport) -> str:
    """What a reader sees, words with one space between."""
    reader = Text()
    reader.feed(page(report))
    reader.close()
    assert reader.open == []
    return " ".join(reader.words)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (REPORT, "Tolerance 0.01 met: accuracy-top1 0.745 against 0.75 in FP32"),
        (REPORT, "In FP32: conv3 . With it in INT8 the tolerance is missed, which was measured."),
        (REPORT, "1 more layer was not tried conv1 first convolution"),
        (REPORT, "All 2, in the order in which they were asked for"),
        (replace(REPORT, candidate_shares=(0.25, 1.0)), "1 none 2 25% 0.5 0.25 missed 2 conv3 1 100% 0.745 0.005 met"),
        (replace(REPORT, quantizable_layers=("conv3", "conv2")), "conv3 FP32 0.5 with it in INT8 the net loses 0.25"),
        (REPORT, "all INT8 0.5 drop 0.25 delivered 0.745 drop 0.005"),
        (replace(REPORT, commands={"evaluate": "distcalib evaluate -m x"}), "all its scores distcalib evaluate -m x"),
        (replace(REPORT, met=False, commands={"calibrate": "C -l 1"}), "C -l 1 --recover"),
        (replace(REPORT, met=False), "has a drop 0.005: it meets -l 0.005 and more"),
        (replace(REPORT, met=False, drop=0.184444444444), "has a drop 0.184444: it meets -l 0.1845 and more"),
        (replace(REPORT, met=False, drop=1e-9), "it meets -l 1e-09 and more"),
        (replace(REPORT, candidates=REPORT.candidates[1:]), "The only one"),
        (REPORT, "conv2 INT8 0.125 conv3 FP32 0.5"),
        (REPORT, "actors 2 of 1 core each; 1.5 s; 2.50 times an FP32 and an all-INT8 pass"),
        (replace(REPORT, met=False, minimal=False), "tolerance 0.01 not met"),
        (replace(REPORT, distances={"conv2": math.inf, "conv3": 0.5}), "conv2 INT8 – conv3 FP32 0.5"),
        (replace(REPORT, distances={"conv2": 0.0, "conv3": 0.0}), "conv2 INT8 0 conv3 FP32 0"),
        (replace(REPORT, distances={}), "conv3 FP32 with it in INT8 the net loses 0.25 conv2 INT8"),
        (replace(REPORT, distances={"conv3": 0.5}), "loses 0.25 conv2 INT8 –"),  # --keep-int8 conv2
        (replace(REPORT, without_int8_kernel=("conv2",)), "conv2 no INT8 kernel here INT8"),
        (MAP, "cat 0.7500 0.7000 -0.0500 2 0.5000 0.5000 +0.0000 3 no object in the data: counts as 0"),
        (MAP, "AP is taken as 11point."),
        (BY_CLASS, "Accuracy by class From 0 to 1"),
        (BY_CLASS, "0 0.7500 0.5000 -0.2500 1 no label in the data 2 1.0000 1.0000 +0.0000"),
        (replace(REPORT, warnings=("4 labels cannot tell",)), "Warning 4 labels cannot tell"),
        (NOTHING_MEASURED, "Quantized, not measured: 1 of 2 quantizable layers in INT8"),
        (replace(REPORT, lower_is_better=True, metric="loss"), "loss (lower is better)"),
        (
            replace(REPORT, bad_records=BadRecords(1, 80, (LeftOut("data", 3, "00", "is not a Datum"),))),
            "1 of 80 records",
        ),
        (replace(REPORT, output_weights="w_new.caffemodel", output_weights_sha256="1" * 64), "w_new.caffemodel"),
        (
            replace(REPORT, plain=PlainRecord("plain.prototxt", "2" * 64, 0.7, 0.05)),
            "without -fu plain.prototxt : 0.7 SHA-256 222",
        ),
        (
            replace(REPORT, candidates=(CandidateRecord((), 2, False, None, None, "no kernel"), *REPORT.candidates)),
            "could not be run: no kernel",
        ),
    ],
)
def test_page_tells(report: CalibrationReport, told: str) -> None:
    assert told in text_of(report)


def circles(report: CalibrationReport) -> list[str]:
    """The classes of all points, in the order in which they are drawn."""
    return re.findall(r'<circle class="([^"]*)"', page(report))


def test_page_draws_what_was_measured_and_the_delivered_one_last() -> None:
    others = (
        CandidateRecord(("conv2",), 1, False, None, None),
        CandidateRecord(("conv3",), 1, True, 0.745, 0.005),
        CandidateRecord(("conv2", "conv3"), 0, True, math.nan, math.inf, "died"),
        CandidateRecord((), 2, False, 0.5, 0.25),
    )
    assert circles(replace(REPORT, candidates=others)) == ["good", "bad", "good chosen"]  # FP32 first
    assert circles(replace(REPORT, candidates=others[:2])) == ["good", "good chosen"]
    assert circles(replace(REPORT, candidates=others[:1])) == []  # FP32 alone is no picture


def test_page_draws_what_is_estimated_as_such() -> None:
    stopped = CandidateRecord((), 2, False, None, None, None, likely_drop=0.125)
    assert circles(replace(REPORT, candidates=(stopped,))) == ["good", "bad about"]
    assert "none 2 – – about 0.12 missed" in text_of(replace(REPORT, candidates=(stopped,)))


def test_page_draws_the_curve() -> None:
    curve = (
        CurvePoint((), 0.5, 0.25, 200.0, True),
        CurvePoint(("conv3",), 0.745, 0.005, 150.0, True),
        CurvePoint(("conv2", "conv3"), 0.75, 0.0, 100.0, True),
    )
    assert circles(replace(REPORT, pareto=curve)).count("good chosen") == 2  # in both pictures
    assert "Accuracy against speed" in text_of(replace(REPORT, pareto=curve))
    assert "Accuracy against speed" not in text_of(REPORT)


TIMED = replace(REPORT, core_images_per_second={"FP32": 100.0, "all INT8": 250.0, "delivered": 150.0})
CHANGED = Changes(800, 6, 2, -0.001, 0.0114, 0.289, (3, 141, 592))


def test_page_tells_how_fast_the_nets_are() -> None:
    text = text_of(TIMED)
    assert "FP32 0.75 100 images/s all INT8 0.5 drop 0.25 250 images/s 2.50 times FP32 delivered 0.745" in text
    assert "drop 0.005 150 images/s 1.50 times FP32" in text
    assert circles(TIMED)[:3] == ["good", "bad", "good chosen"]
    assert "images/s of one core" not in text_of(REPORT)


def test_page_draws_all_int8_where_its_loss_is_estimated() -> None:
    stopped = CandidateRecord((), 2, False, None, None, None, likely_drop=0.125)
    report = replace(TIMED, all_int8_score=None, candidates=(stopped, REPORT.candidates[1]))
    assert circles(report)[:3] == ["good", "bad about", "good chosen"]
    assert "all INT8 – loses too much, about 0.12 250 images/s" in text_of(report)


@pytest.mark.parametrize(("p_value", "said"), [(0.289, "may be chance (p = 0.29)"), (0.01, "is more than chance")])
def test_page_tells_what_changed(p_value: float, said: str) -> None:
    text = text_of(replace(REPORT, changes=replace(CHANGED, p_value=p_value)))
    assert "Of 800 images 6 that FP32 has right are lost, and 2 that it has wrong are gained." in text
    assert "between -0.001 and 0.0114 with 95 % confidence" in text
    assert said in text
    assert "The first 3 lost, by their number in the order of the data, from 0 3, 141, 592" in text
    assert "What changed" not in text_of(REPORT)


@pytest.mark.parametrize("report", [REPORT, MAP, NOTHING_MEASURED])
def test_page_needs_nothing_else(report: CalibrationReport) -> None:
    made = page(report)
    assert made == page(report)
    assert not re.search(r"https?:|src=|href=|<script|@import|url\(", made)


def test_page_shows_a_dash_for_what_is_no_number() -> None:
    broken = CandidateRecord((), 2, False, math.nan, math.inf, "no kernel")
    assert "none 2 – – – could not be run: no kernel" in text_of(replace(REPORT, candidates=(broken,)))


HOSTILE = "</code></pre></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"
TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body h1 h2 p div span b code pre table tr th td details summary br svg line text "
        "circle polyline DOCTYPE",
    )
)


def test_page_shows_names_as_they_are() -> None:
    one = replace(REPORT.candidates[0], fp32_layers=(HOSTILE,), failed=HOSTILE)
    names = (
        "model",
        "weights",
        "output",
        "sha256",
        "metric",
        "ap_version",
        "stopped_by",
        "strategy",
        "calibration_algo",
    )
    texts: dict[str, Any] = dict.fromkeys(
        (*names, "calibration_algo", "weights_channel", "isa", "way", "kernels"), HOSTILE
    )
    report = replace(
        MAP,
        **texts,
        output_weights=HOSTILE,
        output_weights_sha256=HOSTILE,
        image_order=HOSTILE,
        plain=PlainRecord(HOSTILE, HOSTILE, 0.5, 0.5),
        met=False,
        int8_layers=(HOSTILE,),
        fp32_layers=(HOSTILE + "2",),
        quantizable_layers=(HOSTILE, HOSTILE + "2"),
        without_int8_kernel=(HOSTILE,),
        refused_layers={HOSTILE: HOSTILE},
        class_names={1: HOSTILE},
        candidates=(one, *REPORT.candidates),
        distances={HOSTILE: 1.0},
        pareto=(CurvePoint((HOSTILE,), 0.5, 0.25, 10.0, True), CurvePoint((HOSTILE,), 0.5, 0.25, 12.0, True)),
        warnings=(HOSTILE,),
        flags=(HOSTILE,),
        versions={"distcalib": HOSTILE, HOSTILE: HOSTILE},
        images_per_second={HOSTILE: 1.0},
        commands={"calibrate": HOSTILE, "evaluate": HOSTILE, "export": HOSTILE},
        bad_records=BadRecords(1, 80, (LeftOut(HOSTILE, 3, HOSTILE, HOSTILE),)),
        exported=(ExportedFile("onnx", HOSTILE, 1, 2, 3, {HOSTILE: 0.5}, {HOSTILE: 0.5}, reason=HOSTILE),),
    )
    made = page(report)
    assert not re.search(r"<(script|img)|&{{ 49|['\"]&49", made)
    tags = set(re.findall(r"<([A-Za-z0-9]+)", made))
    assert tags <= TAGS
    assert text_of(report).count("<script>alert(1)</script>") >= 30
