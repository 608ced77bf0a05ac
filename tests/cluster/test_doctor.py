"""`distcalib doctor` on a cluster of three hosts: it asks each of them, and sees in what they differ."""

import json
from typing import Any

import pytest

from tests.cluster.hosts import Host

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def findings(told: dict[str, Any], words: str) -> list[list[str]]:
    return [finding["nodes"] for finding in told["findings"] if words in finding["what"]]


def test_doctor_tells_each_node_from_any_of_them(three: list[Host]) -> None:
    for host in (three[0], three[2]):
        told = json.loads(host.run("distcalib doctor --address auto --json 2>/dev/null"))
        assert told["ready"]
        assert [(node["host"], node["address"]) for node in told["nodes"]] == [(at.name, at.ip) for at in three]
        for at, node in zip(three, told["nodes"], strict=True):
            assert [core["cpus"] for core in node["topology"]["cores"]] == [[at.cpu]]
            assert node["actors"] == 1
        assert len({node["node_id"] for node in told["nodes"]}) == 3
        twins = [f"{at.name} ({at.ip})" for at in three if at.cpu == three[0].cpu]
        assert findings(told, f"run on one machine and share CPU {three[0].cpu}") == ([twins] if len(twins) > 1 else [])


def test_doctor_is_refused_without_the_token(three: list[Host]) -> None:
    said = three[1].run(
        f"distcalib doctor --address {three[0].ip}:6379; echo exit code $?", env={"RAY_AUTH_MODE": "disabled"}
    )
    address = f"--address {three[0].ip}:6379"
    assert f"distcalib: {address}: Ray wants a token there that this machine does not show; copy" in said
    assert "Traceback" not in said
    assert said.rstrip().endswith("exit code 1")


def test_doctor_does_not_wait_for_a_node_that_is_cut_off(three: list[Host]) -> None:
    lost = three[1]
    lost.cut_off()
    try:
        said = three[0].run("distcalib doctor --address auto --json 2>/dev/null; echo exit code $?")
    finally:
        lost.plug_in()
    told = json.loads(said.rsplit("exit code", 1)[0])
    assert [node["host"] for node in told["nodes"]] == [three[0].name, three[2].name]
    # Ray has already struck it off, or it is named as silent.
    silent = [finding["nodes"] for finding in told["findings"] if finding["refused"]]
    assert silent in ([], [[f"{lost.name} ({lost.ip})"]])


def test_doctor_sees_in_what_nodes_differ(three: list[Host]) -> None:
    odd = three[2]
    odd.stop_ray()
    old = odd.folder / "site/openvino-2025.4.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2025.4.0\n")
    odd.start_ray(three[0], env={"PYTHONPATH": str(old.parent), "ONEDNN_MAX_CPU_ISA": "AVX2"})
    said = three[0].run("distcalib doctor --address auto --json 2>/dev/null; echo exit code $?")
    told, code = said.rsplit("exit code", 1)
    assert code.strip() == "1"
    told = json.loads(told)
    assert findings(told, "openvino is ") == [[]]
    assert findings(told, f"and 2025.4.0 on {odd.name} ({odd.ip})") == [[]]
    assert (told["isa"], told["way"], told["kernels"]) == ("cascadelake", "emulated", "avx2")
    emulating = [node for node in told["nodes"] if node["targets"]["cascadelake"] == "emulated"]
    assert odd.name in [node["host"] for node in emulating]
    labels = [f"{node['host']} ({node['address']})" for node in emulating]
    assert findings(told, "cascadelake is emulated in FP32 kernels") == [labels]
