"""Runs of each kind on Ray's actors, and on forked ones: the bytes are the same, so other files may fork theirs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from tests.actors.forked import ForkServer, forking
from tests.calibration.reports import lasting
from tests.calibration.test_skipping import BAD, corrupt
from tests.session.tiny import ITERATIONS, Tiny, make_tiny
from tests.session.tiny_ssd import TinySsd, make_tiny_ssd
from tests.session.tiny_yolo import make_tiny_yolo

pytestmark = pytest.mark.usefixtures("one_ray")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, n_actors=2)
BY_MAP = replace(OPTIONS, detection=True, accuracy_loss=0.1)


def make_yolo(folder: Path) -> TinySsd:
    folder.mkdir()
    return make_tiny_yolo(folder)


def make_bad(folder: Path) -> Tiny:
    return corrupt(make_tiny(folder / "whole"), folder / "bad", BAD)


@pytest.mark.parametrize(
    ("make", "options", "n_bad"),
    [
        pytest.param(make_tiny, OPTIONS, 0, id="classes"),
        pytest.param(make_tiny_ssd, BY_MAP, 0, id="SSD"),
        pytest.param(make_yolo, BY_MAP, 0, id="YOLO"),
        pytest.param(make_bad, replace(OPTIONS, skip_bad_records=True), len(BAD), id="bad records"),
    ],
)
def test_calibrate_writes_the_same_on_ray_and_on_forked_actors(
    fork_server: ForkServer,
    tmp_path: Path,
    make: Callable[[Path], Tiny | TinySsd],
    options: CalibrationOptions,
    n_bad: int,
) -> None:
    net = make(tmp_path / "net")
    on_ray = calibrate(net.prototxt, net.weights, replace(options, out=tmp_path / "ray"))
    with forking(fork_server) as source:
        forked = calibrate(net.prototxt, net.weights, replace(options, out=tmp_path / "forked"))
        assert source.n_opened == 1
    assert on_ray.fp32_layers == ("conv3",)
    assert (0 if on_ray.bad_records is None else on_ray.bad_records.count) == n_bad
    assert Path(forked.output).read_bytes() == Path(on_ray.output).read_bytes()
    assert lasting(forked) == lasting(on_ray)
