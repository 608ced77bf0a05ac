"""Times by layer: of every layer with a kernel of its own, FP32 and INT8."""

from pathlib import Path

import pytest

from distcalib.engine.net import open_net
from distcalib.engine.timing import REST, TimingSpec
from distcalib.engine.worker import NetWorker, Setting
from tests.every import every
from tests.session.tiny import make_tiny


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> tuple[NetWorker, Path]:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    weights = open_net(made.prototxt).weights(made.weights)
    return NetWorker(Setting(made.prototxt, weights, "net.caffemodel", {}), 1), made.prototxt


def test_timing_has_a_row_an_iteration_and_every_layer_that_multiplies(worker: tuple[NetWorker, Path]) -> None:
    net_worker, prototxt = worker
    net_worker.load("times", net_worker.compile(TimingSpec(open_net(prototxt).spec(), n_cores=1)))
    rows = net_worker.run("times", (0, 3))
    net_worker.drop("times")
    assert [set(row.seconds) for row in rows] == [{REST, "conv1", "conv2", "conv3", "conv4", "fc"}] * 2
    assert every(0.0 < row.seconds["conv2"] < row.whole_seconds < 1.0 for row in rows)
    assert every(row.scores == {} for row in rows)
    with pytest.raises(KeyError):
        net_worker.run("times", (0,))
