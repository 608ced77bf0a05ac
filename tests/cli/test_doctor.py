"""`distcalib doctor`: nodes that are alike together, then what is wrong, and the exit code."""

import json
from pathlib import Path

import pytest

import distcalib.cli.doctor
from distcalib.actors.machines import Survey
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from tests.actors.machines import read_machine
from tests.actors.test_diagnosis import CASCADE, node


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Survey:
    """What the survey finds; nodes are added by the tests."""
    found = Survey((node("host1", address="10.0.0.1"), node("host2", address="10.0.0.2")), {})
    monkeypatch.setattr(distcalib.cli.doctor, "survey", lambda source: found)
    return found


def test_doctor_of_this_machine_needs_no_ray(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["doctor"]) == OK
    shown = capsys.readouterr().out
    assert "physical" in shown
    assert "versions" in shown
    assert shown.splitlines()[-1].startswith("1 node(s), ")


def test_doctor_tells_nodes_that_are_alike_together(answer: Survey, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--address", "auto"]) == OK
    assert capsys.readouterr().out.splitlines() == [
        "host1 (10.0.0.1), host2 (10.0.0.2)",
        "  CPU       unknown",
        "  cores     4 physical in 1 socket, 1 NUMA node; hyper-threads, of which the second of each core stays idle",
        "  actors    4, by default",
        "  memory    192.0 GB, 180.0 GB free; /dev/shm 96.0 GB",
        "  kernels   avx512_core, avx2",
        "  targets   skylake native, cascadelake emulated, sapphirerapids emulated",
        "  versions  distcalib 1.0, openvino 2026.0, opencv-python-headless 4.9, numpy 2.1, ray 2.60.0",
        "2 node(s), 8 actor(s), skylake, native: ready, nothing is wrong",
    ]


def test_doctor_tells_warnings_and_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    limited = read_machine("container-cpus-3-7-9").topology(tmp_path / "limited")
    offline = read_machine("offline-cpus").topology(tmp_path / "offline")
    found = Survey((node("host1", limited, isas=CASCADE), node("host2", offline, shm_bytes=0)), {})
    monkeypatch.setattr(distcalib.cli.doctor, "survey", lambda source: found)
    assert main(["doctor"]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("warning: ") for line in lines) == 3
    assert any("4 physical of 10 in 1 socket" in line for line in lines)
    assert "  offline   CPU 9, 10, 11, 12, 13, 19" in lines
    assert lines[-1] == "2 node(s), 13 actor(s), skylake, native: ready, 3 warning(s)"


def test_doctor_fails_where_a_run_would_be_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distcalib.cli.doctor, "survey", lambda source: Survey((node("host1", isas=()),), {}))
    assert main(["doctor", "--isa", "skylake"]) == ERROR
    lines = capsys.readouterr().out.splitlines()
    assert "  targets   skylake impossible, cascadelake emulated, sapphirerapids emulated" in lines
    assert any(line.startswith("error: --isa skylake: pairs of products that saturate") for line in lines)
    assert lines[-1].endswith("a run would be refused, 1 error(s), 1 warning(s)")


def test_doctor_json(answer: Survey, capsys: pytest.CaptureFixture[str]) -> None:
    answer.silent["host3"] = "does not answer; see to it"
    assert main(["doctor", "--json"]) == ERROR
    told = json.loads(capsys.readouterr().out)
    assert (told["ready"], len(told["nodes"])) == (False, 2)
    assert [finding["nodes"] for finding in told["findings"]] == [["host3"]]


def test_doctor_names_a_cluster_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--address", "127.0.0.1:1"]) == ERROR
    assert "--address 127.0.0.1:1: " in capsys.readouterr().err
