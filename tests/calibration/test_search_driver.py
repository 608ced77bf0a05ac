"""The driver between strategies and actors: what is measured, when it stops, and what the report says of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate, run_calibration
from distcalib.calibration.candidate_net import deliver
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.search_driver import Switches
from distcalib.errors import OptionError
from distcalib.report import CalibrationReport
from tests.calibration.disturbed import shuffle_answers
from tests.calibration.test_calibrate import without_times
from tests.every import every
from tests.session.tiny import ITERATIONS, QUANTIZABLE, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, n_actors=1)


@pytest.fixture(scope="module")
def ranked(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    """A run of the default strategy on one actor."""
    out = tmp_path_factory.mktemp("ranked")
    return calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=out))


def test_ranked_finds_the_layer_and_proves_that_it_is_needed(ranked: CalibrationReport) -> None:
    assert ranked.met
    assert ranked.minimal
    assert ranked.fp32_layers == ("conv3",)
    assert ranked.strategy == "ranked"
    assert ranked.image_order == "hard first"
    first, *_, last = ranked.candidates
    assert (first.fp32_layers, first.meets) == ((), False)
    assert (last.fp32_layers, last.meets, last.score) == (("conv3",), True, ranked.score)


@pytest.mark.parametrize(
    ("n_actors", "switches"),
    [
        pytest.param(2, Switches(), id="two_actors"),
        pytest.param(3, Switches(), id="oversubscribed"),
        pytest.param(1, Switches(share_parts=False), id="no_shared_parts"),
        pytest.param(2, Switches(stop_early=False), id="no_early_stop"),
        pytest.param(2, Switches(look_ahead=False), id="no_look_ahead"),
    ],
)
def test_ranked_gives_the_same_bytes_whatever_helps_it(
    ranked: CalibrationReport,
    tiny: Tiny,
    tmp_path: Path,
    n_actors: int,
    switches: Switches,
) -> None:
    options = replace(OPTIONS, out=tmp_path, n_actors=n_actors)
    other = run_calibration(tiny.prototxt, tiny.weights, options, switches=switches)
    expected = {**without_times(Path(ranked.output).parent / "report.json"), "output": other.output}
    found = without_times(tmp_path / "report.json")
    if not switches.share_parts:  # a net by itself sums in another order
        assert found.pop("distances") == pytest.approx(expected.pop("distances"), rel=1e-4)
    assert found == expected
    assert Path(other.output).read_bytes() == Path(ranked.output).read_bytes()


@pytest.mark.parametrize(
    ("n_actors", "confidence"),
    [
        (4, None),
        pytest.param(8, None, marks=pytest.mark.slow),
        pytest.param(8, 0.9, marks=pytest.mark.slow),
    ],
)
def test_ranked_gives_the_same_bytes_on_many_actors_that_answer_in_any_order(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_actors: int, confidence: float | None
) -> None:
    options = replace(OPTIONS, iterations=5 * ITERATIONS, confidence=confidence)
    made = []
    for n in (1, n_actors):
        report = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / str(n), n_actors=n))
        found = without_times(tmp_path / str(n) / "report.json")
        made.append(({**found, "output": ""}, Path(report.output).read_bytes()))
        shuffle_answers(monkeypatch)
    assert made[0] == made[1]


def test_keep_int8_is_kept_at_the_price_of_the_tolerance(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, keep_int8=("conv3",)))
    assert report.met is False
    assert "conv3" in report.int8_layers
    assert every("conv3" not in record.fp32_layers for record in report.candidates)


def test_keep_fp32_is_never_quantized(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, keep_fp32=("*3",)))
    assert report.met
    assert report.refused_layers["conv3"] == "--keep-fp32 names it"
    assert report.int8_layers == ("conv2", "conv4")
    assert len(report.candidates) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(replace(OPTIONS, keep_int8=("conv9",)), "--keep-int8 conv9: no convolution", id="int8_unknown"),
        pytest.param(replace(OPTIONS, keep_fp32=("x*", "conv2")), r"--keep-fp32 x\*: no conv", id="fp32_unknown"),
        pytest.param(replace(OPTIONS, keep_int8=("conv1",)), "'conv1' cannot be INT8: first conv", id="first"),
        pytest.param(
            replace(OPTIONS, keep_int8=("conv2",), keep_fp32=("conv2",)), "'conv2' cannot be INT8: --keep", id="both"
        ),
    ],
)
def test_keep_refuses_what_cannot_be(tiny: Tiny, tmp_path: Path, options: CalibrationOptions, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_max_candidates_delivers_the_best_so_far_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, max_candidates=1))
    assert report.met is False
    assert report.stopped_by == "--max-candidates 1"
    assert report.int8_layers == QUANTIZABLE
    assert "--max-candidates 1" in report.verdict


def test_max_time_delivers_the_best_so_far(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, max_time=1e-9))
    assert report.stopped_by == "--max-time 1e-09"
    assert len(report.candidates) == 1


def test_a_candidate_that_cannot_be_run_is_set_aside(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All-INT8 has a net that no actor can read: the search goes on with the others."""

    def broken(base, calibration, candidate):  # type: ignore[no-untyped-def]
        made = deliver(base, calibration, candidate)
        if candidate.fp32_layers == ("conv3",):
            made.net.test.layer[3].convolution_param.kernel_size[:] = [99]
        return made

    monkeypatch.setattr("distcalib.calibration.programs.deliver", broken)
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert report.met
    assert len(report.fp32_layers) == 2
    [failed] = [record for record in report.candidates if record.failed]
    assert failed.fp32_layers == ("conv3",)
    assert not failed.meets


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"confidence": 1.0}, "--confidence 1: must be at least 0.5 and below 1"),
        ({"confidence": float("nan")}, "--confidence nan: must be at least 0.5"),
        ({"max_candidates": 0}, "--max-candidates 0: must be at least 1"),
        ({"max_time": 0.0}, "--max-time 0: must be a number of seconds above 0"),
        ({"max_time": float("inf")}, "--max-time inf: must be a number of seconds above 0"),
    ],
)
def test_options_of_the_search_are_checked(changes: dict[str, float], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        replace(OPTIONS, **changes)  # type: ignore[arg-type]


def test_confidence_delivers_what_was_measured_on_all_iterations(tmp_path: Path) -> None:
    net = make_tiny(tmp_path)
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, iterations=5 * ITERATIONS, confidence=0.99))
    assert report.met
    assert report.confidence == 0.99
    assert report.image_order == "by doubt"
    assert report.fp32_layers == ("conv3",)
    assert report.candidates[-1].score == report.score
    assert report.all_int8_score is None, "it loses far too much: a part of the data shows it"
    assert report.minimal
