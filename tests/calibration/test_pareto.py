"""--pareto and --by-time: what is measured, what is predicted, and what the choice is made by."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.layer_ranking import LayerRanking
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.pareto import LayerTimes, best_marked
from distcalib.engine.timing import REST
from distcalib.errors import OptionError
from distcalib.quantize.candidate import Space
from distcalib.report import CurvePoint
from distcalib.search import Ranking
from tests.every import every
from tests.session.tiny import ITERATIONS, QUANTIZABLE, Tiny

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, n_actors=1)
TIMES = LayerTimes(
    {REST: 1.0, "first": 2.0, "a": 4.0, "b": 8.0, "c": 1.0}, {REST: 3.0, "first": 2.5, "a": 1.0, "b": 2.0, "c": 1.5}
)


@pytest.mark.parametrize(
    ("fp32", "expected"),
    [
        pytest.param("", 3.0 + 2.5 + 1.0 + 2.0 + 1.5, id="all_int8"),
        pytest.param("b", (1 + 2 * 3) / 3 + 2.5 + 1.0 + 8.0 + 1.5, id="one_fp32"),
        pytest.param("abc", 1.0 + 2.5 + 4.0 + 8.0 + 1.0, id="all_fp32"),
    ],
)
def test_layer_times_add_up(fp32: str, expected: float) -> None:
    """What can never fall back is as in the INT8 net."""
    assert TIMES.seconds(Space(tuple("abc")).all_int8.without(*fp32)) == pytest.approx(expected)


def test_layer_times_tell_what_int8_saves() -> None:
    assert [TIMES.saved(layer) for layer in "abc"] == [3.0, 6.0, 0.0]
    assert TIMES.saved("unknown") == 0.0


def test_best_marked_are_those_that_no_faster_one_beats() -> None:
    points = [CurvePoint((), 0.0, drop, speed, False) for drop, speed in [(0.3, 9), (0.4, 8), (0.3, 7), (0.1, 6)]]
    assert [point.optimal for point in best_marked(points)] == [True, False, False, True]
    assert best_marked([]) == ()


@pytest.mark.usefixtures("actors")
def test_pareto_has_the_winner_both_ends_and_what_can_be_made_again(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "curve", pareto=True))
    points = {point.fp32_layers: point for point in report.pareto}
    assert points[()].score == report.all_int8_score
    assert points[QUANTIZABLE].drop == 0.0
    assert points[report.fp32_layers].score == report.score
    rates = [point.images_per_second for point in report.pareto]
    assert rates == sorted(rates, reverse=True)
    assert every(rate > 0 for rate in rates)
    assert report.pareto[0].optimal
    assert len(report.candidates) < len(points) + 2, "what the curve measures is no part of the search"
    [two] = [point for point in report.pareto if len(point.fp32_layers) == 2]
    options = replace(OPTIONS, out=tmp_path / "again", keep_fp32=two.fp32_layers, strategy="none")
    assert calibrate(tiny.prototxt, tiny.weights, options).score == two.score


@pytest.mark.usefixtures("actors")
def test_by_time_searches_by_what_was_measured(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milliseconds of each layer, as nanoseconds."""
    fp32 = {name: 0.001 * (i + 2) for i, name in enumerate(QUANTIZABLE)}
    times = LayerTimes({REST: 1.0, **fp32}, {REST: 1.0, **dict.fromkeys(QUANTIZABLE, 0.001)})
    monkeypatch.setattr("distcalib.calibration.search_stage.layer_times", lambda *_: times)
    made: list[Ranking] = []
    of = LayerRanking.of

    def seen(self: LayerRanking, *args: Any) -> Ranking:
        made.append(of(self, *args))
        return made[-1]

    monkeypatch.setattr(LayerRanking, "of", seen)
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, by_time=True))
    assert report.fp32_layers == ("conv3",)
    assert report.flags == ("by_time",)
    assert report.pareto == ()
    assert made[0].work == {name: 1_000_000 * (i + 1) for i, name in enumerate(QUANTIZABLE)}


def test_pareto_without_measuring_is_refused() -> None:
    with pytest.raises(OptionError, match="--pareto: measures, and -q"):
        replace(OPTIONS, quantize_model=True, pareto=True)
