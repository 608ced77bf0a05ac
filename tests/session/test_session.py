"""What is the same in all runs. (The actors: test_calibration, test_evaluation.)"""

from pathlib import Path

import pytest

import distcalib.actors.nodes
from distcalib.actors.isa import isa_here
from distcalib.actors.ray_cluster import RayCluster
from distcalib.engine.net import open_net
from distcalib.errors import MeasureError, OptionError
from distcalib.plugins import load_plugins
from distcalib.session.backend import Embedded
from distcalib.session.intel_caffe import CaffeBuild, IntelCaffe
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Silent
from distcalib.session.session import Session, agreed
from distcalib.session.versions import versions
from tests.actors.forked import ForkedMachines
from tests.actors.test_compatibility import CASCADE, node
from tests.session.tiny import Tiny


def test_versions_name_what_a_score_depends_on() -> None:
    names = {"distcalib", "openvino", "ray", "numpy", "opencv", "python"}
    assert versions().keys() == names
    load_plugins(["json"])
    assert versions().keys() == names, "a plugin of another run of this process counts"
    assert versions(plugins=["json"]).keys() == {*names, "plugin json"}


def test_agree_holds_all_nodes_to_one_instruction_set_and_refuses_mixed_versions() -> None:
    limited = {"DISTCALIB_ARITHMETIC": "halved", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    embedded = Embedded("native")
    assert agreed(embedded, [node("host0", CASCADE), node("host1")]) == limited
    caffe = IntelCaffe(CaffeBuild(Path("caffe"), "1"))
    assert agreed(caffe, [node("host0", CASCADE)]).keys() >= {"DISTCALIB_ARITHMETIC"}
    with pytest.raises(OptionError, match="-r: works on one machine, and the cluster has 2 nodes; leave out --address"):
        agreed(caffe, [node("host0", CASCADE), node("host1")])
    mixed = [node("host0"), node("host1", openvino="2025.4")]
    with pytest.raises(MeasureError, match=r"openvino is 2025\.4 on host1"):
        agreed(embedded, mixed)
    with pytest.raises(MeasureError, match=r"openvino is 2025\.4 on host1"):
        agreed(caffe, mixed)


@pytest.mark.usefixtures("actors")
def test_session_runs_on_ray_where_the_tests_are_told_to(tiny: Tiny, pytestconfig: pytest.Config) -> None:
    with Session(open_net(tiny.prototxt), tiny.weights, Silent(), SessionOptions(n_actors=1)) as session:
        assert isinstance(session._pool._cluster, RayCluster if pytestconfig.getoption("--on-ray") else ForkedMachines)


@pytest.mark.usefixtures("actors")
def test_session_takes_wider_actors_where_memory_is_short(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "note", said.append)
    net = open_net(tiny.prototxt)
    with Session(net, tiny.weights, reporter) as session:
        assert session.cores_per_actor == 1
        n_actors = session.n_actors
    assert not any("memory is short" in line for line in said)
    monkeypatch.setattr(distcalib.actors.nodes, "memory", lambda root: (2**28, 2**28))  # less than one actor needs
    with Session(net, tiny.weights, reporter) as session:
        assert (session.n_actors, session.cores_per_actor) == (1, n_actors)
        assert session.isa == isa_here()
    assert any("memory is short: 1 actors, of up to" in line for line in said) == (n_actors > 1)
