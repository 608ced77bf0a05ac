"""What runs in this process gives the rows that a worker gives."""

import pytest

from distcalib.caffe import read_weights
from distcalib.caffe.graph import Blob
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import open_net
from distcalib.engine.spec import Outputs
from distcalib.engine.timing import TimingSpec
from distcalib.engine.worker import NetWorker, Setting
from tests.session.tiny import BATCH, N_CLASSES, Tiny


def test_rows_are_those_of_a_worker(tiny: Tiny) -> None:
    net = open_net(tiny.prototxt)
    worker = NetWorker(Setting(tiny.prototxt, net.weights(tiny.weights), "net.caffemodel", {}), 1)
    worker.load("net", worker.compile(net.spec()))
    here = InProcess(net, read_weights(tiny.weights))
    assert [row.scores for row in here.rows(net.spec(), (3, 0))] == [row.scores for row in worker.run("net", (3, 0))]


def test_programs_of_any_kind_run_one_after_the_other(tiny: Tiny) -> None:
    net = open_net(tiny.prototxt)
    here = InProcess(net, read_weights(tiny.weights))
    fc = Blob("fc", 0)
    [row] = here.rows(net.spec(outputs=Outputs((fc,))), [0])
    [timed] = here.rows(TimingSpec(net.spec(), n_cores=1), [0])
    assert row.values[fc].shape == (BATCH, N_CLASSES)
    assert set(timed.seconds) > {"conv1", "fc"}


def test_a_program_is_dropped_even_if_it_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(NetWorker, "drop", lambda worker, key: dropped.append(key))
    monkeypatch.setattr(NetWorker, "run", lambda worker, key, iterations: 1 // 0)
    net = open_net(tiny.prototxt)
    with pytest.raises(ZeroDivisionError):
        InProcess(net, read_weights(tiny.weights)).rows(net.spec(), [0])
    assert len(dropped) == 1
