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
    ClassChange,
    CurvePoint,
    ExportedFile,
    LayerDetail,
    LostImage,
    PhaseTime,
    PlainRecord,
    page,
)
from tests.report.reports import REPORT

VOID = {"meta", "line", "br", "polyline", "img", "path"}
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
        (replace(REPORT, cpus={"Xeon": 3, "EPYC": 1}), "machines 3 × Xeon, 1 × EPYC actors 2 of"),
        (REPORT, "actors 2 of 1 core each; 1.5 s; 2.50 times an FP32 and an all-INT8 pass"),
        (replace(REPORT, met=False, minimal=False), "tolerance 0.01 not met"),
        (replace(REPORT, distances={"conv2": math.inf, "conv3": 0.5}), "conv2 INT8 – conv3 FP32 0.5"),
        (replace(REPORT, distances={"conv2": 0.0, "conv3": 0.0}), "conv2 INT8 0 conv3 FP32 0"),
        (replace(REPORT, distances={}), "conv3 FP32 with it in INT8 the net loses 0.25 conv2 INT8"),
        (replace(REPORT, distances={"conv3": 0.5}), "loses 0.25 conv2 INT8 –"),  # --keep-int8 conv2
        (replace(REPORT, without_int8_kernel=("conv2",)), "conv2 no INT8 kernel here INT8"),
        (MAP, "cat 0.7500 0.7000 -0.0500 2 0.5000 0.5000 +0.0000 3 no object in the data: counts as 0"),
        (MAP, "AP is taken as 11point."),
        (BY_CLASS, "What changed: accuracy by class From 0 to 1"),
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


DETAIL = LayerDetail("conv1", 0.0, 4.0, 3.0, 0.25, 0.5, (99, 9, 1), 96, (8.0, 2.0))
OPENED = replace(REPORT, layer_details={"conv2": DETAIL, "conv3": replace(DETAIL, sizes=())})


def test_page_opens_a_layer() -> None:
    text = text_of(OPENED)
    assert "conv2 INT8 0.125 reads conv1, 0 to 4; threshold 3, 25 % clipped; widest channel 4 × the median" in text
    assert "|values| that it reads; heights are logarithms threshold 0 3" in text
    assert "largest |weights| of 2 of its 96 channels widest: 8 narrowest" in text
    assert text.count("heights are logarithms") == 1
    assert page(OPENED).count("<details><summary") == page(REPORT).count("<details><summary") + 2
    assert "opens" not in text_of(REPORT)
    assert "threshold, were it INT8" in text_of(replace(OPENED, layer_details={"conv3": DETAIL}))


RAN = replace(
    REPORT,
    phases=(
        PhaseTime("FP32", 0.0, 4.0, 6.0, 1.0, 1.0, 1200, 0.8),
        PhaseTime("inputs", 4.0, 8.0, 0.0, 2.0, 0.0, 0, None),
    ),
    actor_spans=((0, 0, 0.0, 4.0, 4.0), (1, 1, 4.0, 8.0, 2.0)),
    utilisation=0.625,
)


def test_page_draws_actors_over_time_and_tells_what_phases_cost() -> None:
    text = text_of(RAN)
    assert "From the first task to the last the actors worked 62% of the time." in text
    assert "actor 1, inputs: 4.00 to 8.00 s, 50% at work" in text
    assert "FP32 0.0–4.0 8.00 0.80 2.00 1,200 200 inputs 4.0–8.0 2.00 – 2.00 – –" in text
    assert page(RAN).count("<rect") == 4  # two bars, two keys
    assert "are not drawn" not in text
    assert "1,022 actors are not drawn." in text_of(replace(RAN, n_actors=1024))
    assert "What an earlier run had measured is not among it." in text_of(replace(RAN, n_rows_from_journal=3))
    assert "Actors over time" not in text_of(REPORT)


PICTURE = "data:image/png;base64,iVBORw0KGgo="
LOST_CHANGES = replace(
    CHANGED,
    records=(LostImage(3, "'00000003'", 1, 1, 2), LostImage(141, "line 142: 'a.png'", 4, 5, 2), LostImage(592, "")),
    class_changes=(ClassChange(1, 2, 4), ClassChange(5, 2, 2)),
    n_classified=6,
)
LOST = replace(REPORT, changes=LOST_CHANGES, class_names={2: "cat"}, thumbnails={3: PICTURE})


def test_page_shows_lost_images_with_their_keys_and_classes() -> None:
    text = text_of(LOST)
    assert "how many of the 6 lost images" in text
    assert "FP32 delivered images 1 cat 4 5 cat 2" in text
    assert "The first 3, in the order of the data" in text
    assert "'00000003' 1 → cat line 142: 'a.png' 4: 5 → cat image 592" in text
    assert page(LOST).count(f'<img src="{PICTURE}" alt="">') == page(LOST).count("<img") == 1
    assert "by their number in the order of the data" not in text


def test_page_says_where_some_lost_images_stand_for_all() -> None:
    text = text_of(replace(LOST, changes=replace(LOST_CHANGES, lost=1234)))
    assert "of 6 that lie evenly among the 1,234 lost images" in text


@pytest.mark.parametrize(
    "picture", ["https://a.example/x.png", "data:text/html;base64,AAAA", f'{PICTURE}" onerror="alert(1)', "x.png", ""]
)
def test_page_shows_no_picture_from_elsewhere(picture: str) -> None:
    assert "<img" not in page(replace(LOST, thumbnails={3: picture}))


def test_page_lets_nothing_be_run_or_fetched() -> None:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page(REPORT)


def test_page_marks_what_a_class_lost() -> None:
    assert '<td class="n bad">-0.0500</td>' in page(MAP)
    assert '<td class="n">+0.0000</td>' in page(MAP)


@pytest.mark.parametrize("report", [REPORT, MAP, NOTHING_MEASURED, LOST, OPENED, RAN])
def test_page_needs_nothing_else(report: CalibrationReport) -> None:
    made = page(report)
    assert made == page(report)
    assert not re.search(r"https?:|src=(?!.data:image/png;base64,)|href=|<script|@import|url\(", made)


def test_page_shows_a_dash_for_what_is_no_number() -> None:
    broken = CandidateRecord((), 2, False, math.nan, math.inf, "no kernel")
    assert "none 2 – – – could not be run: no kernel" in text_of(replace(REPORT, candidates=(broken,)))


HOSTILE = "</code></pre></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"
TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body h1 h2 h3 p div span b code pre table tr th td details summary br svg line "
        "path rect text circle polyline figure figcaption DOCTYPE",
    )
)


def report_of(name: str) -> CalibrationReport:
    """A report that says `name` wherever a text comes from outside."""
    one = replace(REPORT.candidates[0], fp32_layers=(name,), failed=name)
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
        (*names, "calibration_algo", "weights_channel", "isa", "way", "kernels"), name
    )
    return replace(
        MAP,
        **texts,
        output_weights=name,
        output_weights_sha256=name,
        image_order=name,
        plain=PlainRecord(name, name, 0.5, 0.5),
        met=False,
        int8_layers=(name,),
        fp32_layers=(name + "2",),
        quantizable_layers=(name, name + "2"),
        without_int8_kernel=(name,),
        refused_layers={name: name},
        class_names={1: name, 2: name},
        changes=replace(LOST_CHANGES, records=(LostImage(3, name, 1, 1, 2),)),
        thumbnails={3: name},
        phases=(replace(RAN.phases[0], name=name),),
        actor_spans=RAN.actor_spans,
        layer_details={name: replace(DETAIL, input=name)},
        candidates=(one, *REPORT.candidates),
        distances={name: 1.0},
        pareto=(CurvePoint((name,), 0.5, 0.25, 10.0, True), CurvePoint((name,), 0.5, 0.25, 12.0, True)),
        warnings=(name,),
        flags=(name,),
        versions={"distcalib": name, name: name},
        images_per_second={name: 1.0},
        cpus={name: 1},
        commands={"calibrate": name, "evaluate": name, "export": name},
        bad_records=BadRecords(1, 80, (LeftOut(name, 3, name, name),)),
        exported=(ExportedFile("onnx", name, 1, 2, 3, {name: 0.5}, {name: 0.5}, reason=name),),
    )


def test_page_shows_names_as_they_are() -> None:
    report = report_of(HOSTILE)
    made = page(report)
    assert not re.search(r"<(script|img)|&{{ 49|['\"]&49", made)
    tags = set(re.findall(r"<([A-Za-z0-9]+)", made))
    assert tags <= TAGS
    assert text_of(report).count("<script>alert(1)</script>") >= 30
