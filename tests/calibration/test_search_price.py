"""What a ranked search tells of its set, and -a auto against DIRECT."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.search_driver import Searching
from distcalib.calibration.search_price import noise, noise_of, price_warnings
from distcalib.metrics import Partial
from distcalib.quantize.candidate import Candidate, Space
from distcalib.report import Changes
from distcalib.search import Measurement, Ranking
from tests.calibration.test_calibrate import Notes
from tests.session.tiny import ITERATIONS, Tiny

pytestmark = pytest.mark.usefixtures("one_ray")


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
    """A search that knows the drop of so many layers in FP32."""

    def __init__(self, tolerance: float = 0.01, strategy: str = "ranked") -> None:
        start = Space(NAMES, {}).all_int8
        self.programs = SimpleNamespace(start=start)
        self.winner = start.without(*NAMES[:10])
        options = SimpleNamespace(strategy=strategy, accuracy_loss=tolerance)
        parts = [[Partial(n, 10) for n in row] for row in ((9, 8, 10, 9), (8, 8, 8, 9))]
        self.measuring = SimpleNamespace(
            options=options,
            stopped_by=None,
            metric="top1",
            fp32_values=parts[0],
            winner_values=parts[1],
            image_order=None,
        )

    def ranking(self, _: object) -> Ranking:
        return Ranking({name: 20.0 - i for i, name in enumerate(NAMES)}, dict.fromkeys(NAMES, 1))

    def measurement(self, candidate: Candidate) -> Measurement:
        drop = DROPS[len(candidate.fp32_layers)]
        return Measurement(candidate, 0.9 - drop, drop)

    def scores(self, _: str, candidates: list[Candidate]) -> list[Measurement]:
        return [self.measurement(one) for one in candidates]

    def warnings(self, winner: Candidate | None = None) -> tuple[str, ...]:
        return price_warnings(cast(Searching, self), winner or self.winner)


def test_what_the_last_layers_bought_is_told() -> None:
    noisy, knee = Stand().warnings()
    assert noisy == "-l 0.01 is below the noise of 40 labels: the drop is known within 0.048; give more iterations (-i)"
    assert knee == (
        "8 of the 10 layers in FP32 win 0.009 of top1 together; with 2 (l00, l01) the drop is 0.018, and -l 0.018 "
        "would deliver as few"
    )


def test_nothing_is_told_of_few_layers_or_another_strategy() -> None:
    quiet = Stand(tolerance=0.05)
    assert quiet.warnings(quiet.programs.start) == ()
    assert [told.split()[0] for told in quiet.warnings()] == ["8"]
    assert Stand(strategy="greedy").warnings() == ()


@pytest.mark.parametrize(("of_direct", "kept"), [(0.0, "DIRECT"), (0.4, "auto")], ids=["better", "worse"])
def test_auto_keeps_direct_where_it_scores_better(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_direct: float, kept: str
) -> None:
    scores = Searching.scores

    def scored(searching: Searching, phase: str, candidates: list[Candidate]) -> list[Measurement]:
        made = scores(searching, phase, candidates)
        drop = {"all INT8, auto": 0.2, "all INT8, DIRECT": of_direct}.get(phase)
        return made if drop is None else [replace(one, drop=drop) for one in made]

    monkeypatch.setattr(Searching, "scores", scored)
    notes = Notes()
    options = CalibrationOptions(
        iterations=ITERATIONS, calibration_algos="auto", strategy="none", out=tmp_path, n_actors=1
    )
    report = calibrate(tiny.prototxt, tiny.weights, options, reporter=notes)
    told = [note for note in notes.notes if note.startswith("auto: DIRECT for all scores")]
    assert (set(report.algorithms.values()) == {"DIRECT"}) == (kept == "DIRECT")
    assert len(told) == (kept == "DIRECT")
