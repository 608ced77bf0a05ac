"""Nodes of a real Ray are asked; one of a cluster of three hosts is in tests/cluster."""

import os
from typing import Any

import pytest
import ray

import distcalib.actors.node_survey
from distcalib.actors.node_survey import survey
from distcalib.actors.nodes import NodeInfo, describe_this_node
from distcalib.actors.ray_cluster import RaySource


def test_survey_of_this_machine_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever another test has started
    monkeypatch.setattr("ray.init", lambda *given, **named: started.append(given))
    found = survey(RaySource())
    assert [node.host for node in found.nodes] == [os.uname().nodename]
    assert found.silent == {}
    assert not started


@pytest.mark.usefixtures("one_ray")
def test_survey_asks_each_node() -> None:
    [node] = survey(RaySource()).nodes
    [known] = ray.nodes()  # type: ignore[no-untyped-call]
    assert (node.node_id, node.address) == (known["NodeID"], known["NodeManagerAddress"])
    assert node.topology.cores == describe_this_node().topology.cores
    assert ray.is_initialized(), "it was not the survey's to end"


@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("trouble", ["raises", "hangs"])
def test_survey_names_a_node_that_cannot_tell(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    def cannot(node_id: str, address: str) -> NodeInfo:
        import time

        if trouble == "raises":
            raise ModuleNotFoundError("No module named 'distcalib.actors.nodes'")
        time.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(distcalib.actors.node_survey, "describe_this_node", cannot)
    monkeypatch.setattr(distcalib.actors.node_survey, "_SECONDS", 2.0)
    found: Any = survey(RaySource())
    assert found.nodes == ()
    [(label, reason)] = found.silent.items()
    assert label.startswith(os.uname().nodename)
    assert (
        reason
        == {
            "raises": "cannot tell what it is: No module named 'distcalib.actors.nodes'; install distcalib there "
            "as on the others",
            "hangs": "does not answer within 2 s; see whether the machine is well, or take it out",
        }[trouble]
    )
