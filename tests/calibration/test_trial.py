"""Scores without actors are those of a calibration with them."""

from pathlib import Path

from distcalib.caffe import read_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.trial import Trial
from distcalib.engine.net import open_net
from distcalib.quantize.options import Options
from tests.session.tiny import ITERATIONS, make_tiny


def test_trial_scores_as_calibrate_does(tmp_path: Path, actors: None) -> None:
    tiny = make_tiny(tmp_path)
    trial = Trial(open_net(tiny.prototxt), read_weights(tiny.weights), Options(), ITERATIONS)
    options = CalibrationOptions(
        iterations=ITERATIONS, accuracy_loss=0.0, n_actors=1, strategy="greedy", recover="off", out=tmp_path / "out"
    )
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert trial.fp32_score == report.fp32_score
    assert [trial.drop(*record.fp32_layers) for record in report.candidates] == [c.drop for c in report.candidates]


def test_cure_and_gap_of_the_ruined_layer(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    trial = Trial(open_net(tiny.prototxt), read_weights(tiny.weights), Options(), ITERATIONS)
    assert trial.cure_and_gap(["conv3"]) == (trial.drop("conv3"), trial.drop())
    assert trial.drop("conv3") < trial.drop()
