"""Runs by mAP from end to end, of an SSD and of a YOLO v2; what each has alone: test_detection.py, test_yolo.py."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate, run_calibration
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.search_driver import Switches
from distcalib.report import CalibrationReport
from tests.calibration.reports import fields_of, lasting
from tests.calibration.test_calibrate import Notes
from tests.session import tiny_ssd, tiny_yolo
from tests.session.evaluated import evaluate
from tests.session.tiny_ssd import ITERATIONS, TinySsd

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(
    iterations=ITERATIONS, recover="off", sampling_iterations=2, detection=True, accuracy_loss=0.1, n_actors=1
)


@dataclass(frozen=True)
class Detector:
    """A net and what is known of it: its score, within which bounds that lies, its classes and its layers."""

    net: TinySsd
    metric: str
    fp32_score: tuple[float, float]
    most_in_int8: float
    n_classes: int
    quantizable: tuple[str, ...]
    notes: Notes = field(default_factory=Notes)

    def calibrate(self, options: CalibrationOptions, notes: Notes | None = None) -> CalibrationReport:
        return calibrate(self.net.prototxt, self.net.weights, options, reporter=notes)


@pytest.fixture(scope="module", params=["ssd", "yolo"])
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "ssd":
        return Detector(tiny_ssd.make_tiny_ssd(folder), "map", (0.9, 1.0), 0.1, 2, tiny_ssd.QUANTIZABLE)
    made = tiny_yolo.make_tiny_yolo(folder)
    most = 2 / 3  # a class of three has no object
    return Detector(made, "eval_det", (0.5, most), most - 0.1, tiny_yolo.N_CLASSES, tiny_yolo.QUANTIZABLE)


@pytest.fixture(scope="module")
def ranked(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    """A run that had to search, on two actors."""
    return detector.calibrate(replace(OPTIONS, out=tmp_path_factory.mktemp("out"), n_actors=2), detector.notes)


def test_calibrate_finds_the_one_layer_that_int8_ruins(detector: Detector, ranked: CalibrationReport) -> None:
    assert (ranked.metric, ranked.met, ranked.minimal) == (detector.metric, True, True)
    assert ranked.fp32_layers == ("conv3",)
    assert set(ranked.int8_layers) | {"conv3"} == set(detector.quantizable)
    assert ranked.fp32_score is not None
    assert detector.fp32_score[0] < ranked.fp32_score <= detector.fp32_score[1]
    assert ranked.all_int8_score is not None
    assert ranked.all_int8_score < min(detector.most_in_int8, ranked.fp32_score - 0.1)
    assert any("'conv3' alone in INT8 does most to the output" in note for note in detector.notes.notes)


def test_calibrate_reports_the_ap_of_each_class_that_has_objects(detector: Detector, ranked: CalibrationReport) -> None:
    assert ranked.ap_version == "11point"
    for score, by_class in (
        (ranked.fp32_score, ranked.fp32_average_precisions),
        (ranked.score, ranked.average_precisions),
    ):
        assert list(by_class) == [1, 2]
        assert sum(by_class.values()) / detector.n_classes == pytest.approx(score)
    written = fields_of(Path(ranked.output).parent / "report.json")
    assert written["average_precisions"] == {str(label): ap for label, ap in ranked.average_precisions.items()}


@pytest.mark.slow
def test_calibrate_gives_the_same_bytes_on_one_actor(
    detector: Detector, ranked: CalibrationReport, tmp_path: Path
) -> None:
    found = detector.calibrate(replace(OPTIONS, out=tmp_path))
    assert Path(found.output).read_bytes() == Path(ranked.output).read_bytes()
    assert lasting(found) == lasting(ranked)


def test_evaluate_gives_the_map_of_the_delivered_file(detector: Detector, ranked: CalibrationReport) -> None:
    found = evaluate(ranked.output, detector.net.weights, ITERATIONS)
    assert found.scores == {detector.metric: ranked.score}
    assert found.average_precisions == {detector.metric: ranked.average_precisions}
    assert found.n_values == {detector.metric: 1}


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["ssd", pytest.param("yolo", marks=pytest.mark.slow)], indirect=True)
def test_calibrate_stops_candidates_early_and_decides_as_without(detector: Detector, tmp_path: Path) -> None:
    tolerance = 0.01 if detector.metric == "map" else 0.001
    options = replace(OPTIONS, iterations=8 * ITERATIONS, accuracy_loss=tolerance, enable_1st_conv=True)
    notes = Notes()
    found = detector.calibrate(replace(options, out=tmp_path / "0"), notes)
    shares = [int(note.rsplit("after ", 1)[1].split("%")[0]) for note in notes.notes if "too much (after" in note]
    assert min(shares) < 100, "at least one was stopped before the end"
    options, net = replace(options, out=tmp_path / "1"), detector.net
    whole = run_calibration(net.prototxt, net.weights, options, switches=Switches(stop_early=False))
    assert found.candidates == whole.candidates
    assert found.sha256 == whole.sha256
