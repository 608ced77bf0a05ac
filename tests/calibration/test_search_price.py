"""What a ranked search tells of its set, and -a auto against DIRECT."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distcalib.caffe.graph import Blob
from distcalib.calibration.algorithms import Chosen
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.results import Observed, SearchResult
from distcalib.calibration.search_driver import Searching
from distcalib.calibration.search_price import better_search, noise, noise_of, price_warnings
from distcalib.metrics import Partial
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.candidate import Candidate, Space
from distcalib.quantize.scales import Calibration
from distcalib.report import Changes
from distcalib.search import Measurement, Ranking
from distcalib.search.price import LEAST, Loss


def test_noise_is_that_of_paired_iterations() -> None:
    fp32 = [Partial(n, 10) for n in (9, 8, 10, 9)]
    other = [Partial(n, 10) for n in (8, 8, 8, 9)]
    # differences -1, 0, -2, 0: of mean -0.75 and variance 0.9167
    found = noise(fp32, other)
    assert found is not None
    assert found[0] == pytest.approx(math.sqrt(4 * 11 / 12) / 40)
    assert found[1] == 40
    assert noise(fp32[:1], other[:1]) is None
    assert noise(fp32, [Partial(1, 9)] * 4) is None


NAMES = tuple(f"l{i:02}" for i in range(12))
DROPS = {0: 0.04, 1: 0.037, 2: 0.018, 5: 0.012, 10: 0.009}


def test_noise_of_images_is_that_of_those_that_changed() -> None:
    """5 lost and 1 gained of 900: the difference of an image is -1, 0 or 1, of variance 6/900 - (4/900)^2."""
    found, n = noise_of(Changes(900, 5, 1, 0.0, 0.0, 1.0, ()))
    assert n == 900
    assert found == pytest.approx(math.sqrt((6 / 900 - (4 / 900) ** 2) / 900))


class Stand:
    """A search that knows the drop of so many layers in FP32; the images are taken in the order of the data."""

    def __init__(self, tolerance: float = 0.01, strategy: str = "ranked", about: bool = False) -> None:
        self.about, self.hard_first = about, False
        start = Space(NAMES, {}).all_int8
        self.programs = SimpleNamespace(start=start)
        options = SimpleNamespace(strategy=strategy, accuracy_loss=tolerance)
        self.goal = SimpleNamespace(options=options, metric="top1")
        before, after = ([Partial(n, 10) for n in row] for row in ((9, 8, 10, 9), (8, 8, 8, 9)))
        self.fp32 = Fp32Pass(0.9, before)
        self.board = self
        self.result = SearchResult(start.without(*NAMES[:10]), values=after)

    def ranked(self, _: object) -> Ranking:
        return Ranking({name: 20.0 - i for i, name in enumerate(NAMES)}, dict.fromkeys(NAMES, 1))

    def measurement(self, candidate: Candidate) -> Measurement:
        drop = DROPS[len(candidate.fp32_layers)]
        return Measurement(candidate, 0.9 - drop, drop)

    def is_known(self, _: object) -> bool:
        return False

    def losses(self, _: str, candidates: list[Candidate]) -> list[Loss]:
        return [Loss(one, DROPS[len(one.fp32_layers)], self.about) for one in candidates]

    def warnings(self, result: SearchResult | None = None) -> tuple[str, ...]:
        return price_warnings(cast(Searching, self), result or self.result, None)


def test_what_the_last_layers_bought_is_told() -> None:
    noisy, knee = Stand().warnings()
    assert noisy == (
        "-l 0.01 is below the noise of 40 labels: the drop is known within 0.048; give more data, or all there are "
        "(without -i)"
    )
    assert knee == (
        "8 of the 10 layers in FP32 win 0.009 of top1 together; with 2 (l00, l01) the drop is 0.018, and -l 0.018 "
        "would deliver as few"
    )
    assert Stand(about=True).warnings()[1] == (
        "8 of the 10 layers in FP32 win about 0.009 of top1 together; with 2 (l00, l01) the drop is about 0.018, and "
        "-l 0.02 would probably deliver as few"
    )


def test_nothing_is_told_of_few_layers_of_another_strategy_or_of_a_search_that_was_ended() -> None:
    quiet = Stand(tolerance=0.05)
    assert quiet.warnings(replace(quiet.result, winner=quiet.programs.start)) == ()
    assert [told.split()[0] for told in quiet.warnings()] == ["8"]
    few = replace(quiet.result, winner=quiet.programs.start.without(*NAMES[: LEAST - 1]))
    assert quiet.warnings(few) == ()
    assert quiet.warnings(replace(quiet.result, stopped_by="--max-time 1")) == ()
    assert Stand(strategy="greedy").warnings() == ()


class Auto:
    """A search of the all-INT8 net, and another one with DIRECT."""

    def __init__(self, drop: float, of_direct: float = math.inf) -> None:
        self.programs = SimpleNamespace(start=Space(NAMES, {}).all_int8)
        self.drop, self.of_direct = drop, of_direct
        self.label, self.notes = "", list[str]()
        self.meter = SimpleNamespace(note=self.notes.append)
        self.goal = Goal("top1", False, CalibrationOptions(accuracy_loss=0.01))

    def other(self, label: str, calibration: Any) -> Auto:
        assert calibration.choice == Choice("DIRECT")
        found = Auto(self.of_direct)
        found.label = label
        return found

    def losses(self, _: None, candidates: list[Candidate]) -> list[Loss]:
        return [Loss(one, self.drop, about=self.drop > 0.01) for one in candidates]


@pytest.mark.parametrize(
    ("auto", "of_direct", "kept"),
    [
        pytest.param(0.2, 0.1, "DIRECT", id="better"),
        pytest.param(0.2, 0.4, "auto", id="worse"),
        pytest.param(0.2, 0.2, "auto", id="alike"),
        pytest.param(0.01, 0.0, "DIRECT", id="better, and auto meets the tolerance"),
        pytest.param(0.01, 0.02, "auto", id="auto alone meets the tolerance"),
        pytest.param(0.02, 0.01, "DIRECT", id="DIRECT alone meets the tolerance"),
        pytest.param(math.inf, 0.4, "DIRECT", id="auto cannot be run"),
        pytest.param(0.2, math.inf, "auto", id="DIRECT cannot be run"),
    ],
)
def test_auto_keeps_direct_where_it_loses_less(auto: float, of_direct: float, kept: str) -> None:
    blob = Blob("data", 0)
    calibration = Calibration(cast(Any, None), {}, {}, choice=Choice("KL"))
    observed = Observed(calibration, chosen=Chosen(Choice("KL"), (blob,), {"KL": 0.1}))
    searching = Auto(auto, of_direct)
    better = list(better_search(cast(Searching, searching), observed))
    assert len(better) == len(searching.notes) == (kept == "DIRECT")
    for found, seen in better:
        assert found.label == ""
        assert seen.chosen is not None
        assert (seen.calibration.choice, seen.chosen.algorithms) == (Choice("DIRECT"), {str(blob): "DIRECT"})
        assert searching.notes[0].startswith("auto: with DIRECT for all blobs all INT8 loses")


def test_the_choice_stands_where_it_is_direct_or_biases_were_corrected_for_it() -> None:
    searching = cast(Searching, Auto(0.4, 0.0))
    calibration = Calibration(cast(Any, None), {}, {}, choice=Choice("KL"))
    chosen = Chosen(Choice("KL"), (Blob("data", 0),), {})
    for observed in (
        Observed(calibration),
        Observed(calibration, chosen=replace(chosen, choice=Choice("DIRECT"))),
        Observed(replace(calibration, corrected={"l00": ()}), chosen=chosen),
    ):
        assert list(better_search(searching, observed)) == []
