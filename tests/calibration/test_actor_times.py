"""What the report says of times, on a run whose phases are known."""

from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from tests.session.tiny import N_RECORDS, Tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=6, sampling_iterations=2, n_actors=2, recover="off")


def test_phases_have_the_work_of_the_run(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    found = {phase.name: phase for phase in report.phases}
    assert list(found) == [
        "FP32 and ranges",
        "all INT8",
        "ranking 3 layers",
        "rounds",
        "speed",
        "inputs of layers",
    ]
    assert found["FP32 and ranges"].n_images == N_RECORDS + 8  # one of the sampled iterations is run twice
    assert found["rounds"].n_images >= N_RECORDS  # it may look ahead
    assert [phase.begin for phase in report.phases] == sorted(phase.begin for phase in report.phases)
    search = [found[name] for name in ("FP32 and ranges", "all INT8", "ranking 3 layers", "rounds")]
    assert report.cost_passes is not None
    assert sum(phase.passes or 0.0 for phase in search) == pytest.approx(report.cost_passes, rel=0.02)
    assert sum(report.cpus.values()) == 1
    assert report.utilisation is not None
    assert 0.0 < report.utilisation <= 1.0
    assert {actor for actor, *_ in report.actor_spans} == {0, 1}
    for _, number, begin, end, busy in report.actor_spans:
        phase = report.phases[number]
        assert phase.begin <= begin <= end <= phase.end
        assert busy > 0.0
    told = dict.fromkeys(found, 0.0)
    for _, number, _, _, busy in report.actor_spans:
        told[report.phases[number].name] += busy
    for name, phase in found.items():
        assert told[name] == pytest.approx(phase.run_seconds + phase.compile_seconds + phase.load_seconds, abs=0.02)


@pytest.mark.slow
def test_what_is_in_the_journal_took_no_time(tiny: Tiny, tmp_path: Path) -> None:
    calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    again = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert (again.phases, again.actor_spans, again.utilisation) == ((), (), None)
    assert "Actors over time" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_of_a_run_that_measures_nothing_the_ranges_are_told(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, quantize_model=True, out=tmp_path))
    assert [(phase.name, phase.passes) for phase in report.phases] == [("ranges", None)]
