"""--recover auto: new weights where all INT8 loses too much, and where they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.goal import Goal
from distcalib.calibration.observation import Observing
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.recovery import recovered_search
from distcalib.calibration.results import Observed
from distcalib.calibration.run_record import Interrupted
from distcalib.calibration.search_driver import Searching
from distcalib.errors import DistcalibError, EngineError, MeasureError, OptionError
from distcalib.quantize.candidate import Candidate, Space
from distcalib.quantize.scales import Calibration
from distcalib.search.price import Loss
from tests.calibration.disturbed import Ending, interrupt, shuffle_answers
from tests.calibration.reports import lasting
from tests.calibration.test_calibrate import Notes
from tests.calibration.test_skipping import corrupt
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny

OPTIONS = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=2, accuracy_loss=0.01, n_actors=1)
LOOSE = replace(OPTIONS, accuracy_loss=0.2)  # equalized it loses less than that, as given more
GIVEN, BIASES, SCALED = (Observed(Calibration(cast(Any, name), {}, {})) for name in ("given", "biases", "scaled"))
STEPS = {"corrected biases": BIASES, "equalized, corrected biases": SCALED}


class Stand:
    """A search whose all-INT8 net loses so much; `drops`: with other weights.  What is not met is an estimate."""

    def __init__(
        self, drop: float, drops: Mapping[str, float], options: CalibrationOptions = OPTIONS, spent: bool = False
    ) -> None:
        self.goal = Goal("top1", False, options)
        self.programs = SimpleNamespace(start=Space(("a", "b")).all_int8)
        self.drop, self.drops, self.label = drop, drops, ""
        self.tried: list[str] = []
        self.is_far: bool | None = None
        self.notes: list[str] = []
        self.meter = SimpleNamespace(note=self.notes.append)
        self.budget = SimpleNamespace(is_spent=spent)

    def losses(self, phase: str | None, candidates: list[Candidate]) -> list[Loss]:
        assert phase is None, "so that it is called all INT8"
        return [Loss(one, self.drop, about=self.drop > self.goal.options.accuracy_loss) for one in candidates]

    def other(self, label: str, calibration: Calibration) -> Stand:
        self.tried.append(label)
        found = Stand(self.drops[str(calibration.quantizer)], {}, self.goal.options)
        found.label = f"{label}: "
        return found

    def recovered(self, observed: Observed, is_far: bool) -> Iterator[tuple[str, Observed]]:
        assert observed is GIVEN
        self.is_far = is_far
        yield from STEPS.items()

    def better(self) -> list[Observed]:
        """What is searched in place of what was given, in its order."""
        found = list(recovered_search(cast(Searching, self), GIVEN, cast(Observing, self)))
        assert [searching.label for searching, _ in found] == [""] * len(found)
        return [observed for _, observed in found]


@pytest.mark.parametrize(
    ("given", "biases", "scaled", "kept", "n_tried"),
    [
        pytest.param(0.01, 0.0, 0.0, [], 0, id="nothing is lost"),
        pytest.param(0.02, 0.01, 0.0, [BIASES], 1, id="biases are enough"),
        pytest.param(0.02, 0.02, 0.01, [SCALED], 2, id="both are needed"),
        pytest.param(0.40, 0.20, 0.25, [BIASES], 2, id="biases lose least"),
        pytest.param(0.40, 0.31, 0.20, [SCALED], 2, id="both lose least"),
        pytest.param(0.40, 0.25, 0.20, [BIASES, SCALED], 2, id="each loses less"),
        pytest.param(0.40, 0.31, 0.35, [], 2, id="not worth a caffemodel"),
        pytest.param(0.012, 0.05, 0.01, [SCALED], 2, id="what meets is worth it"),
        pytest.param(math.inf, 0.5, 0.6, [BIASES], 2, id="what was given cannot be run"),
        pytest.param(0.40, math.inf, math.inf, [], 2, id="others cannot be run"),
    ],
)
def test_weights_are_kept_that_meet_or_lose_much_less(
    given: float, biases: float, scaled: float, kept: list[Observed], n_tried: int
) -> None:
    searching = Stand(given, {"biases": biases, "scaled": scaled})
    assert searching.better() == kept
    assert len(searching.tried) == n_tried
    if n_tried:
        assert searching.notes[-1].endswith("these weights" if kept else "those given")


@pytest.mark.parametrize(("given", "is_far"), [(0.011, False), (0.08, False), (0.081, True), (math.inf, True)])
def test_far_from_the_tolerance_is_many_times_it(given: float, is_far: bool) -> None:
    searching = Stand(given, {"biases": 0.0, "scaled": 0.0})
    searching.better()
    assert searching.is_far is is_far


def test_nothing_more_is_tried_when_the_time_is_over() -> None:
    searching = Stand(0.4, {"biases": 0.35, "scaled": 0.0}, spent=True)
    assert searching.better() == []
    assert searching.tried == ["corrected biases"]


@pytest.mark.parametrize(
    "changes",
    [
        {"recover": "off"},
        {"strategy": "none"},
        {"equalize": True},
        {"bias_correction": True},
        {"first_conv_force_u8": True},
        {"quantize_model": True},
        {"root": Path("build")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_is_tried_unasked(changes: dict[str, Any]) -> None:
    searching = Stand(0.5, {}, replace(OPTIONS, **changes))
    assert (searching.better(), searching.tried) == ([], [])


def test_recover_is_auto_or_off() -> None:
    with pytest.raises(OptionError, match="--recover on: unknown; choose auto or off"):
        replace(OPTIONS, recover="on")


@pytest.mark.usefixtures("actors")
def test_calibrate_recovers_before_it_pays_with_fp32_layers(tiny: Tiny, tmp_path: Path) -> None:
    notes = Notes()
    report = calibrate(tiny.prototxt, tiny.weights, replace(LOOSE, out=tmp_path / "1"), reporter=notes)
    assert (report.met, report.fp32_layers, report.recover) == (True, (), "auto")
    assert report.equalized_layers == {"conv1": "conv2", "conv2": "conv3", "conv3": "conv4", "conv4": "fc"}
    assert report.corrected_layers == report.int8_layers
    assert report.output_weights == str(tmp_path / "1" / "net_new.caffemodel")
    assert f"wrote {report.output} and {report.output_weights}" in report.verdict
    assert evaluate(report.output, report.output_weights, ITERATIONS, n_actors=1).scores[report.metric] == report.score
    with_given = evaluate(report.output, tiny.weights, ITERATIONS, n_actors=1)
    assert any("net.caffemodel is another caffemodel; give -w" in warning for warning in with_given.warnings)
    assert [record.fp32_layers for record in report.candidates] == [()]
    assert (report.layers_saved, report.all_int8_score_given) == ({}, None), "that is asked for with a flag"
    name = "scaled channels and corrected biases"
    assert any(note.startswith(f"{name}: all INT8 loses ") for note in notes.notes)
    assert any(note.startswith("corrected biases: no layer in FP32: loses too much") for note in notes.notes)
    other = calibrate(tiny.prototxt, tiny.weights, replace(LOOSE, out=tmp_path / "2", n_actors=2))
    assert lasting(other, "output_weights", "commands") == lasting(report, "output_weights", "commands")
    for name in ("net_quantized.prototxt", "net_new.caffemodel"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.usefixtures("actors")
def test_what_new_weights_saved_is_counted_when_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(LOOSE, out=tmp_path, count_saved=True)
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert report.fp32_layers == ()
    assert report.layers_saved["--equalize"] >= 1
    assert report.all_int8_score_given is not None
    assert report.fp32_score is not None
    assert report.all_int8_score_given < report.fp32_score - LOOSE.accuracy_loss


@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineError("net: blob 'fc' of FP32 would change; leave it out"), "net: blob 'fc' of FP32 would change"),
        (MeasureError("OpenVINO failed"), "OpenVINO failed"),
    ],
    ids=["changes FP32", "cannot be run"],
)
def test_weights_that_cannot_be_made_are_left_out_with_a_note(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: DistcalibError, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Observing, "_check_equalized", fail)
    notes = Notes()
    report = calibrate(tiny.prototxt, tiny.weights, replace(LOOSE, out=tmp_path), reporter=notes)
    assert (report.met, report.fp32_layers) == (True, ("conv3",))
    assert f"scaled channels and corrected biases cannot be made: {said}" in notes.notes


@pytest.mark.usefixtures("actors")
def test_ctrl_c_while_weights_are_tried_delivers_the_best_that_was_measured(tiny: Tiny, tmp_path: Path) -> None:
    """By its loss, of which all INT8 is measured to the end: with corrected biases it falls less."""
    options = replace(OPTIONS, out=tmp_path, blob_name="loss", accuracy_loss=0.0)
    whole = calibrate(tiny.prototxt, tiny.weights, replace(options, strategy="none", out=tmp_path / "given"))
    with pytest.raises(Interrupted) as interrupted:
        calibrate(tiny.prototxt, tiny.weights, options, reporter=Ending("equalized in FP32", interrupt))
    report = interrupted.value.report
    assert (report.stopped_by, report.fp32_layers) == ("Ctrl-C", ())
    assert report.drop is not None
    assert whole.drop is not None
    if report.corrected_layers:  # else they were not worth it
        assert report.drop < 0.75 * whole.drop
    else:
        assert report.drop == whole.drop


@pytest.mark.usefixtures("actors")
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["DIRECT", "auto"])
def test_new_weights_are_the_same_bytes_on_8_actors_that_answer_in_any_order(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    options = replace(LOOSE, iterations=5 * ITERATIONS, calibration_algos=algorithm)
    made = []
    for n in (1, 8):
        report = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / str(n), n_actors=n))
        assert report.output_weights is not None
        files = [Path(name).read_bytes() for name in (report.output, report.output_weights)]
        made.append((lasting(report, "output_weights", "commands"), files))
        shuffle_answers(monkeypatch)
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
def test_bad_records_are_left_out_of_new_weights_as_of_all_else(tiny: Tiny, tmp_path: Path) -> None:
    bad = corrupt(tiny, tmp_path / "bad", {3: b"\xff\xff"})
    report = calibrate(bad.prototxt, bad.weights, replace(LOOSE, out=tmp_path / "out", skip_bad_records=True))
    assert (report.met, report.fp32_layers) == (True, ())
    assert report.output_weights is not None
    again = evaluate(report.output, report.output_weights, ITERATIONS, n_actors=1, skip_bad_records=True)
    assert again.scores[report.metric] == report.score


@pytest.mark.usefixtures("actors")
def test_channels_are_scaled_at_once_where_all_int8_is_far_off(tiny: Tiny, tmp_path: Path) -> None:
    notes = Notes()
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path), reporter=notes)
    tried = [note.partition(":")[0] for note in notes.notes if note.split(": ")[1:2] == ["no layer in FP32"]]
    assert tried == ["scaled channels and corrected biases", "corrected biases"]
    assert report.met
